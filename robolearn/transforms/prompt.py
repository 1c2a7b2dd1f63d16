"""Prompts: an instruction in its template, to token numbers [B,L]."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, DataError
from robolearn.spec import Feature, Spec
from robolearn.stats import lookup

__all__ = ["TokenizePrompt"]


@dataclass(frozen=True)
class TokenizePrompt:
    """Turn the B strings of `key` into token numbers `output` [B,length], -1 where there is none.

    The tokenizer is the `tokenizer.json` of the folder `tokenizer`, or ("") byte pairs learned from the
    data's own texts, which hold any text. Either way it is part of the checkpoint. `vocabulary` is the
    most tokens that the network has; `begin` puts the tokenizer's own marks around the text. The strings
    of `answer`, which a batch may have in training, become token numbers [B,answer_length] in their place.
    """

    key: str = "task"
    output: str = "observation.prompt"
    template: str = "{text}"
    tokenizer: str = ""
    length: int = 48
    vocabulary: int = 1024
    begin: bool = True
    answer: str = ""  # no observation: what is to be said after the prompt
    answer_length: int = 32
    name: str = "tokenize_prompt"
    stats: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:  # a loader worker opens the tokenizer for itself
        return {**self.__dict__, "_cache": {}}

    def __post_init__(self):
        if self.template.count("{text}") != 1:
            raise ConfigError("A prompt template names the text once.", found=self.template, expected="'… {text} …'")
        if min(self.length, self.answer_length) < 1 or self.vocabulary < 256:
            raise ConfigError("A prompt is too small.", found=self, expected="lengths >= 1, vocabulary >= 256")

    @property
    def fitted(self) -> bool:
        """Whether the tokenizer is there."""
        return bool(self.stats)

    def fit(self, batches: Iterable[Batch]) -> "TokenizePrompt":
        """Return the transform with its tokenizer: read from its folder, or learned from the texts."""
        if self.tokenizer:
            text = _read(Path(self.tokenizer))
        else:
            keys = (self.key, self.answer)
            texts = {text for batch in batches for key in keys for text in batch.get(key, ())}
            text = _learn(sorted(texts), self.vocabulary)
        count = _open(text).get_vocab_size()
        if count > self.vocabulary:
            raise ConfigError(
                "The tokenizer has more tokens than the network.",
                found=count,
                expected=f"at most {self.vocabulary}",
                do="name the tokenizer of the backbone's own weights",
            )
        return replace(self, stats={"tokenizer": torch.from_numpy(np.frombuffer(text, np.uint8).copy())})

    def forward(self, batch: Batch) -> Batch:
        rest = {key: value for key, value in batch.items() if key != self.key}
        result = rest | {self.output: self._numbers(lookup(batch, self.key), False)}
        return result | {self.answer: self._numbers(batch[self.answer], True)} if self.answer in batch else result

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        observations = {
            key: feature for key, feature in spec.observations.items() if key not in (self.key, self.answer)
        }
        return replace(spec, observations=observations | {self.output: Feature("text", (self.length,), "int64")})

    def _numbers(self, texts: Sequence[str], answer: bool) -> torch.Tensor:
        """Return the token numbers [B,L] of prompts or answers."""
        for text in texts:
            if (text, answer) not in self._cache:
                self._cache[text, answer] = self._encode(text, answer)
        rows = [self._cache[text, answer] for text in texts]
        return torch.tensor(rows).view(len(rows), self.answer_length if answer else self.length)

    def _encode(self, text: str, answer: bool) -> list[int]:
        if "tokenizer" not in self.stats:
            raise ConfigError("tokenize_prompt has no tokenizer.", do="fit it on the data")
        if None not in self._cache:
            self._cache[None] = _open(self.stats["tokenizer"].numpy().tobytes())
        what, length = ("reasoning", self.answer_length) if answer else ("prompt", self.length)
        filled = self.template.format(text=text) if text and not answer else text
        ids = self._cache[None].encode(filled, add_special_tokens=self.begin and not answer).ids
        if len(ids) > length:
            raise DataError(
                f"A {what} does not fit.",
                found=f"{len(ids)} tokens: '{text[:80]}'",
                expected=f"at most {length}",
                do=f"raise policy.{what}.length, or shorten the text",
            )
        return ids + [-1] * (length - len(ids))


def _read(folder: Path) -> bytes:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"There is no tokenizer in {folder}.", expected="a file tokenizer.json")
    return file.read_bytes()


def _learn(texts: list[str], vocabulary: int) -> bytes:
    """Return byte pairs over `texts` as a tokenizer.json; all 256 bytes are in it, so any text has tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str().encode()


def _open(text: bytes) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text.decode())
