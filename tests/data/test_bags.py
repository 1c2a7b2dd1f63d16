"""MCAP and rosbag2: what robots record becomes episodes, whichever library wrote it."""

import shutil
import sqlite3
import struct

import numpy as np
import pytest

import robolearn
from robolearn.data.bags import BagReader
from robolearn.data.cdr import decode_message, encode_message, parse_definitions, standard_definitions
from robolearn.data.commands import verify
from robolearn.data.detect import detect
from robolearn.data.exports import write_mcap
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.synthetic import camera_spec, record
from robolearn.errors import DataError

JOINTS = ("one", "two", "three")


def rosbag(path, storage, messages):
    """Write a rosbag2 folder with the library rosbags: (topic, type, time [s], fields) each."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage]) as bag:
        channels = {}
        for topic, kind, time_s, fields in messages:
            if topic not in channels:
                channels[topic] = bag.add_connection(topic, kind, typestore=store)
            data = encode_message(kind, fields, standard_definitions())
            bag.write(channels[topic], round(time_s * 1e9), data)


def header(time_s):
    nanoseconds = round(time_s * 1e9)
    return {"stamp": {"sec": nanoseconds // 10**9, "nanosec": nanoseconds % 10**9}, "frame_id": "base"}


def robot_messages():
    """Joint states at 100 Hz whose value is their time, pictures at 20 Hz, commands at 50 Hz."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    for tick in range(200):
        time_s = 5 + tick / 100
        state = {"header": header(time_s), "name": list(JOINTS), "position": time_s + np.arange(3.0)}
        yield "/joint_states", "sensor_msgs/msg/JointState", time_s + 0.002, state
        if tick % 5 == 0:
            pixels[:] = tick
            image = {"header": header(time_s), "height": 4, "width": 6, "encoding": "bgr8", "step": 18}
            image["data"] = pixels.tobytes()
            yield "/wrist/image_raw", "sensor_msgs/msg/Image", time_s + 0.003, image
        if tick % 2 == 0:
            point = {"positions": np.array([time_s, -time_s, 0.0])}
            command = {"header": header(time_s), "joint_names": list(JOINTS), "points": [point]}
            yield "/arm/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", time_s + 0.001, command


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_rosbags_are_resampled_by_stamp(tmp_path, storage):
    rosbag(tmp_path / "bag", storage, robot_messages())
    assert detect(tmp_path / "bag") == "rosbag"
    options = {
        "rate_hz": 10.0,
        "action_kind": "joint_position",
        "task": "wave",
        "keys": {
            "observation.state": {"topic": "/joint_states", "joints": ["three", "one"], "unit": "rad"},
            "observation.images.wrist": {"topic": "/wrist/image_raw"},
            "action": {"topic": "/arm/joint_trajectory", "joints": ["one"]},
        },
    }
    source = robolearn.open_dataset(tmp_path / "bag", options=options)
    assert source.lengths.tolist() == [20]
    assert source.spec.observations["observation.state"].names == ("three", "one")
    got = source.read(0, ["observation.state", "observation.images.wrist", "action", "task"])
    times = 5 + np.arange(20) / 10
    assert np.allclose(got["observation.state"], np.stack([times + 2, times], 1))
    assert np.allclose(got["action"][:, 0], times)
    assert (got["observation.images.wrist"][:, 0, 0, 0] == np.arange(0, 200, 10)).all()
    assert set(got["task"]) == {"wave"}
    part = source.read(0, ["observation.images.wrist"], 3, 5)["observation.images.wrist"]
    assert np.array_equal(part, got["observation.images.wrist"][3:5])


def test_picks_between_ticks(tmp_path):
    rosbag(tmp_path / "bag", "MCAP", robot_messages())
    keys = {pick: {"topic": "/arm/joint_trajectory", "pick": pick} for pick in ("last", "next", "linear")}
    source = robolearn.open_dataset(
        tmp_path / "bag", options={"rate_hz": 32.0, "keys": {**keys, "action": {"topic": "/joint_states"}}}
    )
    got = source.read(0, list(keys))
    times = 5 + np.arange(len(got["last"])) / 32
    assert (got["last"][:, 0] <= times + 1e-4).all()
    assert (got["next"][:, 0] >= times - 1e-4).all()
    assert np.allclose(got["linear"][:, 0], times, atol=1e-5)


