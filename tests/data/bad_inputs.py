"""Damaged and hostile datasets, opened under an audit hook; prints one JSON line with every outcome.

A variant is good when it is refused with an error of ours (or reported by `verify`) that names a file
inside the dataset, within a second, with nothing started, fetched or touched outside the dataset.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolearn.data.commands import verify
from robolearn.data.detect import open_auto
from robolearn.data.exports import write_robomimic, write_zarr
from robolearn.data.lerobot_v2 import write_v2
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.synthetic import camera_spec, record
from robolearn.data.video import VideoOptions, encode
from robolearn.data.windows import build_windows
from robolearn.errors import RobolearnError

KEY = "observation.images.top"
INFO, DATA, EPISODES = "meta/info.json", "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{KEY}/chunk-000/file-000.mp4"
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.", "pickle.", "urllib.")
Variant = tuple[str, str, Callable[[Path], object]]  # name, base dataset, damage


class Oracle:
    """Fails on processes, sockets, unpickling and files outside the dataset."""

    def __init__(self):
        self.root: Path | None = None
        self.violations: list[str] = []
        allowed = [
            sys.prefix,
            sys.base_prefix,
            str(Path(__file__).resolve().parents[2]),
            "/proc",
            "/usr",
            "/etc/localtime",
        ]
        self.allowed = tuple(os.path.realpath(path) for path in allowed)
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if self.root is None:
            return
        if event.startswith(FORBIDDEN):
            self.violations.append(event)
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            mode, writes = arguments[1] or "", isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
            inside = path.startswith(str(self.root))
            if not inside and (writes or not path.startswith(self.allowed)):
                self.violations.append(f"open {path} {mode}")


def edit_json(path: str, change: Callable[[dict], object]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        data = json.loads((root / path).read_text())
        change(data)
        (root / path).write_text(json.dumps(data))

    return damage


def edit_table(path: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        pq.write_table(change(pq.read_table(root / path)), root / path)

    return damage


def edit_bytes(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes(change((root / path).read_bytes()))


def put(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    """Return a change of one value of one column (of the first entry of a vector)."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(column).to_pylist()
        if isinstance(values[row], list):
            values[row] = [value, *values[row][1:]]
        else:
            values[row] = value
        number = table.schema.get_field_index(column)
        return table.set_column(number, table.schema.field(number), pa.array(values, table.schema.field(number).type))

    return change


def json_variants() -> Iterator[Variant]:
    for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        yield f"01 cut at {share}", "v3", edit_bytes(INFO, lambda b, share=share: b[: int(len(b) * share)])
    deep = {
        "list": b"[" * 65536,
        "object": b'{"a":' * 65536,
        "megabyte": b"[" * 2**20,
        "closed": b"[" * 9999 + b"]" * 9999,
    }
    for name, content in deep.items():
        yield f"02 {name}", "v3", lambda root, content=content: (root / INFO).write_bytes(content)
        yield f"02 v2 {name}", "v2", lambda root, content=content: (root / "meta/episodes.jsonl").write_bytes(content)
    yield "02 zarray", "zarr", lambda root: (root / "data/action/.zarray").write_bytes(b"[" * 65536)
    values = (0, -30, float("nan"), float("inf"), "30", None, 1e9, True)
    for value in values:
        yield f"08 fps {value}", "v3", edit_json(INFO, lambda d, value=value: d.update(fps=value))
    for value in ("v9.0", "v1.0", "", None, 3, "v3.1", "3.0"):
        yield f"10 version {value}", "v3", edit_json(INFO, lambda d, value=value: d.update(codebase_version=value))
    outside = (
        "../x",
        "/etc/passwd",
        "data/../../x",
        "{0.__class__}",
        "{chunk_index.__class__}",
        "a\0b",
        "{nothing}",
        "{",
    )
    for value in outside:
        yield f"11 template {value!r}", "v3", edit_json(INFO, lambda d, value=value: d.update(data_path=value))

    def link(root: Path) -> None:
        (root / DATA).unlink()
        (root / DATA).symlink_to("/etc/hostname")

    yield "11 link", "v3", link


