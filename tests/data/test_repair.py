"""Repair keeps the longest prefix that verifies, and doing it twice changes nothing more."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from robolearn.data.commands import info, repair, verify
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.recorder import Recorder
from robolearn.data.stats import QUANTILES, Sketch, merge_moments, moments, signal_stats
from robolearn.data.synthetic import STATE_SPEC, frame, record

INFO, DATA = "meta/info.json", "data/chunk-000/file-000.parquet"
LENGTHS = [4, 6, 3, 5]


def snapshot(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def change_info(root, **changes):
    data = json.loads((root / INFO).read_text())
    (root / INFO).write_text(json.dumps({**data, **changes}))


def flip_in_episode(root, episode):
    column = pq.ParquetFile(root / DATA).metadata.row_group(episode).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray((root / DATA).read_bytes())
    content[start + column.total_compressed_size - 1] ^= 255
    (root / DATA).write_bytes(bytes(content))


def journal_left(root):
    """Leave what a killed recorder leaves: an acknowledged episode that is not folded in."""
    with Recorder.resume(root, STATE_SPEC) as recorder:
        for step in range(2):
            recorder.add_frame(frame(STATE_SPEC, 4, step))
        recorder.save_episode()
        shutil.copytree(root, root.with_name("killed"))
    shutil.rmtree(root)
    root.with_name("killed").rename(root)


DAMAGES = {
    "none": (lambda root: None, LENGTHS),
    "too many episodes": (lambda root: change_info(root, total_episodes=9), LENGTHS),
    "too many frames": (lambda root: change_info(root, total_frames=99), LENGTHS),
    "damaged page": (lambda root: flip_in_episode(root, 2), LENGTHS[:2]),
    "first episode damaged": (lambda root: flip_in_episode(root, 0), []),
    "journal": (journal_left, [*LENGTHS, 2]),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_the_longest_verified_prefix_is_kept(tmp_path, name):
    root = record(tmp_path / "set", LENGTHS)
    damage, kept = DAMAGES[name]
    damage(root)
    damaged = snapshot(root)
    first = repair({"path": str(root)})
    assert first["changed"] == (name != "none")
    assert LeRobotReader(root).lengths.tolist() == kept
    assert verify({"path": str(root)})["problems"] == []
    once = snapshot(root)
    again = repair({"path": str(root)})
    assert (again["changed"], again["kept"]) == (False, len(kept))
    assert snapshot(root) == once
    if name != "journal":  # nothing but info.json was touched
        assert {key for key in damaged if damaged[key] != once[key]} <= {INFO}


def test_info_counts_the_shortest_episode(tmp_path):
    assert info({"path": str(record(tmp_path / "set", LENGTHS))})["shortest"] == 3


def test_sketched_quantiles_are_within_one_percent():
    draw = np.random.default_rng(0)
    values = np.stack([np.arange(100_000.0), draw.normal(5, 2, 100_000), draw.exponential(1, 100_000)], 1)
    sketch = Sketch(values.min(0), values.max(0))
    for block in np.array_split(values, 7):
        sketch.add(block)
    levels = list(QUANTILES.values())
    spread = values.max(0) - values.min(0)
    assert (np.abs(sketch.quantiles(levels) - np.quantile(values, levels, axis=0)) <= 0.01 * spread).all()


def test_a_known_ramp_has_exact_quantiles():
    ramp = np.arange(36, dtype=np.float32)[:, None]
    stats = signal_stats(ramp)
    for name, level in QUANTILES.items():
        assert stats[name][0] == pytest.approx(np.quantile(ramp, level))
    merged = merge_moments([moments(part) for part in np.array_split(ramp, 5)])
    for name in ("min", "max", "mean", "std"):
        assert merged[name][0] == pytest.approx(stats[name][0])
    constant = Sketch(np.array([3.0]), np.array([3.0]))
    constant.add(np.full((10, 1), 3.0))
    assert constant.quantiles([0.01, 0.99]).ravel().tolist() == pytest.approx([3.0, 3.0])