def test_the_obvious_map_is_found_and_the_rate_is_asked_for(tmp_path):
    rosbag(tmp_path / "bag", "SQLITE3", robot_messages())
    with pytest.raises(DataError, match="no rate of its own"):
        robolearn.open_dataset(tmp_path / "bag")
    source = robolearn.open_dataset(tmp_path / "bag", options={"rate_hz": 20.0})
    assert set(source.spec.observations) == {"observation.state", "observation.images.wrist"}
    assert source.spec.action.dim == 3


def test_gaps_and_wrong_names_are_refused(tmp_path):
    rosbag(tmp_path / "bag", "MCAP", [item for item in robot_messages() if not 5.5 < item[2] < 6.2])
    source = robolearn.open_dataset(tmp_path / "bag", options={"rate_hz": 10.0, "max_age_s": 0.2})
    with pytest.raises(DataError, match=r"/joint_states has no message near frame 7"):
        source.read(0, ["observation.state"])
    keys = {"action": {"topic": "/joint_states", "joints": ["ones"]}}
    with pytest.raises(DataError, match="did you mean 'one'"):
        robolearn.open_dataset(tmp_path / "bag", options={"rate_hz": 10.0, "keys": keys})
    keys = {"action": {"topic": "/joint_state"}}
    with pytest.raises(DataError, match="did you mean '/joint_states'"):
        robolearn.open_dataset(tmp_path / "bag", options={"rate_hz": 10.0, "keys": keys})


def test_a_folder_of_bags_is_a_dataset(tmp_path):
    for number in (0, 1, 10, 2):
        moved = ((*item[:2], item[2] + number, item[3]) for item in robot_messages())
        rosbag(tmp_path / f"take_{number}", "MCAP" if number else "SQLITE3", moved)
    source = robolearn.open_dataset(tmp_path, options={"rate_hz": 10.0, "stamp": "log"})
    assert source.lengths.tolist() == [20] * 4


def test_mcap_round_trip_and_other_readers(tmp_path):
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    original = LeRobotReader(record(tmp_path / "v3", [4, 6], camera_spec(), WriterOptions(images="image")))
    write_mcap(original, tmp_path / "mcap")
    back = robolearn.open_dataset(tmp_path / "mcap")
    assert back.spec == original.spec
    assert back.lengths.tolist() == [4, 6]
    assert back.metadata(1) == {"seed": 1}
    assert verify({"path": str(tmp_path / "mcap")})["problems"] == []
    for episode in range(2):
        keys = ["observation.state", "observation.images.top", "action", "task", "timestamp"]
        one, two = original.read(episode, keys), back.read(episode, keys)
        for key in keys:
            assert one[key].dtype == two[key].dtype or key == "task"
            assert np.array_equal(one[key], two[key]), key
    with (tmp_path / "mcap" / "episode_000001.mcap").open("rb") as file:
        theirs = make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages(topics=["/action"])
        actions = [tuple(message.data) for *_, message in theirs]
    assert actions == [(1.0, float(step)) for step in range(6)]


def test_messages_equal_the_libraries(tmp_path):
    from mcap_ros2._dynamic import generate_dynamic
    from rosbags.typesys import Stores, get_typestore

    store, standard = get_typestore(Stores.ROS2_JAZZY), standard_definitions()
    fields = {"header": header(1.25), "name": ["a", "bcd"], "position": np.array([1.0, 2.5])}
    kind = "sensor_msgs/msg/JointState"
    data = encode_message(kind, fields, standard)
    theirs = store.deserialize_cdr(data, kind)
    assert theirs.name == ["a", "bcd"]
    assert theirs.position.tolist() == [1.0, 2.5]
    text = store.generate_msgdef(kind, ros_version=2)[0]
    again = generate_dynamic(kind, text)[kind](data)
    assert again.header.stamp.nanosec == 250_000_000
    parsed = parse_definitions(kind, text, "here")
    ours = decode_message(kind, data, parsed, "here")
    assert ours["header"]["frame_id"] == "base"
    assert ours["position"].tolist() == [1.0, 2.5]
    every = {name: fields for name, fields in standard.items() if "/msg/" in name}
    for name in every:
        whole = parse_definitions(name, store.generate_msgdef(name, ros_version=2)[0], name)
        assert not whole[name] or whole[name] == standard[name], name


