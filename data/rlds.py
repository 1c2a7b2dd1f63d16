"""RLDS datasets (Open X-Embodiment): TFDS folders of TFRecords, one episode per record, without TensorFlow.

`features.json` says what a step holds; `dataset_info.json` how many episodes there should be. Rates and
what an action means are not stored: they are asked for by name.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.data.files import positive, read_json
from robolearn.data.frames import counters, span
from robolearn.data.tables import decode_image, image_size
from robolearn.data.tfrecord import Example, RecordFile
from robolearn.errors import DataError, suggest
from robolearn.spec import ActionKind, ActionSpec, Feature, Rotation, Spec

__all__ = ["RldsOptions", "RldsReader", "open_dataset", "version_folder"]

_DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
_EXTRAS = {"reward": "next.reward", "is_terminal": "next.done"}
_INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "observation/language_instruction",
)
_STATES = ("observation/state", "observation/proprio")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class RldsOptions:
    """What the files do not say. `keys` maps a key to paths below a step, which are joined in order."""

    split: str = "train"
    rate_hz: float | None = None
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    action_kind: ActionKind = ""
    rotation: Rotation = ""
    gripper: Literal["", "none", "positive_closes", "positive_opens"] = ""
    robot: str = ""
    task: str = ""


@dataclass(frozen=True)
class _Leaf:
    kind: Literal["tensor", "image", "text"]
    shape: tuple[int, ...]
    dtype: str
    encoding: str


def open_dataset(path: Path, options: Mapping[str, Any]) -> "RldsReader":
    """Open a TFDS folder, or the one above it when there is one version."""
    return RldsReader(path, parse(RldsOptions, options, where="data"))


def version_folder(path: Path) -> Path | None:
    """Return the folder at `path` or right below it that holds a features.json; the latest version of several."""
    if (path / "features.json").exists():
        return path
    below = sorted(file.parent for file in path.glob("*/features.json"))
    return below[-1] if below else None


class RldsReader:
    """An `EpisodeSource` over an RLDS dataset."""

    def __init__(self, path: Path, options: RldsOptions | None = None):
        self.root, self.options = version_folder(Path(path)) or Path(path), options or RldsOptions()
        self._leaves = dict(_step_leaves(self.root / "features.json"))
        self._files = self._shards()
        self._columns = {key: tuple(names) for key, names in self.options.keys.items()} or _guess(self._leaves)
        for key, names in self._columns.items():
            self._check(key, names)
        self._places = [(file, number) for file, records in enumerate(self._files) for number in range(len(records))]
        self._lengths = np.array([self._length(episode) for episode in range(len(self._places))], np.int64)
        self._last: tuple[int, Example | None] = (-1, None)
        self.spec = self._spec()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": (-1, None)}

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return tuple(dict.fromkeys((*self._columns, "task", "timestamp", "frame_index", "episode_index")))

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        start, stop = span(self._lengths, episode, start, stop, self.root)
        made = counters(episode, start, stop, self.spec.rate_hz)
        if "task" not in self._columns:
            made["task"] = np.full(stop - start, self.options.task)
        return {key: made[key] if key in made else self._column(episode, key, start, stop) for key in keys}

    def _column(self, episode: int, key: str, start: int, stop: int) -> np.ndarray:
        if key not in self._columns:
            raise DataError(f"No key '{key}' in {self.root}.", expected=suggest(key, self.keys))
        parts = [self._values(episode, name, start, stop) for name in self._columns[key]]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part.reshape(len(part), -1).astype(np.float32) for part in parts], 1)

    def _values(self, episode: int, name: str, start: int, stop: int) -> np.ndarray:
        example, leaf, length = self._example(episode), self._leaves[name], int(self._lengths[episode])
        where = f"{self._where(episode)}: {name}"
        if leaf.kind == "tensor" and leaf.encoding == "none":
            numbers = example.numbers(f"steps/{name}")
            if numbers.size != length * int(np.prod(leaf.shape, dtype=np.int64)):
                raise DataError(f"{where} has another size.", found=numbers.size, expected=f"{length} × {leaf.shape}")
            return numbers.reshape(length, *leaf.shape)[start:stop].astype(_stored(leaf.dtype), copy=False)
        spans = example.spans(f"steps/{name}")
        if len(spans) != length:
            raise DataError(f"{where} has another length.", found=len(spans), expected=length)
        items = [example.content(span) for span in spans[start:stop]]
        if leaf.kind == "text":
            return np.array([item.decode(errors="replace") for item in items], dtype=str)
        if leaf.kind == "image":
            shape = self.spec.observations[self._key_of(name)].shape
            result = np.empty((len(items), *shape), np.uint8)
            for row, item in enumerate(items):
                result[row] = decode_image(item, shape, f"{where}, frame {start + row}")
            return result
        return np.stack([_unpacked(item, leaf, where) for item in items]) if items else np.zeros((0, *leaf.shape))

    def _key_of(self, name: str) -> str:
        return next(key for key, names in self._columns.items() if names == (name,))

    def _example(self, episode: int) -> Example:
        """Return one checked record; the last one is kept."""
        number, example = self._last
        if number != episode or example is None:
            file, record = self._places[episode]
            example = self._files[file].read(record)
            self._last = (episode, example)
        return example

    def _where(self, episode: int) -> str:
        file, record = self._places[episode]
        return f"{self._files[file].path}, record {record}"

    # ---------------------------------------------------------------- opening

    def _shards(self) -> list[RecordFile]:
        info = read_json(self.root / "dataset_info.json")
        splits = {str(item.get("name")): item for item in _dicts(info.get("splits"))}
        if self.options.split not in splits:
            raise DataError(
                f"{self.root}/dataset_info.json has no split '{self.options.split}'.",
                expected=suggest(self.options.split, splits),
            )
        files = [RecordFile(path) for path in sorted(self.root.glob(f"*-{self.options.split}.tfrecord*"))]
        stated = [int(n) for n in splits[self.options.split].get("shardLengths", ()) if str(n).isdigit()]
        found = [len(file) for file in files]
        if not files or (stated and stated != found):
            raise DataError(
                f"{self.root}: the shards of '{self.options.split}' are not those of dataset_info.json.",
                found=f"{len(files)} files with {sum(found)} episodes",
                expected=f"{len(stated)} files with {sum(stated)} episodes",
                do="restore the missing files",
            )
        return files

    def _check(self, key: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._leaves:
                raise DataError(f"{self.root}: '{key}' names {name}.", expected=suggest(name, self._leaves))
            if len(names) > 1 and self._leaves[name].kind != "tensor":
                raise DataError(f"{self.root}: '{key}' joins what are no numbers.", found=name)

    def _length(self, episode: int) -> int:
        file, record = self._places[episode]
        example = self._files[file].skim(record)
        name = self._columns["action"][0]
        length, rest = divmod(example.count(f"steps/{name}"), max(int(np.prod(self._leaves[name].shape)), 1))
        if rest or not length:
            raise DataError(f"{self._where(episode)}: {name} has another size than declared.", found=rest or "no steps")
        return length

    def _spec(self) -> Spec:
        if not len(self._lengths):
            raise DataError(f"{self.root} has no episodes.", do="check the split")
        features = {key: self._feature(names) for key, names in self._columns.items() if key.startswith("observation")}
        if "task" in self._columns or self.options.task:
            features["task"] = Feature("text", dtype="str")
        if self.options.rate_hz is None:
            raise DataError(f"{self.root} does not say its rate.", do="give it: data.options.rate_hz=…")
        size = sum(int(np.prod(self._leaves[name].shape, dtype=np.int64)) for name in self._columns["action"])
        return Spec(
            features,
            ActionSpec(size, self.options.action_kind, rotation=self.options.rotation, gripper=self.options.gripper),
            rate_hz=positive(self.options.rate_hz, f"{self.root}: rate_hz"),
            robot=self.options.robot,
        )

    def _feature(self, names: Sequence[str]) -> Feature:
        leaf = self._leaves[names[0]]
        if leaf.kind == "tensor":
            size = sum(int(np.prod(self._leaves[name].shape, dtype=np.int64)) for name in names)
            return Feature("signal", leaf.shape if len(names) == 1 else (size,), _stored(leaf.dtype))
        if leaf.kind == "text":
            return Feature("text", dtype="str")
        shape = leaf.shape
        if min(shape) < 1:  # the size is left open: that of the first picture
            first = self._example(0)
            content = first.content(first.spans(f"steps/{names[0]}")[0])
            shape = (*image_size(content, f"{self._where(0)}: {names[0]}"), shape[2])
        return Feature("image", shape, "uint8")


def _stored(dtype: str) -> str:
    return "float32" if dtype == "float64" else dtype  # a tf.train.Example knows single precision only


def _unpacked(item: bytes, leaf: _Leaf, where: str) -> np.ndarray:
    """Return a tensor that was stored as bytes, plain or deflated."""
    size = int(np.prod(leaf.shape, dtype=np.int64)) * np.dtype(leaf.dtype).itemsize
    try:
        raw = zlib.decompressobj().decompress(item, size + 1) if leaf.encoding == "zlib" else item
    except zlib.error as error:
        raise DataError(f"{where} cannot be decompressed.", found=str(error)) from error
    if len(raw) != size:
        raise DataError(f"{where} has another size.", found=len(raw), expected=size)
    return np.frombuffer(raw, leaf.dtype).reshape(leaf.shape).astype(_stored(leaf.dtype))


def _guess(leaves: Mapping[str, _Leaf]) -> dict[str, tuple[str, ...]]:
    """Return which paths are which keys, where names say so."""
    result: dict[str, tuple[str, ...]] = {}
    actions = [name for name in leaves if name == "action" or name.startswith("action/")]
    if actions != ["action"]:
        raise DataError(
            "The action of the dataset is in parts.",
            found=", ".join(actions) or "none",
            do="say which, in order: data.options.keys.action=[action/…, …] (and the other keys)",
        )
    result["action"] = ("action",)
    for name, leaf in leaves.items():
        short = name.removeprefix("observation/").replace("/", ".")
        if not name.startswith("observation/"):
            continue
        if leaf.kind == "image" and leaf.dtype == "uint8" and leaf.shape[2] == 3:
            result[f"observation.images.{short}"] = (name,)
        elif leaf.kind == "tensor" and len(leaf.shape) == 1 and leaf.dtype.startswith("float"):
            result["observation.state" if name in _STATES else f"observation.{short}"] = (name,)
    result |= {key: (name,) for name, key in _EXTRAS.items() if name in leaves}
    instruction = next((name for name in _INSTRUCTIONS if name in leaves and leaves[name].kind == "text"), None)
    return result | ({"task": (instruction,)} if instruction else {})


def _step_leaves(path: Path) -> Iterator[tuple[str, _Leaf]]:
    raw = read_json(path)
    steps = _below(_below(raw, "featuresDict", "features"), "steps")
    step = _below(steps, "sequence", "feature")
    if not step:
        raise DataError(f"{path} describes no steps.", expected="an RLDS dataset: featuresDict.features.steps")
    yield from _leaves_of(step, "", path, 0)


def _leaves_of(feature: Mapping[str, Any], prefix: str, path: Path, depth: int) -> Iterator[tuple[str, _Leaf]]:
    if depth > _MAX_DEPTH:
        raise DataError(f"{path}: {prefix} is nested too deeply.")
    for name, item in _below(feature, "featuresDict", "features").items():
        full = f"{prefix}/{name}" if prefix else name
        if not isinstance(item, Mapping):
            raise DataError(f"{path}: {full} is not a feature.", found=str(item)[:60])
        if "featuresDict" in item:
            yield from _leaves_of(item, full, path, depth + 1)
        elif "text" in item:
            yield full, _Leaf("text", (), "str", "none")
        elif "image" in item or "tensor" in item:
            yield full, _leaf("image" if "image" in item else "tensor", item, f"{path}: {full}")


def _leaf(kind: Literal["tensor", "image"], item: Mapping[str, Any], where: str) -> _Leaf:
    facts = _below(item, kind)
    sizes = _below(facts, "shape").get("dimensions", [])
    known = isinstance(sizes, list) and all(str(size).removeprefix("-").isdigit() for size in sizes)
    shape = tuple(int(size) for size in sizes) if known else ()
    dtype, encoding = str(facts.get("dtype", "uint8")), str(facts.get("encoding", "none")).lower() or "none"
    if dtype in ("string", "object"):
        return _Leaf("text", (), "str", "none")
    usable = known and len(shape) <= 5 and (kind == "image" or min(shape, default=1) >= 1)
    if not usable or np.prod(np.maximum(shape, 1), dtype=np.float64) > 2**28 or (kind == "image" and len(shape) != 3):
        raise DataError(f"{where} has a shape that is not usable.", found=str(sizes)[:80])
    if dtype not in _DTYPES or encoding not in ("none", "bytes", "zlib"):
        raise DataError(f"{where} has an unknown type.", found=f"{dtype}, {encoding}", expected=", ".join(_DTYPES))
    return _Leaf(kind, shape, dtype, encoding)


def _below(item: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        found = item.get(name)
        item = found if isinstance(found, Mapping) else {}
    return item


def _dicts(items: Any) -> list[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
