"""RLDS datasets, written here byte by byte and read back."""

import json
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest

import robolearn
from robolearn.data.commands import info, verify
from robolearn.data.detect import detect
from robolearn.data.tfrecord import RecordFile, masked_crc
from robolearn.data.windows import build_windows
from robolearn.errors import DataError


def varint(value):
    result = bytearray()
    value &= 2**64 - 1
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values):
    """Return tf.train.Feature of a list of bytes or an array."""
    if isinstance(values, list):
        return field(1, b"".join(field(1, item) for item in values))
    values = np.asarray(values).ravel()
    if values.dtype.kind == "f":
        return field(2, field(1, values.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(value)) for value in values)))


def example(features):
    entries = (field(1, field(1, name.encode()) + field(2, feature(values))) for name, values in features.items())
    return field(1, b"".join(entries))


def tfrecord(records):
    framed = ((struct.pack("<Q", len(record)), record) for record in records)
    parts = (
        length + struct.pack("<I", masked_crc(length)) + r + struct.pack("<I", masked_crc(r)) for length, r in framed
    )
    return b"".join(parts)


def tensor(dtype, *shape, encoding="none"):
    return {"tensor": {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, "encoding": encoding}}


def features_json(observation, action=None):
    steps = {
        "action": action or tensor("float32", 7),
        "is_first": tensor("bool"),
        "is_terminal": tensor("bool"),
        "reward": tensor("float32"),
        "language_instruction": {"text": {}},
        "observation": {"featuresDict": {"features": observation}},
    }
    step = {"featuresDict": {"features": steps}}
    return {"featuresDict": {"features": {"steps": {"sequence": {"feature": step, "length": "-1"}}}}}


OBSERVATION = {
    "image": {"image": {"shape": {"dimensions": ["16", "24", "3"]}, "dtype": "uint8", "encodingFormat": "png"}},
    "state": tensor("float64", 8),
    "mask": tensor("uint8", 2, 3, encoding="zlib"),
    "counter": tensor("int64"),
}


def picture(episode, step):
    return np.full((16, 24, 3), (5, 10 * episode, step), np.uint8)


def episode_features(episode, length):
    step = np.arange(length)
    png = [cv2.imencode(".png", picture(episode, i)[..., ::-1])[1].tobytes() for i in step]
    return {
        "steps/action": np.stack([step + i / 8 for i in range(7)], 1).astype(np.float32),
        "steps/is_first": (step == 0).astype(int),
        "steps/is_terminal": (step == length - 1).astype(int),
        "steps/reward": (step == length - 1).astype(np.float32),
        "steps/language_instruction": [f"pick {episode}".encode()] * length,
        "steps/observation/image": png,
        "steps/observation/state": np.full((length, 8), episode, np.float32),
        "steps/observation/mask": [zlib.compress(np.full((2, 3), i, np.uint8).tobytes()) for i in step],
        "steps/observation/counter": step - 1000,
    }


def write(root, lengths=(3, 5, 4), shards=2, features=None, description=None):
    root.mkdir(parents=True)
    episodes = [example((features or episode_features)(i, n)) for i, n in enumerate(lengths)]
    split = np.array_split(np.arange(len(episodes)), shards)
    for number, part in enumerate(split):
        name = f"bridge-train.tfrecord-{number:05d}-of-{shards:05d}"
        (root / name).write_bytes(tfrecord([episodes[i] for i in part]))
    stated = {"name": "bridge", "splits": [{"name": "train", "shardLengths": [str(len(part)) for part in split]}]}
    (root / "dataset_info.json").write_text(json.dumps(stated))
    (root / "features.json").write_text(json.dumps(description or features_json(OBSERVATION)))
    return root


RATE = {"rate_hz": 5.0, "gripper": "positive_opens"}


def test_episodes(tmp_path):
    write(tmp_path / "bridge" / "1.0.0")
    assert detect(tmp_path / "bridge") == "rlds"
    source = robolearn.open_dataset(tmp_path / "bridge", options=RATE)
    assert source.lengths.tolist() == [3, 5, 4]
    assert set(source.spec.observations) == {"observation.images.image", "observation.state", "task"}
    got = source.read(1, [*source.keys, "task"], 1, 4)
    assert np.array_equal(got["action"][:, 0], [1, 2, 3])
    assert np.array_equal(got["observation.images.image"], [picture(1, step) for step in (1, 2, 3)])
    assert got["observation.state"].dtype == np.float32
    assert set(got["task"]) == {"pick 1"}
    assert got["next.done"].tolist() == [False] * 3
    assert verify({"path": str(tmp_path / "bridge"), "options": RATE})["problems"] == []
    assert info({"path": str(tmp_path / "bridge"), "options": RATE})["shortest"] == 3
    windows = build_windows(pickle.loads(pickle.dumps(source)), 2, 4)
    assert len(windows) == 12