def count_variants() -> Iterator[Variant]:
    changes = {
        "frames + 1": {"total_frames": 28},
        "frames - 1": {"total_frames": 26},
        "frames 0": {"total_frames": 0},
        "episodes + 1": {"total_episodes": 4},
        "episodes - 1": {"total_episodes": 2},
        "episodes 0": {"total_episodes": 0},
        "huge": {"total_frames": 2**39, "total_episodes": 2**39},
        "negative": {"total_episodes": -1},
    }
    for name, change in changes.items():
        yield f"07 {name}", "v3", edit_json(INFO, lambda d, change=change: d.update(change))
    for dtype, shape in (("float64", [3]), ("int64", [3]), ("float32", [4]), ("float32", [2]), ("float32", [3, 2])):
        change = {"dtype": dtype, "shape": shape, "names": None}
        yield (
            f"09 {dtype} {shape}",
            "foreign",
            edit_json(INFO, lambda d, change=change: d["features"].update({"observation.state": change})),
        )
    for feature in ({"dtype": "object", "shape": [3]}, {"dtype": "float32"}, {"shape": [3]}, [], "float32"):
        yield (
            f"09 {feature}",
            "foreign",
            edit_json(INFO, lambda d, feature=feature: d["features"].update({"observation.state": feature})),
        )
    huge = ([2**40], [2**20, 2**20], [4 * 10**12], [65536, 65536, 3], [-1], [1] * 9, [2**62, 2**62])
    for shape in huge:
        yield (
            f"17 info {shape}",
            "foreign",
            edit_json(INFO, lambda d, shape=shape: d["features"]["observation.state"].update(shape=shape)),
        )


def table_variants() -> Iterator[Variant]:
    for cut in (1, 4, 8, 100, 1000, None, 0):
        change = (lambda b: b"") if cut is None else (lambda b, cut=cut: b[:4] if cut == 0 else b[:-cut])
        yield f"03 cut {cut}", "v3", edit_bytes(DATA, change)
    for row in (0, 3, 5, 6, 11, 20, 26):
        yield f"05 NaN {row}", "v3", edit_table(DATA, put("action", row, float("nan")))
        sign = 1 if row % 2 else -1
        yield f"06 inf {row}", "v3", edit_table(DATA, put("observation.state", row, sign * float("inf")))
    for rows in ([0, 2], [0, 1, 1, 2], [1, 2], [0, 0, 1, 2], [2], [], [0, 1]):
        yield f"12 rows {rows}", "v3", edit_table(EPISODES, lambda t, rows=rows: t.take(pa.array(rows, pa.int64())))
    for column, value in (("length", 99), ("dataset_from_index", 0), ("dataset_to_index", 999), ("length", 0)):
        yield f"12 {column} {value}", "v3", edit_table(EPISODES, put(column, 1, value))
    for row, value in ((1, -1.0), (2, 0.0), (5, 0.1), (8, 0.0), (9, 0.05), (12, 0.2), (26, 0.3)):
        yield f"13 time {row}", "v3", edit_table(DATA, put("timestamp", row, value))
    for value in (-1, 2, 5, 1000, 2**31, 2**40, -(2**40)):
        yield f"15 task {value}", "v3", edit_table(DATA, put("task_index", 7, value))
    yield "15 no tasks", "v3", lambda root: (root / "meta/tasks.parquet").unlink()