def damaged(path):
    """Yield ways to damage an MCAP file, by name."""
    content = path.read_bytes()
    yield "empty", b""
    yield "magic", b"\x89MCAP1\r\n" + content[8:]
    yield "unknown record", content[:8] + b"\0" + content[9:]
    yield "huge record", content[:8] + struct.pack("<BQ", 5, 2**33) + b"x" * 64
    chunk = content.index(b"zstd") - 4 - 28 - 9
    yield "cut before its topics", content[: chunk + 20]
    yield "huge chunk", content[: chunk + 25] + struct.pack("<Q", 2**42) + content[chunk + 33 :]
    yield "bomb", content[: chunk + 25] + struct.pack("<Q", 2**29) + content[chunk + 33 :]
    yield "flipped byte", content[: chunk + 200] + bytes([content[chunk + 200] ^ 1]) + content[chunk + 201 :]
    yield "spec", content.replace(b'{"observations"', b'["observations"', 1)


def test_damaged_recordings_are_refused(tmp_path):
    write_mcap(LeRobotReader(record(tmp_path / "v3", [30])), tmp_path / "good")
    path, refused = tmp_path / "bad.mcap", {}
    for name, content in damaged(tmp_path / "good" / "episode_000000.mcap"):
        path.write_bytes(content)
        refused[name] = False
        try:
            BagReader(path)
        except DataError as error:
            refused[name] = "bad.mcap" in str(error)
    assert refused == dict.fromkeys(refused, True)


def test_an_unfinished_recording_keeps_its_whole_chunks(tmp_path):
    write_mcap(LeRobotReader(record(tmp_path / "v3", [30])), tmp_path / "good")
    content = (tmp_path / "good" / "episode_000000.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(content[: content.rindex(b"\x0f\x04\0\0\0\0\0\0\0")])
    assert BagReader(tmp_path / "cut.mcap").lengths.tolist() == [30]


def test_damaged_sqlite_is_refused(tmp_path):
    rosbag(tmp_path / "bag", "SQLITE3", robot_messages())
    file = tmp_path / "bag" / "bag.db3"
    content = file.read_bytes()
    options = {"rate_hz": 10.0}
    for bad in (b"", content[:5000], b"x" * 4096, content[:100] + b"\xff" * 3000 + content[3100:]):
        file.write_bytes(bad)
        with pytest.raises(DataError, match=r"bag\.db3"):
            robolearn.open_dataset(tmp_path / "bag", options=options)
    shutil.rmtree(tmp_path / "bag")
    (tmp_path / "bag").mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE topics (id, name, type, serialization_format)")
        connection.execute("CREATE TABLE messages (id, topic_id, timestamp, data)")
        connection.execute("INSERT INTO topics VALUES (1, '/joint_states', 'sensor_msgs/msg/JointState', 'cdr')")
        connection.execute("INSERT INTO messages VALUES (1, 1, 5, 'text')")
    with pytest.raises(DataError, match="the message 1 is damaged"):
        robolearn.open_dataset(file, options=options)


@pytest.mark.parametrize(
    ("kind", "data", "problem"),
    [
        ("std_msgs/msg/String", b"\0\1\0\0" + struct.pack("<I", 2**32 - 1), "is cut"),
        ("std_msgs/msg/Float64MultiArray", b"\0\1\0\0" + b"\xff" * 16, "is cut"),
        ("sensor_msgs/msg/JointState", b"\0\1\0\0", "is cut"),
        ("std_msgs/msg/String", b"\0\3\0\0", "no plain CDR"),
        ("std_msgs/msg/String", b"", "no plain CDR"),
        ("my_msgs/msg/Own", b"\0\1\0\0aaaa", "unknown message type"),
    ],
)
def test_malformed_messages(kind, data, problem):
    with pytest.raises(DataError, match=problem):
        decode_message(kind, data, standard_definitions(), "topic")


def test_definitions_cannot_nest_without_end():
    endless = parse_definitions("a/msg/A", "A next", "here")
    with pytest.raises(DataError, match="nested too deeply"):
        decode_message("a/msg/A", b"\0\1\0\0" + b"\0" * 99, endless, "here")
    with pytest.raises(DataError, match="not understood"):
        parse_definitions("a/msg/A", "__import__('os').system('x')", "here")
