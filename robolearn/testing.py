"""Conformance checks: three lines prove a plug-in.

from robolearn.testing import check_env

def test_my_env():
    check_env(lambda num_envs: MyConfig().build(num_envs))

def test_my_policy():
    check_policy(MyPolicyConfig())
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.contracts import Batch, Observations, PolicyConfig, VectorEnv
from robolearn.errors import ConfigError, EnvError, SpecError
from robolearn.seeding import generator
from robolearn.spec import ActionSpec, Feature, Spec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_env", "check_policy"]


def check_env(build: Callable[[int], VectorEnv], steps: int = 12) -> None:
    """Check everything that `contracts.VectorEnv` promises; raises `EnvError` at the first breach.

    Episodes are compared between 1 and 3 rows, so a shared random state or a leak between rows shows.
    """
    env, single = build(3), build(1)
    try:
        _check_observations(env)
        _check_actions(env, steps)
        _check_seeds(env, single, steps)
        _check_reset_mask(env)
        _check_bad_actions(env)
        _check_end(single)
    finally:
        env.close()
        single.close()


def _require(holds: bool, what: str, found: object = None, expected: object = None) -> None:
    if not holds:
        raise EnvError(what, found=found, expected=expected)


def _check_observations(env: VectorEnv) -> None:
    obs, info = env.reset(seed=[1, 2, 3])
    _require(
        set(obs) == set(env.spec.observations), "Observations and spec differ.", set(obs), set(env.spec.observations)
    )
    for key, feature in env.spec.observations.items():
        if feature.kind == "text":
            _require(obs[key].shape == (3,) and obs[key].dtype.kind == "U", f"{key} is not text [E].", obs[key].dtype)
            continue
        _require(obs[key].shape == (3, *feature.shape), f"{key} has another shape.", obs[key].shape, feature.shape)
        _require(str(obs[key].dtype) == feature.dtype, f"{key} has another type.", obs[key].dtype, feature.dtype)
        _require(bool(np.isfinite(obs[key]).all()), f"{key} is not finite.")
        if feature.names:
            _require(len(feature.names) == feature.shape[0], f"{key} has another number of names.", feature.names)
    _require(isinstance(info, dict), "reset returns (obs, info).", type(info), dict)


def _check_actions(env: VectorEnv, steps: int) -> None:
    env.reset(seed=[1, 2, 3])
    for actions in _actions(env, 3, steps):
        obs, reward, terminated, truncated, info = env.step(actions)
        for name, value, kind in (
            ("reward", reward, "f"),
            ("terminated", terminated, "b"),
            ("truncated", truncated, "b"),
            ('info["success"]', info["success"], "b"),
        ):
            value = np.asarray(value)
            _require(value.shape == (3,) and value.dtype.kind == kind, f"{name} is not {kind} [E].", value)
        _require(bool(np.isfinite(reward).all()), "A reward is not finite.", reward)
        kept = {key: value.copy() for key, value in obs.items()}
    env.step(next(_actions(env, 3, 1)))
    _require(_equal(obs, kept), "Observations change after they were returned.", expected="a fresh copy each step")
    try:
        env.step(np.zeros((3, env.spec.action.dim + 1)))
    except EnvError:
        return
    raise EnvError("An action of the wrong shape was accepted.", expected="EnvError")


def _check_seeds(env: VectorEnv, single: VectorEnv, steps: int) -> None:
    """Episode 22 does the same in row 0, in row 2 and alone."""
    trials = [_episode(env, [22, 5, 6], 0, steps), _episode(env, [7, 8, 22], 2, steps)]
    trials.append(_episode(single, [22], 0, steps))
    for other in trials[1:]:
        for step, (one, two) in enumerate(zip(trials[0], other, strict=True)):
            _require(_equal(one, two), f"Step {step} of one seed differs between rows.", expected="equal bits")
    different = _episode(single, [23], 0, 0)
    _require(not _equal(trials[0][0], different[0]), "Two seeds start the same episode.", expected="another start")


def _check_reset_mask(env: VectorEnv) -> None:
    env.reset(seed=[1, 2, 3])
    before = env.step(next(_actions(env, 3, 1)))[0]
    mask = np.array([False, True, False])
    after, _ = env.reset(seed=[None, 9, None], options={"reset_mask": mask})
    _require(_equal(_row(before, 0), _row(after, 0)), "reset_mask did not leave a row alone.")
    _require(not _equal(_row(before, 1), _row(after, 1)), "reset_mask did not reset its row.")


def _check_bad_actions(env: VectorEnv) -> None:
    env.reset(seed=[1, 2, 3])
    actions = next(_actions(env, 3, 1))
    actions[0], actions[1] = np.nan, 1e30
    obs, reward, terminated, _, info = env.step(actions)
    _require(bool(terminated[0]), "A NaN action did not end its episode.", expected="terminated")
    _require(bool(info["diverged"][0]) and not info["success"][0], 'A NaN action needs info["diverged"].')
    for key, value in obs.items():
        if value.dtype.kind == "f":
            _require(bool(np.isfinite(value).all()), f"{key} is not finite after a bad action.")
    _require(bool(np.isfinite(reward).all()), "A reward is not finite after a bad action.", reward)
    again = env.step(next(_actions(env, 3, 1)))
    _require(_equal(_row(obs, 0), _row(again[0], 0)), "A row that is done moved.", expected="frozen until reset")
    _require(again[1][0] == 0.0, "A row that is done earned a reward.", again[1][0], 0.0)


def _check_end(env: VectorEnv) -> None:
    """An episode is over after `max_episode_steps` at the latest, as truncated unless terminated."""
    env.reset(seed=[1])
    hold = next(_actions(env, 1, 1))
    for step in range(1, env.max_episode_steps + 1):
        _, _, terminated, truncated, _ = env.step(hold)
        if terminated[0]:
            _require(not truncated[0], "An episode was both terminated and truncated.")
            return
        _require(bool(truncated[0]) == (step == env.max_episode_steps), "Truncated at the wrong step.", step)


def _actions(env: VectorEnv, rows: int, steps: int) -> Iterator[np.ndarray]:
    low, high = env.spec.action.low, env.spec.action.high
    if low is None or high is None:
        raise EnvError("The action spec has no bounds.", expected="low and high, for random actions")
    draw = generator("check", rows)
    for _ in range(steps):
        same = draw.uniform(np.array(low), np.array(high))
        yield np.tile(same, (rows, 1))


def _episode(env: VectorEnv, seeds: list[int], row: int, steps: int) -> list[Observations]:
    obs, _ = env.reset(seed=seeds)
    later = (env.step(np.repeat(actions, len(seeds), 0))[0] for actions in _actions(env, 1, steps))
    return [_row(obs, row), *(_row(seen, row) for seen in later)]


def _row(obs: Observations, row: int) -> Observations:
    return {key: value[row].copy() for key, value in obs.items()}


def _equal(one: Observations, two: Observations) -> bool:
    return all(np.array_equal(one[key], two[key]) for key in one)


def check_policy(config: PolicyConfig, spec: Spec | None = None) -> None:
    """Check everything that `contracts.Policy` promises; raises `ConfigError` at the first breach.

    `spec` is what the network is given, after the transforms (three numbers in, two out where it is None).
    """
    import torch  # an environment is checked without it

    spec = spec or Spec({"observation.state": Feature("signal", (3,))}, ActionSpec(2), 20.0)
    spec = replace(spec, history=config.history, chunk=config.chunk)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy: Any = config.build(spec)
        batch = _random_batch(policy.spec)
        _check_loss(policy, batch)
        with torch.no_grad():
            chunk = _check_sample(policy.eval(), batch)
            _check_prefix(policy, batch, chunk)
            _check_meta(config, spec, policy, batch, chunk)


def _hold(holds: bool, what: str, found: object = None, expected: object = None) -> None:
    if not holds:
        raise ConfigError(f"The policy breaks its contract: {what}", found=found, expected=expected)


def _random_batch(spec: Spec, rows: int = 4) -> Batch:
    import torch

    batch: Batch = {}
    for key, feature in spec.observations.items():
        times = () if feature.kind == "text" else (spec.history,)
        batch[key] = torch.rand(rows, *times, *feature.shape)
    batch["action"] = torch.rand(rows, spec.chunk, spec.action.dim) * 2 - 1
    batch["action_is_pad"] = torch.zeros(rows, spec.chunk, dtype=torch.bool)
    return batch


def _noise(policy: Any, seed: int, rows: int = 4) -> "Tensor":
    import torch

    return torch.randn(rows, *policy.noise_shape, generator=torch.Generator().manual_seed(seed))


def _check_loss(policy: Any, batch: Batch) -> None:
    loss, metrics = policy.loss(batch)
    _hold(tuple(loss.shape) == (4,), "loss is not one number per sample.", tuple(loss.shape), (4,))
    _hold(bool(loss.isfinite().all()), "loss is not finite.", loss)
    kept = [name for name, value in metrics.items() if value.requires_grad]
    _hold(not kept, "metrics carry gradients.", kept, "detached values")
    loss.mean().backward()
    named = dict(policy.named_parameters())
    idle = [name for name, value in named.items() if value.requires_grad and value.grad is None]
    _hold(not idle, "parameters that the loss does not reach.", idle[:5], "requires_grad=False, or none")
    if hasattr(policy, "param_groups"):
        grouped = sorted(id(value) for group in policy.param_groups() for value in group["params"])
        wanted = sorted(id(value) for value in named.values() if value.requires_grad)
        _hold(grouped == wanted, "param_groups() does not name every parameter once.", len(grouped), len(wanted))


def _check_sample(policy: Any, batch: Batch) -> "Tensor":
    import torch

    obs = {key: value for key, value in batch.items() if not key.startswith("action")}
    chunk = policy.sample(obs, _noise(policy, 1))
    shape = (4, policy.spec.chunk, policy.spec.action.dim)
    _hold(tuple(chunk.shape) == shape, "sample gives another shape.", tuple(chunk.shape), shape)
    _hold(bool(chunk.isfinite().all()), "sample is not finite.")
    torch.manual_seed(99)
    again = policy.sample(obs, _noise(policy, 1))
    _hold(torch.equal(chunk, again), "sample draws numbers of its own.", expected="a function of its noise")
    if tuple(policy.noise_shape) != (0,):
        other = policy.sample(obs, _noise(policy, 2))
        _hold(not torch.equal(chunk, other), "sample ignores its noise.", expected="noise_shape (0,)")
    return chunk


def _check_prefix(policy: Any, batch: Batch, chunk: "Tensor") -> None:
    """A prefix is kept, or refused as an error of the spec."""
    import torch

    prefix = chunk[:, :1] * 0 + 0.25
    try:
        continued = policy.sample(batch, _noise(policy, 1), prefix)
    except SpecError:
        return
    kept = torch.allclose(continued[:, :1], prefix, atol=1e-5)
    _hold(kept, "the prefix is not kept.", continued[0, 0].tolist(), prefix[0, 0].tolist())


def _check_meta(config: PolicyConfig, spec: Spec, policy: Any, batch: Batch, chunk: "Tensor") -> None:
    """A network built without memory takes the weights and acts the same: that is how checkpoints are read."""
    import torch

    with torch.device("meta"):
        empty: Any = config.build(spec)
    empty.load_state_dict(policy.state_dict(), assign=True)
    left = [name for name, value in empty.named_buffers() if value.is_meta]
    _hold(not left, "buffers that a checkpoint does not fill.", left, "persistent buffers")
    again = empty.eval().sample(batch, _noise(policy, 1))
    _hold(torch.equal(chunk, again), "the weights alone do not give the same actions.", expected="no other state")
