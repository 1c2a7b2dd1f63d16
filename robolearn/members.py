"""A policy that learned from a mixture of datasets, acting as one of them.

A mixture pads: cameras that a member lacks are black, shorter states and actions end in zeros. What was padded
in training is padded here in the same way, and cut off the actions again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.actor import PolicyActor, load
from robolearn.contracts import Observations
from robolearn.errors import SpecError, suggest
from robolearn.padding import blank, fitted, members_of
from robolearn.spec import Feature, Spec

__all__ = ["MemberActor", "load_member"]


def load_member(
    path: str, member: str, device: str = "cpu", microbatch: int = 16, policy: Mapping[str, Any] | None = None
) -> "PolicyActor | MemberActor":
    """Load a checkpoint to act with, as the `member` of its mixture; as a whole without one."""
    actor = load(path, device, microbatch, policy)
    return MemberActor(actor, member) if member else actor


class MemberActor:
    """An actor with the spec of one member; implements `contracts.Actor`.

    Its observations are padded to those of the mixture, its actions cut to the member's; transforms that know
    their members (`of_member`) use this one's statistics.
    """

    def __init__(self, actor: PolicyActor, member: str):
        own = _spec_of(actor.spec, member)
        transforms = (getattr(t, "of_member", lambda name, t=t: t)(member) for t in actor.pipeline.transforms)
        pipeline = replace(actor.pipeline, transforms=tuple(transforms))
        self._actor = PolicyActor(actor.policy, pipeline, actor.spec, actor.device, actor.microbatch)
        self.spec, self.noise_shape = own, actor.noise_shape

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        """Return chunks [n,K,A] of the member's actions for its histories [n,T,…]."""
        if prefix is not None:
            prefix = fitted(np.asarray(prefix), Feature("signal", (self._actor.spec.action.dim,)))
        return self._actor.act(self._padded(obs, len(noise)), noise, prefix)[..., : self.spec.action.dim]

    def _padded(self, obs: Observations, rows: int) -> Observations:
        result: Observations = {}
        for key, feature in self._actor.spec.observations.items():
            if key not in self.spec.observations:
                result[key] = blank(feature, (rows, self.spec.history))
                continue
            if key not in obs:
                raise SpecError(f"The observations lack '{key}'.", expected=suggest(key, obs))
            given = np.asarray(obs[key])
            wanted = (rows, self.spec.history, *self.spec.observations[key].shape)
            if feature.kind != "text" and given.shape != wanted:
                raise SpecError(f"'{key}' has the wrong shape.", found=given.shape, expected=wanted)
            result[key] = fitted(given, feature)
        return result


def _spec_of(whole: Spec, member: str) -> Spec:
    """Return the spec of `member` with what the policy takes of it."""
    specs = members_of(whole)
    if not specs:
        raise SpecError(
            "The policy does not know the members of a mixture.",
            found=f"member={member}",
            do="leave member out; a policy that learned from a mixture earlier is trained again",
        )
    if member not in specs:
        raise SpecError(f"The mixture has no member '{member}'.", expected=suggest(member, specs))
    foreign = [key for key in whole.observations if not any(key in spec.observations for spec in specs.values())]
    if foreign:
        raise SpecError("The policy takes what no member of the mixture has.", found=foreign)
    own = specs[member]
    kept = own.select(tuple(key for key in whole.observations if key in own.observations))
    return replace(kept, rate_hz=whole.rate_hz, history=whole.history, chunk=whole.chunk)
