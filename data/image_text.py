"""Pictures with a prompt and its answer, to learn words from beside robots' demonstrations (co-training).

A folder with one JSON object for each picture in `metadata.jsonl`, as Hugging Face's imagefolder has it, or LLaVA's
JSON file beside its pictures. Each pair is an episode of one frame without an action.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.config import parse
from robolearn.data.files import read_json_lines
from robolearn.data.frames import counters, span
from robolearn.data.tables import decode_image, image_size
from robolearn.errors import ConfigError, DataError, suggest
from robolearn.files import inside, read_json
from robolearn.padding import fitted
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["METADATA", "ImageTextOptions", "ImageTextReader", "open_dataset"]

METADATA = "metadata.jsonl"
_RATE_HZ = 1.0  # of stills: a spec has a rate, a mixture takes that of the members that act


@dataclass(frozen=True)
class ImageTextOptions:
    """`picture` is the observation that a picture becomes, `reasoning` the text column that its answer becomes.

    `prompt` and `answer` are the columns of the metadata; `image_px` (height, width) resizes by area.
    """

    picture: str = "observation.images.front"
    prompt: str = "prompt"
    answer: str = "answer"
    reasoning: str = "reasoning"
    image_px: tuple[int, int] | None = None

    def __post_init__(self):
        if self.image_px is not None and min(self.image_px) < 1:
            raise ConfigError("A picture has one pixel or more.", found=self.image_px, expected="image_px=[H,W]")


@dataclass(frozen=True)
class _Pair:
    picture: Path
    prompt: str
    answer: str


def open_dataset(path: Path, options: Mapping[str, Any]) -> "ImageTextReader":
    """Open the folder of `metadata.jsonl`, or LLaVA's JSON file in the folder of its pictures."""
    given = parse(ImageTextOptions, options, where="data.options")
    if path.suffix == ".json":
        return ImageTextReader(path.parent, _llava(path, given), path, given)
    if not (path / METADATA).is_file():
        raise DataError(
            f"{path / METADATA} does not exist.",
            expected=f'a line {{"file_name": …, "{given.prompt}": …, "{given.answer}": …}} for each picture',
            do="write it, or name LLaVA's JSON file: path=FOLDER/FILE.json",
        )
    return ImageTextReader(path, read_json_lines(path / METADATA), path / METADATA, given)


class ImageTextReader:
    """An `EpisodeSource` of pairs: a picture, the prompt as `task`, the answer, and an action of no dimension."""

    def __init__(self, root: Path, rows: Sequence[Mapping[str, Any]], listed: Path, options: ImageTextOptions):
        self.root, self.options = root, options
        self.pairs = [_pair(root, row, f"{listed}, row {number}", options) for number, row in enumerate(rows)]
        if not self.pairs:
            raise DataError(f"{listed} lists no pictures.", expected="one or more", do="add a line for each picture")
        self._lengths = np.ones(len(self.pairs), np.int64)
        shape = (*(options.image_px or _common_px(self.pairs)), 3)
        observations = {options.picture: Feature("image", shape, "uint8"), "task": Feature("text", dtype="str")}
        self.spec = Spec(observations, ActionSpec(0), _RATE_HZ)

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return (*self.spec.observations, self.options.reasoning, "action", "timestamp", "frame_index", "episode_index")

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return the frame [start, stop) of `keys` of one pair."""
        start, stop = span(self._lengths, episode, start, stop, self.root)
        pair, result = self.pairs[episode], counters(episode, start, stop, _RATE_HZ)
        result["action"] = np.zeros((1, 0), np.float32)[start:stop]
        result["task"], result[self.options.reasoning] = (np.array([t])[start:stop] for t in (pair.prompt, pair.answer))
        if self.options.picture in keys:
            result[self.options.picture] = self._picture(pair.picture)[None][start:stop]
        for key in keys:
            if key not in result:
                raise DataError(f"No key '{key}' in {self.root}.", expected=suggest(key, self.keys))
        return {key: result[key] for key in keys}

    def _picture(self, path: Path) -> np.ndarray:
        content, where = path.read_bytes(), str(path)
        picture = decode_image(content, (*image_size(content, where), 3), where)
        return fitted(picture, self.spec.observations[self.options.picture])


def _pair(root: Path, row: Mapping[str, Any], where: str, options: ImageTextOptions) -> _Pair:
    """Return one row checked; raises `DataError` for a text or a picture that is not there."""
    values = {name: row.get(name) for name in ("file_name", options.prompt, options.answer)}
    for name, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{where} has no '{name}'.",
                found=repr(value) if name in row else f"the columns {', '.join(row) or 'none'}",
                expected="text that is not empty",
                do="complete the row or remove it; other columns are named by data.options.prompt and answer",
            )
    name, prompt, answer = map(str, values.values())
    picture = inside(root, name, f"{where}: file_name")
    if not picture.is_file():
        raise DataError(
            f"{where}: the picture is not there.", found=name, expected=f"a file in {root}", do="remove the row"
        )
    return _Pair(picture, prompt, answer)


def _common_px(pairs: Sequence[_Pair]) -> tuple[int, int]:
    """Return the (height, width) of all pictures, from their headers; raises `DataError` where one differs."""
    first, *others = ((pair.picture, image_size(pair.picture, str(pair.picture))) for pair in pairs)
    for picture, size in others:
        if size != first[1]:
            raise DataError(
                "The pictures differ in size.",
                found=f"{first[0].name} {first[1]}, {picture.name} {size}",
                expected="one height and width",
                do="resize them while reading: image_px=[H,W] among the options",
            )
    return first[1]


def _llava(path: Path, options: ImageTextOptions) -> list[dict[str, Any]]:
    """Return the rows of LLaVA's JSON `[{image, conversations: [{from, value}, …]}]`: the first question and answer."""
    items = read_json(path, DataError)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{path} is not LLaVA's JSON.", found=type(items).__name__, expected="a list of objects")
    rows = []
    for item in items:
        turns, said = item.get("conversations"), {}
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict):
                said.setdefault(str(turn.get("from")), turn.get("value"))
        question = str(said.get("human") or "").replace("<image>", "").strip()
        rows.append({"file_name": item.get("image"), options.prompt: question, options.answer: said.get("gpt")})
    return rows
