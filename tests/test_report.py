"""The report: one file, no network, everything in it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from robolearn.evaluation import summarise
from robolearn.report import write_report
from robolearn.report.charts import curves, interval, strip
from robolearn.rollout import Outcome

OUTCOMES = [Outcome(i, 1000 + i, i % 10 != 3, float(i % 7), 0.5, 40 + i) for i in range(60)]


class Page(HTMLParser):
    """Collects tags and everything that could load from elsewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path):
    video = tmp_path / "success.mp4"
    video.write_bytes(b"not really a video")
    result = {
        **summarise(OUTCOMES, 2.0).to_dict(),
        "verb": "demo",
        "wall_s": {"training": 3.0, "evaluation": 2.0, "total": 5.5},
        "versions": {"torch": "2.11.0"},
        "config": {"note": "<script>alert(1)</script>"},
    }
    metrics = [{"step": step, "loss": 1.0 / (1 + step)} for step in range(50)]
    return write_report(tmp_path / "report.html", "pick & place", result, metrics, [video]).read_text()


def test_report_is_one_well_formed_file_without_scripts_or_addresses(page):
    parsed = Page(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert [address[:22] for address in parsed.addresses] == ["data:video/mp4;base64,"]
    assert not re.search(r"https?://", page)


def test_report_says_what_was_found(page):
    result = summarise(OUTCOMES, 2.0)
    assert f"{result.success_rate:.1%}" in page
    assert f"{result.success.low:.1%} to {result.success.high:.1%}" in page
    assert page.count('rect class="bad"') == 6
    assert "episode 13, seed 1013: failure" in page
    assert "6 failed episodes" in page
    assert "polyline" in page
    assert "pick &amp; place" in page
    assert "&lt;script&gt;" in page


def test_report_of_almost_nothing(tmp_path):
    parsed = Page(write_report(tmp_path / "report.html", "bare", {}).read_text())
    assert "h1" in parsed.tags
    assert "video" not in parsed.tags


def test_charts_keep_inside_their_box():
    drawn = curves({"loss": [(0, 1e-3), (10, 10.0), (20, 3.0)], "bad": [(0, float("nan")), (1, -1.0)]}, 500, 200)
    points = [tuple(map(float, pair.split(","))) for pair in re.findall(r"[\d.]+,[\d.]+", drawn)]
    assert points
    assert all(0 <= x <= 500 and 0 <= y <= 200 for x, y in points)
    assert "No curve" in curves({"loss": []})
    assert 'cx="294.0"' in interval(1.0, 0.9, 1.0)
    assert strip([(True, "a"), (False, "b")]).count("<rect") == 2


def test_a_browser_draws_it(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "page.html").write_text(page)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'page.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "Success rate" in dom
    assert dom.count("<polyline") == 2
