"""Comparisons of evaluations: paired statistics by hand-computed numbers, refusals, the page."""

import base64
import hashlib
import json
import math
import re

import numpy as np
import pytest

from robolearn.cli import main
from robolearn.compare import (
    Episode,
    Judgement,
    bradley_terry,
    compare_pair,
    rank,
    rank_judgements,
    read_result,
    shared,
)
from robolearn.errors import ConfigError, DataError
from robolearn.evaluation import summarise, write_json
from robolearn.report.comparison import write_comparison
from robolearn.rollout import Outcome
from robolearn.seeding import generator


def episodes(successes, scores=None):
    scores = scores or [float(success) for success in successes]
    return [Episode(bool(a), b, 100 + i, 10) for i, (a, b) in enumerate(zip(successes, scores, strict=True))]


def result(successes, seed=100, task="", protocol=None):
    outcomes = [Outcome(i, seed + i, bool(good), 1.0, float(good), 10, task=task) for i, good in enumerate(successes)]
    content = summarise(outcomes, 1.0).to_dict()
    return content | ({"protocol": {"definition_hash": protocol}} if protocol else {})


def test_paired_numbers():
    pair = compare_pair(("A", "B"), episodes([1, 0, 0, 0, 0, 1, 0, 0]), episodes([0, 1, 1, 1, 1, 1, 1, 0]))
    assert (pair.gained, pair.lost) == (5, 1)
    assert pair.difference.value == 0.5
    assert pair.p_value == pytest.approx(2 * (1 + 6) / 2**6)
    assert pair.difference.low < 0.5 < pair.difference.high
    assert pair.decided_after is None


def test_a_sequential_test_decides_when_it_is_clear():
    clear = compare_pair(("A", "B"), episodes([0] * 40), episodes([1] * 40))
    # B(k + 1/2, 1/2) / B(1/2, 1/2) 2^k first exceeds 20 at k = 7: C(2k, k) / 2^k = 3432 / 128 = 26.8
    assert clear.decided_after == next(k for k in range(1, 40) if math.comb(2 * k, k) / 2**k >= 20) == 7
    with_ties = compare_pair(("A", "B"), episodes([1, 0] * 20), episodes([1, 1] * 20))
    assert with_ties.decided_after == 14


def test_a_sequential_test_is_seldom_wrong():
    draw, wrong = generator("sequential"), 0
    for _ in range(200):
        one, two = draw.random((2, 150)) < 0.5
        wrong += compare_pair(("A", "B"), episodes(one), episodes(two)).decided_after is not None
    assert wrong <= 20  # at most 5 % are expected


def test_bradley_terry_finds_the_strengths_that_made_the_games():
    truth, draw = np.array([1.0, 0.2, -1.2]), generator("games")
    wins = np.zeros((3, 3))
    for i in range(3):
        for j in range(i):
            won = draw.binomial(4000, 1 / (1 + np.exp(truth[j] - truth[i])))
            wins[i, j], wins[j, i] = won, 4000 - won
    assert np.abs(bradley_terry(wins) - truth).max() < 0.06
    undefeated = bradley_terry(np.array([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert undefeated[0] > undefeated[2] > undefeated[1]
    assert np.isfinite(undefeated).all()


def test_ranking_by_success_then_score():
    found = {
        "good": dict(enumerate(episodes([1] * 30))),
        "close": dict(enumerate(episodes([0] * 30, [0.9] * 30))),
        "bad": dict(enumerate(episodes([0] * 30, [0.2] * 30))),
    }
    keyed = {name: {("", i): episode for i, episode in one.items()} for name, one in found.items()}
    places = rank(keyed, draws=20)
    assert [place.name for place in places] == ["good", "close", "bad"]
    assert [place.wins for place in places] == [60, 30, 0]
    assert sum(place.strength.value for place in places) == pytest.approx(0, abs=1e-6)


def test_ranking_of_verdicts():
    verdicts = [Judgement("a", "b", "left"), Judgement("b", "a", "right"), Judgement("b", "c", "tie")]
    assert rank_judgements(verdicts)[0].name == "a"


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (result([1, 0], seed=7), "same seed"),
        (result([1, 0], task="pusht"), "no episode in common"),
        (result([1, 0], protocol="abc"), "different protocols"),
    ],
)
def test_what_is_not_comparable_is_refused(other, match):
    with pytest.raises(ConfigError, match=match):
        shared({"A": result([1, 0]), "B": other})


def test_only_shared_episodes_count():
    found = shared({"A": result([1, 0, 1]), "B": result([0, 0])})
    assert [len(one) for one in found.values()] == [2, 2]


WRONG = '{"outcomes": [{"episode": 0, "success": true, "max_reward": 1, "seed": 1, "length": 3}], "protocol": 3}'


@pytest.mark.parametrize(
    "content", ["[", "{}", '{"outcomes": [{"episode": 1}]}', '{"outcomes": []}', "[1]", '{"outcomes": [1]}', WRONG]
)
def test_a_file_that_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(DataError):
        read_result(tmp_path)


def test_the_command_leaves_a_page_and_numbers(tmp_path, capsys):
    draw = generator("command")
    for name, rate in (("one", 0.3), ("two", 0.9), ("three", 0.6)):
        write_json(tmp_path / name / "result.json", result(draw.random(60) < rate))
        (tmp_path / name / "success_0003.mp4").write_bytes(b"no video")
    folders = [str(tmp_path / name) for name in ("one", "two", "three")]
    assert main(["compare", *folders, f"out={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [place["name"] for place in found["ranking"]] == ["two", "three", "one"]
    assert found["pairs"][0]["names"] == ["one", "two"]
    assert found["pairs"][0]["decided_after"]
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count('<div class="pair"') == 2
    verdicts = {"judgements": [{"left": "one", "right": "two", "verdict": "right", "task": "", "episode": 3}]}
    write_json(tmp_path / "judgements.json", verdicts)
    judged = [f"judgements={tmp_path / 'judgements.json'}", f"out={tmp_path / 'judged'}"]
    assert main(["compare", *folders, *judged]) == 0
    found = json.loads((tmp_path / "judged" / "result.json").read_text())
    assert [place["name"] for place in found["preferences"]] == ["two", "one"]
    capsys.readouterr()
    assert main(["compare", folders[0]]) == 2
    assert "two results or more" in capsys.readouterr().err


def test_the_page_runs_its_own_script_only(tmp_path):
    keyed = {name: {("", i): one for i, one in enumerate(episodes([1, 0]))} for name in ("<a>", "b")}
    pair = compare_pair(("<a>", "b"), list(keyed["<a>"].values()), list(keyed["b"].values()))
    page = write_comparison(tmp_path / "page.html", keyed, [pair], rank(keyed, draws=5)).read_text()
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    assert f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}" in page
    assert "<a>" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)
