"""Past-token prediction: long histories that do not confuse a policy (PTP, arXiv 2505.09561).

The inner policy samples the last P actions together with the next K from T observations alone, so that it has to
keep what it did in mind (section 4.1). Acting draws several such chunks and keeps the one whose past is nearest
to what was really executed (self-verification, section 4.3). With `embed_images` of the inner policy every
picture is embedded once, whatever T is (section 4.2).
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch, Transform
from robolearn.errors import ConfigError, SpecError
from robolearn.past import PAST_ACTION
from robolearn.policies.common import ChunkConfig, WrapperConfig, check_prefix, pin_prefix
from robolearn.policies.ranked import repeat_rows, take_best
from robolearn.registry import configure
from robolearn.spec import Spec
from robolearn.transforms.normalize import Normalize

__all__ = ["PastTokenConfig", "PastTokenPolicy"]


@dataclass(frozen=True)
class PastTokenConfig(WrapperConfig):
    """`policy` holds the options of the policy that samples; `past` is P, at most its history; `samples` candidates."""

    name: Literal["ptp"] = "ptp"
    policy: dict[str, Any] = field(default_factory=lambda: {"name": "flow", "history": 16})
    past: int = 8
    samples: int = 4

    def __post_init__(self):
        inner = self.inner()
        if not 1 <= self.past <= inner.history or self.samples < 1:
            raise ConfigError(
                "Past tokens are actions of the history.",
                found=f"past {self.past}, history {inner.history}, samples {self.samples}",
                expected="1 <= past <= history, samples >= 1",
            )

    @property
    def past_actions(self) -> bool:
        """The training windows and the runner add what was executed to the observations."""
        return True

    def transforms(self, spec: Spec) -> list[Transform]:
        """Return the transforms of the inner policy; past actions are scaled to [-1, 1]."""
        return [
            replace(step, modes={**step.modes, PAST_ACTION: "min_max"}) if isinstance(step, Normalize) else step
            for step in self.inner().transforms(spec)
        ]

    def build(self, spec: Spec) -> "PastTokenPolicy":
        """Return the policy for `spec`."""
        return PastTokenPolicy(self, self.inner(), spec)

    def inner(self) -> ChunkConfig:
        """Return the config of the policy that samples past and future."""
        inner = configure("policy", self.policy, "policy.policy")
        if not isinstance(inner, ChunkConfig) or inner.spline:
            raise ConfigError(
                "Past tokens need a policy over actions.",
                found=f"'{self.policy['name']}'" + (" with a spline" if isinstance(inner, ChunkConfig) else ""),
                expected="flow, diffusion, beso, meanflow or regression, without a spline",
            )
        return inner


class PastTokenPolicy(nn.Module):
    """Trains and samples the inner policy over chunks [B,P+K,A]."""

    def __init__(self, config: PastTokenConfig, inner: ChunkConfig, spec: Spec):
        super().__init__()
        seen = {key: feature for key, feature in spec.observations.items() if key != PAST_ACTION}
        size = spec.observations[PAST_ACTION].shape[0] - 1 if PAST_ACTION in spec.observations else 0
        if size != spec.action.dim:
            raise SpecError(
                "Past actions do not fit the chunk.",
                found=f"{size} entries in '{PAST_ACTION}'",
                expected=f"{spec.action.dim}, as in the action after its transforms",
            )
        self.config, self.chunk = config, inner.chunk
        chunk_config: Any = replace(inner, chunk=config.past + inner.chunk)
        self.policy: Any = chunk_config.build(replace(spec, observations=seen))
        self.spec = replace(spec, history=inner.history, chunk=inner.chunk)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The noise of every candidate; none where the inner policy needs none."""
        inner = self.policy.noise_shape
        return inner if inner == (0,) else (self.config.samples, *inner)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the inner policy over past and future actions [B], without steps before the episode."""
        past, given = self._past(batch)
        pad = batch.get("action_is_pad")
        pad = torch.zeros(batch["action"].shape[:2], dtype=torch.bool, device=past.device) if pad is None else pad
        changed = {"action": torch.cat([past, batch["action"]], 1), "action_is_pad": torch.cat([~given, pad], 1)}
        return self.policy.loss({key: value for key, value in batch.items() if key != PAST_ACTION} | changed)

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return the chunk [B,K,A] of N candidates, from `noise` [B,N,…], that remembers the past best."""
        check_prefix(self.spec, prefix)
        past, given = self._past(obs)
        inputs = {key: value for key, value in obs.items() if key != PAST_ACTION}
        if self.policy.noise_shape == (0,):
            chosen = self.policy.sample(inputs, noise)
        else:
            count, samples = noise.shape[:2]
            flat = self.policy.sample(repeat_rows(inputs, samples), noise.flatten(0, 1))
            chunks = flat.unflatten(0, (count, samples))
            error = (chunks[:, :, : self.config.past] - past[:, None]).square().sum(-1)
            chosen = take_best(chunks, -(error * given[:, None]).sum(-1))
        return pin_prefix(chosen[:, self.config.past :], prefix)

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks of the inner policy."""
        return self.policy.blocks()

    def param_groups(self) -> Any:
        """Return the parameter groups of the inner policy."""
        return self.policy.param_groups()

    def _past(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the last P actions [B,P,A] and which of them there are [B,P]."""
        if PAST_ACTION not in batch:
            raise SpecError(f"The batch lacks '{PAST_ACTION}'.", expected="what the runner executed, step by step")
        executed = batch[PAST_ACTION][:, -self.config.past :]
        return executed[..., :-1], executed[..., -1] > 0
