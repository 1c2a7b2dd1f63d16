"""The page of a dataset, and how fast it reads."""

import base64
import importlib.util
import json
import re

import numpy as np
import pytest

from robolearn.cli import main
from robolearn.data.commands import bench, view
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.synthetic import STATE_SPEC, camera_spec, frame, record
from robolearn.data.video import decode_span, probe
from robolearn.errors import ConfigError, DataError, MissingLibraryError

TOP = "observation.images.top"


def content(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])


def test_a_page_holds_everything(tmp_path):
    root = record(tmp_path / "set", [3, 7, 4], camera_spec(33), WriterOptions(images="image"))
    page = tmp_path / "page.html"
    assert main(["data", "view", str(root), str(page), "episodes=[1,2]"]) == 0
    data = content(page)
    assert [episode["number"] for episode in data["episodes"]] == [1, 2]
    actions = LeRobotReader(root).read(1, ["action"])["action"]
    assert np.array_equal(np.array(data["episodes"][0]["signals"]["action"]["columns"]).T, actions)
    kind, _, encoded = data["episodes"][0]["videos"][TOP].partition(",")
    assert kind == "data:video/mp4;base64"
    (tmp_path / "back.mp4").write_bytes(base64.b64decode(encoded))
    assert probe(tmp_path / "back.mp4")["frames"] == 7
    pixels = decode_span(tmp_path / "back.mp4", 0.0, 7, 10.0).astype(int)
    wanted = LeRobotReader(root).read(1, [TOP])[TOP][:, :32, :32]
    assert np.abs(pixels - wanted).mean() < 6
    text = page.read_text()
    assert "default-src 'none'" in text  # no network
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", text)


def test_nothing_in_a_dataset_becomes_script(tmp_path):
    with LeRobotWriter(tmp_path / "set", STATE_SPEC) as writer:
        writer.add_frame(frame(STATE_SPEC, 0, 0) | {"task": "</script><script>alert(1)</script>"})
        writer.save_episode()
    view({"path": str(tmp_path / "set"), "out": str(tmp_path / "page.html")})
    assert "alert(1)</script>" not in (tmp_path / "page.html").read_text()
    assert content(tmp_path / "page.html")["episodes"][0]["task"] == "</script><script>alert(1)</script>"


def test_a_recording_for_rerun(tmp_path):
    root = record(tmp_path / "set", [3, 7], camera_spec(16), WriterOptions(images="image"))
    out = tmp_path / "set.rrd"
    if importlib.util.find_spec("rerun") is None:
        with pytest.raises(MissingLibraryError, match="rerun"):
            view({"path": str(root), "out": str(out)})
        assert not out.exists()
        return
    from rerun.experimental import RrdReader

    view({"path": str(root), "out": str(out), "episodes": [1]})
    chunks = [chunk for chunk in RrdReader(out).stream() if chunk.entity_path.startswith("/episode_1/")]
    rows = {path: sum(c.num_rows for c in chunks if c.entity_path == path) for path in {c.entity_path for c in chunks}}
    assert rows == {f"/episode_1/{key}": 7 for key in (TOP, "observation.state", "action")}
    stored = next(chunk for chunk in chunks if chunk.entity_path.endswith("/action")).to_record_batch().to_pydict()
    wanted = LeRobotReader(root).read(1, ["action"])["action"]
    assert next(values for name, values in stored.items() if "scalars" in name) == wanted.tolist()
    assert stored["frame"] == list(range(7))


def test_mistakes(tmp_path):
    root = record(tmp_path / "set", [3])
    with pytest.raises(ConfigError, match="Where to is missing"):
        view({"path": str(root)})
    with pytest.raises(DataError, match="not there"):
        view({"path": str(root), "out": str(tmp_path / "page.html"), "episodes": [3]})
    with pytest.raises(ConfigError, match="out of range"):
        bench({"path": str(root), "seconds": -1.0})


def test_bench_measures_both_ways(tmp_path):
    root = record(tmp_path / "set", [9, 9], camera_spec(16), WriterOptions(images="image"))
    result = bench({"path": str(root), "seconds": 0.05, "batch_size": 4})
    assert result["windows"] == 18
    assert result["signals_per_s"] > 0
    assert result["decoded_per_s"] > 0
