"""Action codecs as paired transforms: B-spline control points, and discrete tokens of two kinds.

After a codec a chunk [B,K,A] is something else of the same rank: control points [B,N,A], or token numbers
[B,L,1] as floats. Any policy whose mathematics fits reads them as its chunk.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError
from robolearn.padding import with_actions
from robolearn.policies.bpe import decode_pairs, encode_pairs, learn_pairs
from robolearn.spec import ActionSpec, Spec

__all__ = ["BEASTTokens", "BSplineCodec", "FASTTokens", "dct_matrix", "spline_matrix"]


@dataclass(frozen=True)
class BSplineCodec:
    """Least-squares control points of clamped uniform B-splines (BEAST, arXiv 2506.06072, section 3.1).

    `chunk` is K, found by `bind`.
    """

    points: int = 8
    degree: int = 3
    chunk: int | None = None
    name: str = "bspline"

    def bind(self, spec: Spec) -> "BSplineCodec":
        """Return the codec for chunks of `spec`."""
        if not self.degree < self.points <= spec.chunk or self.degree < 0:
            raise ConfigError(
                "A spline like this cannot hold the chunk.",
                found=f"{self.points} control points of degree {self.degree} for {spec.chunk} actions",
                expected="degree < points <= chunk",
            )
        return replace(self, chunk=spec.chunk)

    def forward(self, batch: Batch) -> Batch:
        """Replace the chunk by its control points; one is padding when all it touches is."""
        if "action" not in batch:
            return batch
        chunk = _whole(self.name, batch["action"], self.chunk)
        basis, fit = _spline(chunk, self.points, self.degree)
        result = batch | {"action": fit.to(batch["action"]) @ batch["action"]}
        if "action_is_pad" in batch:
            touched = (basis.T > 1e-6).to(batch["action_is_pad"].device)
            result["action_is_pad"] = (batch["action_is_pad"][:, None] | ~touched).all(-1)
        return result

    def inverse(self, action: Tensor, batch: Batch) -> Tensor:
        """Return the chunk [B,K,A] of control points [B,N,A]."""
        return _spline(_bound(self.name, self.chunk), self.points, self.degree)[0].to(action) @ action

    def transform_spec(self, spec: Spec) -> Spec:
        """Return the spec whose chunk is the control points."""
        return replace(spec, chunk=self.points)


@dataclass(frozen=True)
class BEASTTokens:
    """Control points of actions in [-1, 1], quantised in `bins` (BEAST, arXiv 2506.06072, section 3.2)."""

    points: int = 8
    degree: int = 3
    bins: int = 256
    reach: float = 1.25  # control points lie a little outside the actions
    chunk: int | None = None
    dim: int | None = None
    name: str = "beast_tokens"

    def bind(self, spec: Spec) -> "BEASTTokens":
        """Return the codec for chunks of `spec`."""
        if self.bins < 2 or self.reach <= 0:
            raise ConfigError("BEAST needs at least two bins.", found=self.bins, expected="bins >= 2, reach > 0")
        self._spline().bind(spec)
        return replace(self, chunk=spec.chunk, dim=spec.action.dim)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.bins

    def forward(self, batch: Batch) -> Batch:
        """Replace the chunk by token numbers [B, N·A, 1], control point by control point."""
        if "action" not in batch:
            return batch
        own = {key: batch[key] for key in ("action", "action_is_pad") if key in batch}
        _in_range(self.name, with_actions(own)["action"])
        batch = self._spline().forward(batch)
        level = (batch["action"] / self.reach + 1) / 2 * (self.bins - 1)
        result = batch | {"action": level.round().clamp(0, self.bins - 1).flatten(1)[..., None]}
        if "action_is_pad" in batch:
            result["action_is_pad"] = batch["action_is_pad"].repeat_interleave(_bound(self.name, self.dim), 1)
        return result

    def inverse(self, action: Tensor, batch: Batch) -> Tensor:
        """Return the chunk [B,K,A] of token numbers."""
        points = (action[..., 0] / (self.bins - 1) * 2 - 1) * self.reach
        return self._spline().inverse(points.unflatten(1, (self.points, _bound(self.name, self.dim))), batch)

    def transform_spec(self, spec: Spec) -> Spec:
        """Return the spec of token chunks."""
        return _token_spec(spec, self.points * spec.action.dim, self.vocabulary)

    def _spline(self) -> BSplineCodec:
        return BSplineCodec(self.points, self.degree, self.chunk)


@dataclass(frozen=True)
class FASTTokens:
    """Quantised cosine coefficients, lowest first, merged by byte pairs (FAST, arXiv 2501.09747, algorithm 1).

    `scale` is the resolution (levels per unit of a coefficient), `vocabulary` the number of tokens
    including the end. Sequences as long as any of the data are held; a longer one loses its highest frequencies.
    """

    scale: float = 10.0
    vocabulary: int = 512
    limit: int = 4096  # chunks that the merges are learned from
    chunk: int | None = None
    dim: int | None = None
    name: str = "fast_tokens"
    stats: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def fitted(self) -> bool:
        """Whether the merges are learned."""
        return bool(self.stats)

    def bind(self, spec: Spec) -> "FASTTokens":
        """Return the codec for chunks of `spec`."""
        if self.scale <= 0 or self.vocabulary < 8 or self.limit < 1:
            raise ConfigError("FAST options are out of range.", found=self, expected="scale > 0, vocabulary >= 8")
        return replace(self, chunk=spec.chunk, dim=spec.action.dim)

    def fit(self, batches: Iterable[Batch]) -> "FASTTokens":
        """Return the codec with merges learned from chunks spread over the data."""
        rows = np.concatenate([self._quantise(batch["action"]) for batch in map(with_actions, batches)])
        low, high = int(rows.min()), int(rows.max())
        base = high - low + 1
        if base + 1 > self.vocabulary:
            raise ConfigError(
                "The vocabulary cannot hold the range of the actions.",
                found=f"{base} levels between {low} and {high}",
                expected=f"at most {self.vocabulary - 1}",
                do="use a larger vocabulary, a smaller scale, or another normalisation of the action",
            )
        sample = rows[np.linspace(0, len(rows) - 1, min(self.limit, len(rows))).astype(int)]
        pairs = learn_pairs(sample - low, base, self.vocabulary - 1 - base)
        length = max(len(tokens) for tokens in encode_pairs(rows - low, pairs, base)) + 1
        stats = {
            "pairs": pairs.reshape(-1, 2),
            "low": np.array(low),
            "high": np.array(high),
            "length": np.array(length),
        }
        return replace(self, stats={key: torch.as_tensor(value) for key, value in stats.items()})

    def forward(self, batch: Batch) -> Batch:
        """Replace the chunk by token numbers [B,L,1]; what follows the end is padding."""
        if "action" not in batch:
            return batch
        low, high, length = (int(self._stat(key)) for key in ("low", "high", "length"))
        rows = self._quantise(batch["action"]).clip(low, high) - low
        sequences = encode_pairs(rows, self._stat("pairs").numpy(), high - low + 1)
        end = self.vocabulary - 1
        tokens = np.full((len(rows), length), end)
        pad = np.ones((len(rows), length), bool)
        for row, sequence in enumerate(sequences):
            sequence = sequence[: length - 1]
            tokens[row, : len(sequence)], pad[row, : len(sequence) + 1] = sequence, False
        if "action_is_pad" in batch:
            pad |= batch["action_is_pad"].cpu().numpy().all(1)[:, None]  # no actions at all
        result = {
            "action": torch.as_tensor(tokens, dtype=torch.float32)[..., None],
            "action_is_pad": torch.as_tensor(pad),
        }
        return batch | result

    def inverse(self, action: Tensor, batch: Batch) -> Tensor:
        """Return the chunk [B,K,A] of token numbers; missing coefficients are zero, surplus ones are dropped."""
        low, high = int(self._stat("low")), int(self._stat("high"))
        chunk, dim = _bound(self.name, self.chunk), _bound(self.name, self.dim)
        end, rows = self.vocabulary - 1, []
        for tokens in action[..., 0].round().long().cpu().numpy():
            stops = np.flatnonzero(tokens == end)
            kept = tokens[: stops[0]] if len(stops) else tokens
            levels = decode_pairs(kept, self._stat("pairs").numpy(), high - low + 1) + low
            rows.append(np.pad(levels, (0, chunk * dim))[: chunk * dim])
        coefficients = torch.as_tensor(np.stack(rows), dtype=torch.float32).unflatten(1, (chunk, dim)) / self.scale
        return (dct_matrix(chunk).T @ coefficients).to(action)

    def transform_spec(self, spec: Spec) -> Spec:
        """Return the spec of token chunks; their length is known once the codec is fitted."""
        return _token_spec(spec, int(self._stat("length")) if self.fitted else spec.chunk, self.vocabulary)

    def _quantise(self, action: Tensor) -> np.ndarray:
        _whole(self.name, action, self.chunk)
        return ((dct_matrix(action.shape[1]) @ action.cpu().float()) * self.scale).round().flatten(1).long().numpy()

    def _stat(self, key: str) -> Tensor:
        if key not in self.stats:
            raise ConfigError("fast_tokens has no merges.", do="fit it on the data")
        return self.stats[key]


@cache
def dct_matrix(size: int) -> Tensor:
    """Return the orthonormal cosine transform [K,K] (type II)."""
    time, frequency = np.arange(size), np.arange(size)[:, None]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (time + 0.5) * frequency / size)
    matrix[0] /= np.sqrt(2)
    return torch.as_tensor(matrix, dtype=torch.float32)


@cache
def spline_matrix(size: int, points: int, degree: int) -> Tensor:
    """Return the values [K,N] of N clamped uniform B-splines at K equal times (Cox–de Boor recursion)."""
    inner = np.linspace(0, 1, points - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    time = np.linspace(0, 1, size)
    span = np.clip(np.searchsorted(knots, time, side="right") - 1, degree, points - 1)
    basis = (span[:, None] == np.arange(len(knots) - 1)).astype(np.float64)
    for order in range(1, degree + 1):
        count = len(knots) - 1 - order
        left, right = knots[order:-1] - knots[:count], knots[order + 1 :] - knots[1 : count + 1]
        rising = np.divide(time[:, None] - knots[:count], left, out=np.zeros((size, count)), where=left > 0)
        falling = np.divide(knots[order + 1 :] - time[:, None], right, out=np.zeros((size, count)), where=right > 0)
        basis = rising * basis[:, :count] + falling * basis[:, 1 : count + 1]
    return torch.as_tensor(basis, dtype=torch.float32)


@cache
def _spline(size: int, points: int, degree: int) -> tuple[Tensor, Tensor]:
    """Return the basis [K,N] and its ridge-regularised least-squares inverse [N,K]."""
    basis = spline_matrix(size, points, degree).double()
    fit = torch.linalg.solve(basis.T @ basis + 1e-6 * torch.eye(points, dtype=torch.float64), basis.T)
    return basis.float(), fit.float()


def _whole(name: str, action: Tensor, chunk: int | None) -> int:
    chunk = _bound(name, chunk)
    if action.shape[1] != chunk:
        raise SpecError(
            f"{name} needs whole chunks.",
            found=f"{action.shape[1]} actions",
            expected=chunk,
            do="use a policy without this codec where a prefix is given",
        )
    return chunk


def _bound(name: str, value: int | None) -> int:
    if value is None:
        raise ConfigError(f"{name} does not know the chunk.", do="bind the pipeline to a spec")
    return value


def _in_range(name: str, action: Tensor) -> None:
    edge = float(action.abs().max()) if action.numel() else 0.0
    if edge > 1.5:
        raise SpecError(
            f"{name} cannot hold these actions.",
            found=f"up to {edge:.3g} after normalisation",
            expected="about -1 to 1",
            do="normalise the action with min_max",
        )


def _token_spec(spec: Spec, length: int, vocabulary: int) -> Spec:
    action = ActionSpec(1, low=(0.0,), high=(vocabulary - 1.0,))
    return replace(spec, action=action, chunk=length)