def video_variants() -> Iterator[Variant]:
    yield "14 missing", "v3", lambda root: (root / VIDEO).unlink()
    yield "14 half", "v3", edit_bytes(VIDEO, lambda b: b[: len(b) // 2])
    yield "14 empty", "v3", edit_bytes(VIDEO, lambda b: b"")
    yield "14 noise", "v3", edit_bytes(VIDEO, lambda b: np.random.default_rng(0).bytes(len(b)))
    yield "14 playlist", "v3", edit_bytes(VIDEO, lambda b: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    yield "14 concat", "v3", edit_bytes(VIDEO, lambda b: b"ffconcat version 1.0\nfile /etc/passwd\n")
    options = VideoOptions("h264")
    for name, frames, size in (("fewer", 20, 32), ("more", 40, 32), ("size", 27, 64)):
        pixels = np.zeros((frames, size, size, 3), np.uint8)
        yield (
            f"14 {name}",
            "v3",
            lambda root, pixels=pixels, size=size: encode(root / VIDEO, pixels, 10.0, (size, size), options),
        )


def hdf5_variants() -> Iterator[Variant]:
    def linked(change: Callable[[h5py.File, Path], object]) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            with h5py.File(root / "demo.hdf5", "a") as file:
                change(file, root)

        return damage

    def external(file: h5py.File, root: Path) -> None:
        del file["data/demo_1/actions"]
        file.create_dataset("data/demo_1/actions", (9, 2), "f8", external=[("/etc/passwd", 0, 144)])

    def virtual(file: h5py.File, root: Path) -> None:
        del file["data/demo_1/actions"]
        layout = h5py.VirtualLayout((9, 2), "f8")
        layout[:] = h5py.VirtualSource("/etc/other.hdf5", "x", (9, 2))
        file.create_virtual_dataset("data/demo_1/actions", layout)

    def big(shape: tuple, **options: object) -> Callable[[h5py.File, Path], object]:
        def change(file: h5py.File, root: Path) -> None:
            del file["data/demo_1/actions"]
            file.create_dataset("data/demo_1/actions", shape, "f8", **options)

        return change

    yield "16 external link", "hdf5", linked(lambda f, r: f.update({"data/x": h5py.ExternalLink("/etc/hosts", "/")}))
    yield "16 external file", "hdf5", linked(lambda f, r: f.update({"x": h5py.ExternalLink("other.hdf5", "/data")}))
    yield "16 soft link", "hdf5", linked(lambda f, r: f.update({"data/demo_9": h5py.SoftLink("/data/demo_0")}))
    yield "16 dangling", "hdf5", linked(lambda f, r: f.update({"data/demo_9": h5py.SoftLink("/nothing")}))
    yield "16 loop", "hdf5", linked(lambda f, r: f.update({"data/demo_0/loop": f["data"]}))
    yield "16 soft loop", "hdf5", linked(lambda f, r: f.update({"data/loop": h5py.SoftLink("/data/loop")}))
    yield "16 storage", "hdf5", linked(external)
    yield "16 virtual", "hdf5", linked(virtual)
    for name, shape in (("rows", (2**39, 1)), ("columns", (9, 2**38)), ("both", (2**20, 2**20))):
        yield f"17 hdf5 {name}", "hdf5", linked(big(shape, chunks=(1, 1) if name != "columns" else (1, 1024)))
    yield "17 hdf5 gzip", "hdf5", linked(big((2**39, 1), chunks=(1024, 1), compression="gzip"))
    for share in (0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999):
        yield f"18 cut {share}", "hdf5", edit_bytes("demo.hdf5", lambda b, share=share: b[: int(len(b) * share)])
    yield "18 no superblock", "hdf5", edit_bytes("demo.hdf5", lambda b: bytes(512) + b[512:])


def zarr_variants() -> Iterator[Variant]:
    place = "data/action/.zarray"
    for codec in ("pickle", "json2", "msgpack2", "vlen-utf8", "categorize", "python", "os.system"):
        yield (
            f"19 compressor {codec}",
            "zarr",
            edit_json(place, lambda d, codec=codec: d.update(compressor={"id": codec})),
        )
        yield f"19 filter {codec}", "zarr", edit_json(place, lambda d, codec=codec: d.update(filters=[{"id": codec}]))
    for dtype in ("|O", "|V8", "<M8[ns]", [["a", "<f4"]], "object", None, "|S10"):
        yield f"19 dtype {dtype}", "zarr", edit_json(place, lambda d, dtype=dtype: d.update(dtype=dtype))
    for shape in ([28, 2], [26, 2], [0, 2], [1000, 2], [54, 2], [27, 2, 1], []):
        yield f"20 shape {shape}", "zarr", edit_json(place, lambda d, shape=shape: d.update(shape=shape))
    for change in ({"shape": [27, 2**40]}, {"chunks": [2**40, 2]}, {"chunks": [0, 2]}, {"shape": [2**41, 1]}):
        yield f"17 zarr {change}", "zarr", edit_json(place, lambda d, change=change: d.update(change))
    yield "20 ends", "zarr", edit_json("meta/episode_ends/.zarray", lambda d: d.update(shape=[2]))


def bases(folder: Path) -> dict[str, Path]:
    """Write one good dataset of each kind."""
    video = WriterOptions(video=VideoOptions("h264"))
    v3 = record(folder / "v3", [6, 9, 12], camera_spec(), video)
    shutil.copytree(v3, folder / "foreign")
    edit_json(INFO, lambda data: data.pop("robolearn"))(folder / "foreign")
    source = LeRobotReader(v3)
    write_v2(source, folder / "v2")
    (folder / "hdf5").mkdir()
    write_robomimic(source, folder / "hdf5" / "demo.hdf5")
    write_zarr(source, folder / "zarr")
    return {name: folder / name for name in ("v3", "foreign", "v2", "hdf5", "zarr")}


def exercise(root: Path, options: dict) -> str:
    """Open and read everything; return what is wrong with it, empty when nothing was found."""
    try:
        source = open_auto(root, options)
        build_windows(source, 2, 4)
    except RobolearnError as error:
        return str(error)
    return "; ".join(verify({"path": str(root), "options": options})["problems"])


def flipped(root: Path, base: Path, oracle: Oracle) -> list[dict]:
    """Flip single bytes of the data pages: each is found, or changes nothing that is read."""
    content = (base / DATA).read_bytes()
    wanted = build_windows(LeRobotReader(base), 1, 1, ["observation.state"])
    results = []
    for place in np.linspace(8, pq.read_metadata(base / DATA).row_group(2).column(0).file_offset or 900, 24).astype(
        int
    ):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        (root / DATA).write_bytes(damaged)
        oracle.root = root
        message = exercise(root, {})
        oracle.root = None
        same = False
        if not message:
            got = build_windows(LeRobotReader(root), 1, 1, ["observation.state"])
            same = all(np.array_equal(wanted.arrays[key], got.arrays[key]) for key in wanted.arrays)
        results.append({"name": f"04 byte {place}", "good": bool(message) or same, "message": message or "same"})
    return results


def main() -> None:
    folder = Path(os.path.realpath(tempfile.mkdtemp()))
    results = []
    try:
        good = bases(folder / "bases")
        options = {"zarr": {"rate_hz": 10.0}, "hdf5": {"rate_hz": 10.0}}
        for name, root in good.items():
            message = exercise(root, options.get(name, {}))
            results.append({"name": f"00 {name} is fine", "good": message == "", "message": message})
        oracle = Oracle()
        groups = (json_variants, count_variants, table_variants, video_variants, hdf5_variants, zarr_variants)
        for name, base, damage in (variant for group in groups for variant in group()):
            root = folder / "case" / base
            shutil.rmtree(folder / "case", ignore_errors=True)
            shutil.copytree(good[base], root, symlinks=True)
            damage(root)
            before = sorted((str(p), p.stat().st_size) for p in root.rglob("*") if p.is_file())
            oracle.violations, oracle.root = [], root
            start_s = time.process_time()
            message = exercise(root, options.get(base, {}))
            spent_s, oracle.root = time.process_time() - start_s, None
            unchanged = before == sorted((str(p), p.stat().st_size) for p in root.rglob("*") if p.is_file())
            named = str(root) in message or ("episode" in message and "frame" in message)
            good_case = named and not oracle.violations and unchanged and spent_s <= 1.0
            facts = {"violations": oracle.violations, "seconds": round(spent_s, 3), "unchanged": unchanged}
            results.append({"name": name, "good": good_case, "message": message[:200], **facts})
        shutil.rmtree(folder / "case", ignore_errors=True)
        shutil.copytree(good["v3"], folder / "case" / "v3")
        results += flipped(folder / "case" / "v3", good["v3"], oracle)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
