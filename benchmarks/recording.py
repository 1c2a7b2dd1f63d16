"""What recording costs: the commit of a 500-frame state episode in its thread, and `add_frame` on the control thread.

Rows: commit [p99 ms], add_frame [p99 ms], stall [longest add_frame during commits, ms]. The peer is
LeRobotDataset's save_episode and add_frame, in turns with ours.
"""

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from robolearn.benchmark import Row, finish, parse_options
from robolearn.data.recorder import Recorder
from robolearn.spec import ActionSpec, Feature, Spec

FRAMES = 500
SPEC = Spec({"observation.state": Feature("signal", (14,))}, ActionSpec(14), rate_hz=50.0)


def episode(seed: int) -> list[dict]:
    """Return the frames of one episode."""
    values = np.random.default_rng(seed).random((FRAMES, 2, 14), np.float32)
    return [{"observation.state": state, "action": action} for state, action in values]


class Ours:
    """Times one episode of a Recorder: its frames, then its commit."""

    def __init__(self, folder: Path):
        self.recorder = Recorder(folder / "ours", SPEC)

    def run(self, frames: list[dict], kept: dict[str, list[float]]) -> None:
        for frame in frames:
            start_s = time.perf_counter()
            self.recorder.add_frame(frame)
            kept["add_frame"].append(time.perf_counter() - start_s)
        taken = self.recorder.writer.take()
        start_s = time.perf_counter()
        self.recorder.writer.commit(taken)
        kept["commit"].append(time.perf_counter() - start_s)


class Peer:
    """The same with LeRobotDataset."""

    def __init__(self, folder: Path):
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        vector = {"dtype": "float32", "shape": (14,), "names": None}
        features = {"observation.state": vector, "action": dict(vector)}
        self.dataset = LeRobotDataset.create("robolearn/bench", fps=50, root=folder / "peer", features=features)

    def run(self, frames: list[dict], kept: dict[str, list[float]]) -> None:
        for frame in frames:
            start_s = time.perf_counter()
            self.dataset.add_frame({**frame, "task": "bench"})
            kept["add_frame"].append(time.perf_counter() - start_s)
        start_s = time.perf_counter()
        self.dataset.save_episode()
        kept["commit"].append(time.perf_counter() - start_s)


def stalls_s(folder: Path, episodes: int) -> float:
    """Return the longest `add_frame` while the episode before is being committed."""
    longest = 0.0
    with Recorder(folder / "stall", SPEC) as recorder:
        for seed in range(episodes):
            for frame in episode(seed):
                start_s = time.perf_counter()
                recorder.add_frame(frame)
                longest = max(longest, time.perf_counter() - start_s)
            recorder.commit()
    return longest


def main() -> None:
    options = parse_options(__doc__ or "")
    count = 20 if options.quick else 200
    kept: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        sides = {"ours": Ours(Path(name))} | ({"peer": Peer(Path(name))} if find_spec("lerobot") else {})
        for seed in range(count + 2):
            for side, work in sides.items():
                times = kept.setdefault(side, {"add_frame": [], "commit": []})
                work.run(episode(seed), times if seed >= 2 else {"add_frame": [], "commit": []})
        stall_ms = 1e3 * stalls_s(Path(name), count // 4)
    rows = []
    for row in ("commit", "add_frame"):
        ours, peer = (
            1e3 * float(np.percentile(kept[side][row], 99)) if side in kept else None for side in ("ours", "peer")
        )
        rows.append(Row(row, "ms", ours or 0.0, peer, peer / ours if peer and ours else None, f"p99, {count} episodes"))
    rows.append(Row("stall", "ms", stall_ms, None, None, "longest add_frame beside commits"))
    finish(rows, options)


if __name__ == "__main__":
    main()
