"""Recorded actions run again in an environment: do they still succeed, and how far does it drift?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robolearn.api import make_env
from robolearn.config import parse
from robolearn.contracts import EpisodeSource, VectorEnv
from robolearn.data.detect import OpenOptions
from robolearn.data.frames import metadata_of
from robolearn.data.reexpress import Reexpressed
from robolearn.data.views import succeeded
from robolearn.errors import ConfigError, DataError, SpecError

__all__ = ["ReplayOptions", "replay"]


@dataclass(frozen=True)
class ReplayOptions(OpenOptions):
    """Where and what is replayed. `through` re-expresses the actions in that space and back before they run."""

    env: str = ""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    episodes: tuple[int, ...] | None = None  # the first ten without
    through: Literal["", "joint_position", "ee_pose", "ee_delta"] = ""
    arm: str = ""
    seed: int | None = None  # of episodes that do not say theirs


def replay(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run recorded actions in a matching environment; says which succeed and how far observations drift."""
    given = parse(ReplayOptions, arguments, where="data replay")
    if not given.env:
        raise ConfigError("An environment is missing.", expected="env=NAME", do="see robolearn list")
    source = given.open()
    actions = source
    if given.through:
        kind = source.spec.action.kind
        if kind not in ("joint_position", "ee_pose", "ee_delta"):
            raise SpecError("These actions cannot be re-expressed.", found=kind or "not stated")
        actions = Reexpressed(Reexpressed(source, given.through, given.arm), kind, given.arm)
    chosen = list(range(min(len(source.lengths), 10))) if given.episodes is None else list(given.episodes)
    unknown = [episode for episode in chosen if not 0 <= episode < len(source.lengths)]
    if unknown or not chosen:
        raise DataError("These episodes are not there.", found=unknown, expected=f"0 … {len(source.lengths) - 1}")
    env = make_env(given.env, 1, given.env_options)
    try:
        _require_match(env, source)
        episodes = {str(episode): _run(env, source, actions, episode, given.seed) for episode in chosen}
    finally:
        env.close()
    drifts = [drift for item in episodes.values() for drift in item["drift"].values()]
    return {
        "path": given.path,
        "env": given.env,
        "succeeded": sum(item["success"] for item in episodes.values()),
        "of": len(chosen),
        "largest_drift": max(drifts, default=0.0),
        "episodes": episodes,
    }


def _require_match(env: VectorEnv, source: EpisodeSource) -> None:
    wanted, given = env.spec.action, source.spec.action
    differs = [
        f"{fact}: {getattr(given, fact)} instead of {getattr(wanted, fact)}"
        for fact in ("dim", "kind", "rotation", "gripper", "unit", "frame")
        if getattr(given, fact) and getattr(wanted, fact) and getattr(given, fact) != getattr(wanted, fact)
    ]
    if abs(env.spec.rate_hz - source.spec.rate_hz) > 1e-6:
        differs.append(f"rate_hz: {source.spec.rate_hz:g} instead of {env.spec.rate_hz:g}")
    if differs:
        raise SpecError(
            "The recorded actions are not this environment's.", found="; ".join(differs), do="convert or resample them"
        )


def _run(
    env: VectorEnv, source: EpisodeSource, actions: EpisodeSource, episode: int, default: int | None
) -> dict[str, Any]:
    facts = metadata_of(source, episode)
    seed = facts.get("seed", default)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise DataError(f"Episode {episode} does not say its seed.", do="give seed=… when all start alike")
    obs, _ = env.reset(seed=[seed])
    keys = [key for key, f in source.spec.observations.items() if f.kind == "signal" and key in obs]
    recorded = source.read(episode, keys)
    drift, success, steps = dict.fromkeys(keys, 0.0), False, 0
    for step, action in enumerate(actions.read(episode, ["action"])["action"]):
        for key in keys:
            if recorded[key][step].shape != obs[key][0].shape:
                raise SpecError(f"'{key}' has another shape in the environment.", found=obs[key][0].shape)
            drift[key] = max(drift[key], float(np.abs(recorded[key][step] - obs[key][0]).max(initial=0)))
        obs, _, terminated, truncated, info = env.step(action[None])
        success, steps = success or bool(info["success"][0]), step + 1
        if terminated[0] or truncated[0]:
            break
    result = {"seed": seed, "success": success, "steps": steps, "frames": int(source.lengths[episode]), "drift": drift}
    if "success" in facts:
        result["recorded_success"] = succeeded(source, episode)
    return result
