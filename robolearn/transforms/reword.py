"""Instructions in other words while a policy is trained, so that it follows more than the words of its data."""

import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import torch

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.spec import Spec
from robolearn.stats import lookup

__all__ = ["Reword"]


@dataclass(frozen=True)
class Reword:
    """Replace words of `key` by others of their group and put the sentence into one of the `frames`.

    A frame of the data always has the same wording, decided by its actions; other frames have others. A batch without
    actions is someone's to act on, and stays as it is. The instruction's own words are one choice among all.
    """

    frames: tuple[str, ...] = ()  # such as "robot, {}"
    synonyms: tuple[tuple[str, ...], ...] = ()
    key: str = "task"
    name: str = "reword"
    _cache: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        wrong = [frame for frame in self.frames if frame.count("{}") != 1]
        if wrong:
            raise ConfigError("A frame has one place for the instruction.", found=wrong[0], expected="'… {} …'")

    def __getstate__(self) -> dict[str, Any]:  # a loader worker fills its own cache
        return {**self.__dict__, "_cache": {}}

    def forward(self, batch: Batch) -> Batch:
        if "action" not in batch:
            return batch
        chosen = [zlib.crc32(action.numpy().tobytes()) for action in batch["action"].cpu()]
        return batch | {self.key: [self._say(text, n) for text, n in zip(lookup(batch, self.key), chosen, strict=True)]}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        return spec

    def _say(self, text: str, number: int) -> str:
        """Return wording `number` of an instruction."""
        choices = [*map(len, self.synonyms), len(self.frames) + 1]
        digits = []
        for choice in choices:
            number, digit = divmod(number, choice)
            digits.append(digit)
        known = str(text), tuple(digits)
        if known not in self._cache:
            self._cache[known] = self._reworded(str(text), digits)
        return self._cache[known]

    def _reworded(self, text: str, digits: list[int]) -> str:
        other = {word: group[digit] for group, digit in zip(self.synonyms, digits, strict=False) for word in group}
        if other:
            words = "|".join(re.escape(word) for word in sorted(other, key=len, reverse=True))
            text = re.sub(rf"\b({words})\b", lambda found: other[found[0]], text)
        return ("{}", *self.frames)[digits[-1]].replace("{}", text)
