"""Normalisation in a mixture: every window by the statistics of the dataset that it is from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from robolearn.contracts import Batch
from robolearn.errors import DataError, SpecError, suggest
from robolearn.padding import members_of
from robolearn.spec import Spec
from robolearn.stats import Accumulator, lookup

if TYPE_CHECKING:
    import torch

__all__ = ["NormalizeEach"]


@dataclass(frozen=True)
class NormalizeEach:
    """Scale every signal and the action by the statistics of the dataset that a window is from.

    `quantile` takes 1 % to 99 % to [-1, 1], `mean_std` to unit variance. Without `dataset_index`, as on a
    robot, those of the member `deploy` serve (the first that acts without a name).
    """

    members: tuple[str, ...] = ()
    deploy: str = ""
    mode: Literal["quantile", "mean_std"] = "quantile"
    floor: float = 1e-4
    name: str = "normalize_each"
    stats: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    on_device: ClassVar[bool] = True

    @property
    def fitted(self) -> bool:
        return bool(self.stats)

    def bind(self, spec: Spec) -> "NormalizeEach":
        known = members_of(spec)
        members = self.members or tuple(known)
        if not members:
            raise SpecError("normalize_each needs a mixture.", do="use normalize for a single dataset")
        acting = [name for name in members if name not in known or known[name].action.dim] or list(members)
        if self.deploy and self.deploy not in acting:
            raise SpecError(f"normalize_each: no member '{self.deploy}'.", expected=suggest(self.deploy, acting))
        return replace(self, members=members, deploy=self.deploy or acting[0])

    def of_member(self, name: str) -> "NormalizeEach":
        """Return the transform that serves `name` where a batch does not say its dataset."""
        return replace(self, deploy=name)

    def fit(self, batches: Iterable[Batch]) -> "NormalizeEach":
        import torch

        found: dict[tuple[int, str], Accumulator] = {}
        for batch in batches:
            number = lookup(batch, "dataset_index")
            for key in _signals(batch):
                for member in number.unique().tolist():
                    rows = batch[key][number == member]
                    real = ~batch["action_is_pad"][number == member]
                    # Actions that a member does not have are zeros that stay zeros, as signals that it lacks.
                    rows = rows[real] if key == "action" and real.any() else rows.flatten(0, 1)
                    found.setdefault((member, key), Accumulator(key)).update(rows.numpy())
        stats = {}
        for key in {key for _, key in found}:
            results = [found[member, key].result() for member in range(len(self.members)) if (member, key) in found]
            if len(results) != len(self.members):
                raise DataError(
                    "A member of the mixture has no windows to learn from.", found=f"{len(results)} members"
                )
            pairs = [(r.mean, r.std) if self.mode == "mean_std" else _middle(r.q01, r.q99) for r in results]
            centres, scales = (np.stack(part).astype(np.float32) for part in zip(*pairs, strict=True))
            stats[f"{key}/centre"] = torch.from_numpy(centres)
            stats[f"{key}/scale"] = torch.from_numpy(np.where(scales < self.floor, 1, scales).astype(np.float32))
        return replace(self, stats=stats)

    def forward(self, batch: Batch) -> Batch:
        result = dict(batch)
        for key in self._learned():
            if key in batch or key != "action":
                value = lookup(batch, key)
                centre, scale = self._affine(key, batch, value)
                result[key] = (value - centre) / scale
        return result

    def inverse(self, action: "torch.Tensor", batch: Batch) -> "torch.Tensor":
        centre, scale = self._affine("action", batch, action)
        return action * scale + centre

    def transform_spec(self, spec: Spec) -> Spec:
        learned = {key for key, feature in spec.observations.items() if feature.kind == "signal"}
        observations = {
            key: replace(feature, unit="") if key in learned else feature for key, feature in spec.observations.items()
        }
        return replace(spec, observations=observations, action=replace(spec.action, unit="", low=None, high=None))

    def _learned(self) -> list[str]:
        return [name.removesuffix("/centre") for name in self.stats if name.endswith("/centre")]

    def _affine(self, key: str, batch: Batch, value: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        import torch

        number = batch.get("dataset_index")
        if number is None:
            number = torch.full((len(value),), self.members.index(self.deploy))
        tables = [lookup(self.stats, f"{key}/{part}").to(value.device) for part in ("centre", "scale")]
        centre, scale = (table[number.to(value.device)].unsqueeze(1) for table in tables)
        return centre, scale


def _signals(batch: Batch) -> list[str]:
    kinds = [key for key in batch if key == "action" or (key.startswith("observation") and not key.endswith("_is_pad"))]
    return [key for key in kinds if batch[key].dtype.is_floating_point]


def _middle(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (low + high) / 2, (high - low) / 2