def test_keys_by_name(tmp_path):
    root = write(tmp_path / "set")
    keys = {"action": ["action"], "observation.state": ["observation/counter", "observation/state"]}
    keys |= {"mask": ["observation/mask"], "observation.counter": ["observation/counter"]}
    source = robolearn.open_dataset(root, options={**RATE, "keys": keys, "task": "go"})
    got = source.read(2, ["observation.state", "mask", "observation.counter", "task"])
    assert got["observation.state"].shape == (4, 9)
    assert got["observation.state"][:, 0].tolist() == [-1000, -999, -998, -997]
    assert got["observation.counter"].tolist() == [-1000, -999, -998, -997]
    assert (got["mask"] == np.arange(4)[:, None, None]).all()
    assert got["task"].tolist() == ["go"] * 4
    with pytest.raises(DataError, match="did you mean 'observation/state'"):
        robolearn.open_dataset(root, options={**RATE, "keys": {**keys, "observation.state": ["observation/stat"]}})


def test_actions_in_parts_are_asked_for(tmp_path):
    parts = {"featuresDict": {"features": {"xyz": tensor("float32", 3), "grip": tensor("float32", 1)}}}

    def features(episode, length):
        given = episode_features(episode, length)
        action = given.pop("steps/action")
        return {**given, "steps/action/xyz": action[:, :3], "steps/action/grip": action[:, 6:]}

    root = write(tmp_path / "set", features=features, description=features_json(OBSERVATION, parts))
    with pytest.raises(DataError, match="action/xyz, action/grip"):
        robolearn.open_dataset(root, options=RATE)
    source = robolearn.open_dataset(root, options={**RATE, "keys": {"action": ["action/xyz", "action/grip"]}})
    assert source.spec.action.dim == 4
    assert source.read(0, ["action"])["action"][2].tolist() == [2, 2.125, 2.25, 2.75]


def test_picture_sizes_may_be_left_open(tmp_path):
    description = features_json({**OBSERVATION, "image": {"image": {"shape": {"dimensions": ["-1", "-1", "3"]}}}})
    source = robolearn.open_dataset(write(tmp_path / "set", description=description), options=RATE)
    assert source.spec.observations["observation.images.image"].shape == (16, 24, 3)


def test_the_rate_and_the_split_are_asked_for(tmp_path):
    root = write(tmp_path / "set")
    with pytest.raises(DataError, match="does not say its rate"):
        robolearn.open_dataset(root)
    with pytest.raises(DataError, match="known: train"):
        robolearn.open_dataset(root, options={**RATE, "split": "test"})


def test_unpacked_lists_are_read(tmp_path):
    floats = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2.0))
    integers = b"".join(b"\x08" + varint(value) for value in (3, -4))
    entries = {"a": field(2, floats), "b": field(3, integers)}
    body = b"".join(field(1, field(1, name.encode()) + field(2, content)) for name, content in entries.items())
    (tmp_path / "x").write_bytes(tfrecord([field(1, body)]))
    read = RecordFile(tmp_path / "x").read(0)
    assert read.numbers("a").tolist() == [1.5, -2.0]
    assert read.numbers("b").tolist() == [3, -4]


def damages(root):
    """Yield ways to damage a dataset, by name; each is a function of its folder."""
    shard = "bridge-train.tfrecord-00000-of-00002"
    content = (root / shard).read_bytes()
    yield "cut", lambda r: (r / shard).write_bytes(content[:-9])
    yield "empty", lambda r: (r / shard).write_bytes(b"")
    yield "length", lambda r: (r / shard).write_bytes(struct.pack("<Q", 2**40) + content[8:])
    huge = struct.pack("<Q", 2**42)
    yield "declared", lambda r: (r / shard).write_bytes(huge + struct.pack("<I", masked_crc(huge)) + content[12:])
    yield "missing shard", lambda r: (r / shard).unlink()
    yield "no info", lambda r: (r / "dataset_info.json").unlink()
    yield "no steps", lambda r: (r / "features.json").write_text("{}")
    yield "list", lambda r: (r / "features.json").write_text("[]")
    deep = "[" * 65536
    yield "deep", lambda r: (r / "features.json").write_text(deep)
    for name, shape in (("shape", ["-7"]), ("large", ["1000000", "1000000"]), ("word", ["x"])):
        bad = features_json({**OBSERVATION, "state": {"tensor": {"shape": {"dimensions": shape}, "dtype": "float32"}}})
        yield name, lambda r, bad=bad: (r / "features.json").write_text(json.dumps(bad))
    other = features_json(OBSERVATION, tensor("float32", 5))
    yield "other action", lambda r: (r / "features.json").write_text(json.dumps(other))
    kind = features_json({**OBSERVATION, "state": tensor("complex64", 8)})
    yield "type", lambda r: (r / "features.json").write_text(json.dumps(kind))
    garbage = tfrecord([b"\xff" * 40] * 2)
    yield "no example", lambda r: (r / shard).write_bytes(garbage)


def test_damaged_datasets_are_refused(tmp_path):
    names = [name for name, _ in damages(write(tmp_path / "good"))]
    refused = {}
    for number, name in enumerate(names):
        root = write(tmp_path / f"bad{number}")
        dict(damages(root))[name](root)
        try:
            robolearn.open_dataset(root, kind="rlds", options=RATE)
        except DataError as error:
            refused[name] = f"bad{number}" in str(error)
    assert refused == dict.fromkeys(names, True)


def test_a_flipped_byte_is_named(tmp_path):
    root = write(tmp_path / "set")
    shard = root / "bridge-train.tfrecord-00000-of-00002"
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(bytes(content))
    problems = verify({"path": str(root), "options": RATE})["problems"]
    assert len(problems) == 1
    assert "episode 1" in problems[0]
    assert "record 1 is damaged" in problems[0]
