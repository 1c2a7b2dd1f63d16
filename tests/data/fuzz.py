"""Damaged bytes: `fuzz.py FORMAT COUNT SEED FOLDER` writes a small dataset and reads it COUNT times, damaged.

Whatever the bytes are, a dataset opens or is refused by an error of ours, soon, with little memory. The
result is one JSON line; the seed and the number of a failure make it again.
"""

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from robolearn.data.detect import open_auto
from robolearn.data.exports import write_mcap, write_robomimic, write_zarr
from robolearn.data.lerobot_v2 import write_v2
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.synthetic import camera_spec, record
from robolearn.data.tfrecord import masked_crc
from robolearn.data.verify import verify_source
from robolearn.data.video import VideoOptions
from robolearn.errors import RobolearnError

MEMORY_BYTES = 3 * 2**30  # beyond what is in use before the first input
LIMIT_S = 20
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.", "pickle.", "urllib.")
NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"\\u0000"',
    b"9" * 30,
    b"../../x",
    b"true",
    b"[" * 2000,
)


def v3(root: Path) -> None:
    record(root, [3, 4], camera_spec(16), WriterOptions(video=VideoOptions("h264")))


def pictures(root: Path) -> LeRobotReader:
    return LeRobotReader(record(root.with_name("pictures"), [3, 4], camera_spec(16), WriterOptions(images="image")))


def aloha(root: Path) -> None:
    root.mkdir()
    with h5py.File(root / "episode_0.hdf5", "w") as file:
        file["action"] = np.zeros((4, 14), np.float32)
        file["observations/qpos"] = np.zeros((4, 14), np.float32)


def sqlite_bag(root: Path) -> None:
    from robolearn.data.cdr import encode_message, standard_definitions

    root.mkdir()
    kind = "sensor_msgs/msg/JointState"
    with sqlite3.connect(root / "bag.db3") as connection:
        connection.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        connection.execute(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
        )
        connection.execute("INSERT INTO topics VALUES (1, '/joint_states', ?, 'cdr')", (kind,))
        for step in range(20):
            fields = {"name": ["a", "b"], "position": np.array([step, 2.0])}
            row = (step, step * 10**8, encode_message(kind, fields, standard_definitions()))
            connection.execute("INSERT INTO messages VALUES (?, 1, ?, ?)", row)


def rlds(root: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content

    root.mkdir()
    step = {
        "action": {"tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float32"}},
        "language_instruction": {"text": {}},
    }
    described = {
        "featuresDict": {"features": {"steps": {"sequence": {"feature": {"featuresDict": {"features": step}}}}}}
    }
    (root / "features.json").write_text(json.dumps(described))
    (root / "dataset_info.json").write_text('{"splits": [{"name": "train", "shardLengths": ["2"]}]}')
    values = {
        b"steps/action": field(2, field(1, np.arange(8, dtype="<f4").tobytes())),
        b"steps/language_instruction": field(1, field(1, b"pick") * 4),
    }
    entries = b"".join(field(1, field(1, name) + field(2, content)) for name, content in values.items())
    body = field(1, entries)
    length = struct.pack("<Q", len(body))
    framed = length + struct.pack("<I", masked_crc(length)) + body + struct.pack("<I", masked_crc(body))
    (root / "set-train.tfrecord-00000-of-00001").write_bytes(framed * 2)


RATE = {"rate_hz": 10.0}
MAPPED = {"rate_hz": 10.0, "keys": {"action": {"topic": "/joint_states"}}}
# format → (writes a dataset, options of its reader)
FORMATS: dict[str, tuple[Callable[[Path], object], dict]] = {
    "lerobot": (v3, {}),
    "lerobot_v2": (lambda root: write_v2(pictures(root), root), {}),
    "robomimic": (lambda root: write_robomimic(pictures(root), root.with_suffix(".hdf5")), {}),
    "aloha": (aloha, {}),
    "zarr": (lambda root: write_zarr(pictures(root), root), RATE),
    "zarr_zip": (lambda root: write_zarr(pictures(root), root.with_suffix(".zip")), RATE),
    "mcap": (lambda root: write_mcap(pictures(root), root), {}),
    "sqlite": (sqlite_bag, MAPPED),
    "rlds": (rlds, RATE),
}


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Return `content` with one to four damages: bits, numbers, texts, cuts, repeats, swaps."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data) + 1)
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(NUMBERS) & (2 ** (8 * size) - 1)
            data[place : place + size] = number.to_bytes(size, draw.choice(("little", "big")))
        elif kind == 2:
            text = draw.choice(TEXTS)
            data[place : place + draw.choice((0, 1, len(text)))] = text
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + draw.randint(1, 64)]
        elif kind == 5:
            data[place:place] = data[place : place + draw.randint(1, 64)]
        else:
            data[place : place + 16] = draw.randbytes(16)
    return bytes(data)


def run(kind: str, count: int, seed: int, folder: Path) -> dict:
    """Read a dataset of `kind` with `count` different damages."""
    write, options = FORMATS[kind]
    good, bad = folder / "good", folder / "bad"
    write(good)
    good = next(path for path in (good, good.with_suffix(".hdf5"), good.with_suffix(".zip")) if path.exists())
    bad = bad.with_suffix(good.suffix)
    files = [good] if good.is_file() else sorted(path for path in good.rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in files]
    if attempt(good, options):  # imports happen here, before memory is measured
        raise SystemExit(f"the undamaged dataset is refused: {verify_source(open_auto(good, options))}")
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, late)
    failures, refused, slowest_s = [], 0, 0.0
    sys.addaudithook(lambda event, arguments: watch(event, arguments, folder))
    if good.is_dir():
        shutil.copytree(good, bad)
    for number in range(count):
        draw = random.Random(seed * 1_000_003 + number)
        which = draw.randrange(len(files))
        target = bad / files[which].relative_to(good) if good.is_dir() else bad
        target.write_bytes(mutated(contents[which], draw))
        started_s = time.perf_counter()
        signal.alarm(LIMIT_S)
        try:
            refused += attempt(bad, options)
        except BaseException as error:  # noqa: BLE001 - every other end is the finding
            failures.append({"number": number, "file": files[which].name, "error": repr(error)[:200]})
            failures[-1]["where"] = traceback.format_tb(error.__traceback__)[-1][-200:]
        signal.alarm(0)
        slowest_s = max(slowest_s, time.perf_counter() - started_s)
        target.write_bytes(contents[which])
    return {"runs": count, "refused": refused, "slowest_s": round(slowest_s, 3), "failures": failures}


def attempt(path: Path, options: dict) -> bool:
    """Open and read everything; returns whether the dataset was refused."""
    try:
        return bool(verify_source(open_auto(path, options)))
    except RobolearnError:
        return True


def watch(event: str, arguments: tuple, folder: Path) -> None:
    """Refuse whatever reading a dataset never does: processes, sockets, pickles, writing elsewhere."""
    writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    outside = writes and not str(arguments[0]).startswith(str(folder))
    if event.startswith(FORBIDDEN) or outside:
        raise AssertionError(f"{event} {arguments}")


def late(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT_S} s")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True  # a module that is imported late writes nothing
    sys.stdout.write(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
