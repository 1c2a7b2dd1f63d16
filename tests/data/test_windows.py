"""Windows against a slow, obvious reference."""

import pickle

import numpy as np
import pytest

from robolearn.contracts import WindowSource
from robolearn.data.windows import build_windows
from robolearn.errors import DataError, SpecError
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec


class Memory:
    """Episodes held in lists."""

    def __init__(self, lengths, bad=None):
        self.spec = Spec(
            {
                "observation.state": Feature("signal", (2,)),
                "observation.images.top": Feature("image", (4, 4, 3), "uint8"),
                "task": Feature("text", dtype="str"),
            },
            ActionSpec(3),
            rate_hz=10.0,
        )
        self.lengths = np.array(lengths)
        self.bad = bad

    def read(self, episode, keys, start=0, stop=None):
        length = int(self.lengths[episode])
        step = np.arange(length)
        columns = {
            "observation.state": np.stack([np.full(length, episode), step], 1).astype(np.float32),
            "observation.images.top": np.full((length, 4, 4, 3), step[:, None, None, None] + 10 * episode, np.uint8),
            "action": np.stack([step, step + 0.5, np.full(length, episode)], 1).astype(np.float64),
            "task": np.array([f"task {episode % 2}"] * length),
        }
        if self.bad is not None and self.bad[0] == episode:
            columns["action"][self.bad[1], 1] = np.nan
        return {key: columns[key][start:stop] for key in keys}


def reference(source, history, chunk, before=0):
    for episode, length in enumerate(source.lengths):
        values = source.read(episode, ["observation.state", "observation.images.top", "action", "task"])
        for step in range(length):
            past = [max(0, step - back) for back in range(history - 1, -1, -1)]
            wanted = [step + k - before for k in range(chunk)]
            ahead = [min(length - 1, max(0, place)) for place in wanted]
            yield {
                "observation.state": values["observation.state"][past],
                "observation.images.top": values["observation.images.top"][past],
                "action": values["action"][ahead],
                "action_is_pad": np.array([not 0 <= place < length for place in wanted]),
                "task": values["task"][step],
            }


@pytest.mark.parametrize(
    ("history", "chunk", "past"), [(1, 1, 0), (2, 16, 0), (3, 4, 0), (20, 2, 0), (2, 16, 1), (3, 9, 8)]
)
def test_windows_equal_the_reference(history, chunk, past):
    source = Memory([1, 5, 17, 2])
    windows = build_windows(source, history, chunk, past=past)
    assert isinstance(windows, WindowSource)
    assert len(windows) == 25
    assert (windows.spec.history, windows.spec.chunk) == (history, chunk)
    order = np.random.default_rng(0).permutation(25)
    batch = windows.gather(order)
    expected = list(reference(source, history, chunk, past))
    for row, index in enumerate(order):
        for key, value in expected[index].items():
            got = batch[key][row]
            assert got == value if key == "task" else np.array_equal(got.numpy(), value), key
    assert batch["action"].dtype.is_floating_point
    assert batch["observation.images.top"].dtype.itemsize == 1


@pytest.mark.parametrize("sizes", [(0, 1, 0), (1, 0, 0), (1, 4, 4), (1, 4, -1)])
def test_impossible_sizes_are_refused(sizes):
    history, chunk, past = sizes
    with pytest.raises(DataError, match="at least one frame of history"):
        build_windows(Memory([3]), history, chunk, past=past)


def test_some_episodes_and_keys():
    windows = build_windows(Memory([3, 5, 4]), 2, 3, ["observation.state"], episodes=[2, 0])
    assert len(windows) == 7
    assert windows.episode_of(np.arange(7)).tolist() == [2, 2, 2, 2, 0, 0, 0]
    assert windows.frame_of(np.arange(7)).tolist() == [0, 1, 2, 3, 0, 1, 2]
    batch = windows.gather(np.array([4]))
    assert set(batch) == {"observation.state", "action", "action_is_pad"}
    assert (batch["observation.state"][0, :, 0] == 0).all()


def test_batches_are_fresh_memory():
    windows = build_windows(Memory([5]), 1, 2)
    first = windows.gather(np.array([2]))
    first["action"] += 100
    assert windows.gather(np.array([2]))["action"].max() < 50


def test_a_value_that_is_not_finite_names_episode_and_frame():
    with pytest.raises(DataError, match="episode 1, frame 4"):
        build_windows(Memory([3, 6], bad=(1, 4)), 2, 4)
    with pytest.raises(DataError, match="episode 1, frame 4"):
        build_windows(Memory([3, 6], bad=(1, 4)), 2, 4, episodes=[1])


def test_out_of_range_and_unknown_keys_are_refused():
    windows = build_windows(Memory([3]), 1, 1)
    with pytest.raises(DataError, match="out of range"):
        windows.gather(np.array([3]))
    with pytest.raises(DataError, match="out of range"):
        windows.gather(np.array([-1]))
    with pytest.raises(SpecError, match=r"did you mean 'observation\.state'"):
        build_windows(Memory([3]), 1, 1, ["observation.stat"])


def test_windows_travel_to_workers():
    windows = pickle.loads(pickle.dumps(build_windows(Memory([3, 4]), 2, 2)))
    assert windows.gather(np.array([6]))["task"] == ["task 1"]
    assert resolve("loader", "windows") is build_windows
