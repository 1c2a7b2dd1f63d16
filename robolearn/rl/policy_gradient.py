"""Policy gradients through the denoising chain of a flow or diffusion policy, on its own episodes.

DPPO (arXiv 2409.00588) and ReinFlow (arXiv 2505.22094): every step of a noisy chain (`rl.chains`) is Gaussian, so
the chain has an exact likelihood and PPO applies (arXiv 1707.06347, eq. 7). What is deployed is the clone's own
kind of policy with other weights, without the noise of the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.actor import PolicyActor
from robolearn.contracts import Batch, Observations
from robolearn.errors import ConfigError
from robolearn.learner import reseed
from robolearn.rl.advantages import gae, group_advantage
from robolearn.rl.algorithm import Problem
from robolearn.rl.chains import Chain, ChainConfig, gaussian_kl
from robolearn.rl.chunks import ChunkExplorer, chunk_transitions, cloning_batch, decisions, executed_rows, window_of
from robolearn.rl.collect import Trajectory
from robolearn.rl.critics import CriticConfig
from robolearn.rl.learning import Trained
from robolearn.rl.networks import familiar, standardise, state_of
from robolearn.rl.replay import Replay
from robolearn.seeding import derive_seed, generator

__all__ = ["PolicyGradient", "PolicyGradientConfig", "clipped_surrogate"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Advantages: "gae" with a critic, or relative to the episodes that start alike ("group", with rl.group).

    `ratio` clips the chain, every denoising step by itself, or the geometric mean over the numbers of a step: a
    chunk has a hundred, and one update that changes each of them by little leaves any range of their product
    (DPPO's implementation does so, with a `clip` of 0.01). The regulariser pulls to the clone: "kl" of the
    chains, or "cloning", the clone's own loss on demonstrations. `target_kl` ends a round's learning early.
    """

    name: Literal["policy_gradient"] = "policy_gradient"
    chain: ChainConfig = field(default_factory=ChainConfig)
    advantage: Literal["gae", "group"] = "gae"
    regulariser: Literal["none", "kl", "cloning"] = "none"
    strength: float = 0.1  # of the regulariser
    ratio: Literal["step", "chain", "mean"] = "chain"
    clip: float = 0.2
    gamma: float = 0.99  # per environment step
    lam: float = 0.95  # per decision
    epochs: int = 10
    batch_size: int = 128
    actor_rate: float = 1e-5  # a step of Adam must not leave the clipped range of so many dimensions
    critic_rate: float = 1e-3
    critic_rounds: int = 1  # rounds in which only the critic learns
    critics: CriticConfig = field(default_factory=lambda: CriticConfig(heads=2, subset=2))
    target_kl: float = 0.05
    replay: int = 100_000  # steps of demonstrations

    def __post_init__(self):
        if not (0 < self.gamma <= 1 and 0 <= self.lam <= 1 and 0 < self.clip < 1 and self.target_kl > 0):
            raise ConfigError("Rates are out of range.", found=self, expected="gamma, lam, clip within 0 to 1")
        for name in ("epochs", "batch_size", "replay"):
            if getattr(self, name) < 1:
                raise ConfigError(f"algo.{name} is too small.", found=getattr(self, name), expected="1 or more")

    def build(self, problem: Problem) -> "PolicyGradient":
        """Return the algorithm; raises `ConfigError` for a policy whose samples have no likelihood."""
        return PolicyGradient(self, problem)


class _Round(NamedTuple):
    """The D decisions of a round."""

    obs: Batch  # [D,T,…] as the policy is given them
    state: Tensor  # [D,S]
    chain: Tensor  # [D,S+1,K,A]
    log_prob: Tensor  # [D,S] when they were taken
    advantage: Tensor  # [D]
    target: Tensor  # [D] of the critic

    def rows(self, index: Tensor) -> "_Round":
        obs = {key: value[index] for key, value in self.obs.items()}
        rest = (self.state, self.chain, self.log_prob, self.advantage, self.target)
        return _Round(obs, *(value[index] for value in rest))


class PolicyGradient:
    """PPO whose action is a denoising chain."""

    def __init__(self, config: PolicyGradientConfig, problem: Problem):
        _require(config, problem)
        self.config, self.problem = config, problem
        reseed(derive_seed(problem.seed, "init"), _CPU)
        self.chain = Chain(problem.clone.build(), config.chain)
        self.clone = Chain(problem.actor.policy, config.chain)
        self.clone.deviations = self.chain.deviations  # the noise is no part of what was cloned
        self.values = config.critics.build(problem.state_size)
        self.actor = Trained("actor", self.chain, config.actor_rate, clip_norm=1.0)
        self.critic = Trained("values", self.values, config.critic_rate)
        self.recorded = Replay(config.replay)
        self.rounds = 0
        self._scored = torch.ones(self.chain.steps, self.chain.basis.shape[1])
        if not config.chain.cosines:
            self._scored[-1, executed_rows(problem) :] = 0.0  # what is never executed earns nothing
        self._seen: list[Trajectory] = []

    def explorer(self, rows: int, seed: int) -> ChunkExplorer:
        actor = PolicyActor(self.chain, self.problem.actor.pipeline, self.problem.actor.spec)
        return ChunkExplorer(self.problem, rows, seed, actor, self._unscaled)

    def demonstrate(self, trajectory: Trajectory) -> None:
        if self.config.regulariser == "cloning":
            rows = chunk_transitions(self.problem, trajectory, self.config.gamma)
            self.recorded.add({key: rows[key] for key in rows if key.startswith("obs/") or key in ("chunk", "pad")})

    def observe(self, trajectory: Trajectory) -> None:
        self._seen.append(trajectory)

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        if not round_over:
            return {}
        seen, self._seen = self._seen, []
        if self.config.advantage == "group":
            seen = whole_groups(seen, self.problem.group)
        if not seen:
            return {}
        reseed(derive_seed(self.problem.seed, "update", self.rounds), _CPU)
        self.chain.eval()
        metrics = self._learn(self._round(seen))
        self.rounds += 1
        return metrics

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        return self.problem.clone.config["policy"], self.chain.policy

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self.actor.state() | self.critic.state() | self.recorded.state("recorded"), {"rounds": self.rounds}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        self.actor.restore(tensors)
        self.critic.restore(tensors)
        self.recorded.restore(tensors, "recorded")
        self.rounds = int(counters["rounds"])

    def _unscaled(self, window: Observations, noise: np.ndarray) -> np.ndarray:
        """Undo the temperature on what the steps add: their likelihood is that of unit noise."""
        temperature = self.problem.eval.temperature
        return np.concatenate([noise[:, :1], noise[:, 1:] / temperature], 1)

    def _round(self, seen: list[Trajectory]) -> _Round:
        config = self.config
        found = [decisions(trajectory, config.gamma) for trajectory in seen]
        obs = self.problem.actor.encode(_join([window_of(t, d.step) for t, d in zip(seen, found, strict=True)]))
        ends = self.problem.encode(_join([window_of(t, np.array([len(t)])) for t in seen]))
        noise = np.concatenate([t.notes["noise"][d.step] for t, d in zip(seen, found, strict=True)])
        state = state_of(self.problem.actor.policy, obs)
        if not self.rounds:
            standardise(state, self.values)
        with torch.no_grad():
            chain = self.chain.run(obs, torch.from_numpy(noise))
            log_prob = self._log_prob(obs, chain)
            value = self.values.value(state).mean(0).numpy()
            final = self.values.value(torch.from_numpy(ends)).mean(0).numpy()
        bounds = np.cumsum([len(d.step) for d in found])[:-1]
        pairs = [
            gae(d.reward, v, float(end), d.discount, config.lam, t.terminated)
            for t, d, v, end in zip(seen, found, np.split(value, bounds), final, strict=True)
        ]
        advantage, target = (np.concatenate(part) for part in zip(*pairs, strict=True))
        if config.advantage == "group":
            scores = np.array([trajectory.reward.sum() for trajectory in seen]).reshape(-1, self.problem.group)
            advantage = np.repeat(group_advantage(scores).ravel(), [len(d.step) for d in found])
        else:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
        if self.problem.returns is not None:
            target = np.clip(target, *self.problem.returns)
        tensors = [torch.as_tensor(part, dtype=torch.float32) for part in (advantage, target)]
        return _Round(
            {key: value for key, value in obs.items() if torch.is_tensor(value)}, state, chain, log_prob, *tensors
        )

    def _learn(self, data: _Round) -> dict[str, float]:
        config, random = self.config, generator(self.problem.seed, "batch", self.rounds)
        critic = config.advantage == "gae"
        acts = not critic or self.rounds >= config.critic_rounds
        metrics: dict[str, list[float]] = {}
        for _ in range(config.epochs):
            order = torch.from_numpy(random.permutation(len(data.state)))
            for index in order.split(config.batch_size):
                part = data.rows(index)
                found = self._learn_values(part) if critic else {}
                known = part.rows(familiar(part.state))
                if acts and len(known.state):
                    found |= self._learn_actor(known, random)
                    acts = found["approx_kl"] <= config.target_kl
                for name, value in found.items():
                    metrics.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in metrics.items()} | {
            "decisions": float(len(data.state))
        }

    def _learn_values(self, part: _Round) -> dict[str, float]:
        loss, value = self.values.loss(part.state, part.target)
        self.critic.step(loss)
        return {"critic_loss": float(loss.detach()), "value": float(value)}

    def _learn_actor(self, part: _Round, random: np.random.Generator) -> dict[str, float]:
        config = self.config
        steps = self.chain.evaluate(part.obs, part.chain)
        log_prob = self._scores(steps.log_prob(part.chain))
        change = log_prob - part.log_prob
        loss = clipped_surrogate(change, part.advantage, config.clip)
        extra: dict[str, float] = {}
        if config.regulariser == "kl":
            with torch.no_grad():
                before = self.clone.evaluate(part.obs, part.chain)
            kl = gaussian_kl(steps, before).sum(1).mean()
            loss, extra = loss + config.strength * kl, {"clone_kl": float(kl.detach())}
        elif config.regulariser == "cloning":
            rows = self.recorded.gather(random.integers(0, len(self.recorded), config.batch_size))
            cloning = self.chain.policy.loss(cloning_batch(rows))[0].mean()
            loss, extra = loss + config.strength * cloning, {"cloning_loss": float(cloning.detach())}
        self.actor.step(loss)
        with torch.no_grad():
            near = change.clamp(-1, 1)  # one state far from the demonstrations must not end a round
            approx = (near.exp() - 1 - near).mean()
            clipped = ((near.exp() - 1).abs() > config.clip).float().mean()
        return {"actor_loss": float(loss.detach()), "approx_kl": float(approx), "clipped": float(clipped), **extra}

    def _log_prob(self, obs: Batch, chain: Tensor) -> Tensor:
        return self._scores(self.chain.evaluate(obs, chain).log_prob(chain))

    def _scores(self, log_prob: Tensor) -> Tensor:
        """Return log-probabilities [B,S,M] of what counts: summed or averaged by step [B,S], or of the chain [B,1]."""
        by_step = (log_prob * self._scored).sum(-1)
        if self.config.ratio == "mean":
            return by_step / (self._scored.sum(-1) * self.problem.inner.action.dim)
        return by_step.sum(1, keepdim=True) if self.config.ratio == "chain" else by_step


def clipped_surrogate(change: Tensor, advantage: Tensor, clip: float, most: float = 3.0) -> Tensor:
    """Return PPO's loss for log-ratios `change` [B,S] and advantages [B] (arXiv 1707.06347, eq. 7).

    What did badly counts `most` times at most (dual clipping, arXiv 1912.09729, eq. 5): far from the
    demonstrations a small step of the weights changes a likelihood without bound.
    """
    ratio, gain = change.clamp(max=10).exp(), advantage[:, None]
    value = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    return -torch.where(gain < 0, torch.maximum(value, most * gain), value).mean()


def whole_groups(seen: list[Trajectory], group: int) -> list[Trajectory]:
    """Return the episodes of complete groups, sorted: `group` episodes in a row started alike."""
    members: dict[int, list[Trajectory]] = {}
    for trajectory in sorted(seen, key=lambda one: one.episode):
        members.setdefault(trajectory.episode // group, []).append(trajectory)
    return [one for each in members.values() if len(each) == group for one in each]


def _join(windows: list[Observations]) -> Observations:
    return {key: np.concatenate([window[key] for window in windows]) for key in windows[0]}


def _require(config: PolicyGradientConfig, problem: Problem) -> None:
    how = problem.eval
    if how.continuity != "none" or how.delay_steps or not how.temperature:
        raise ConfigError(
            "Policy gradients need chunks that know nothing of the one before, without delay.",
            found=f"continuity {how.continuity}, delay_steps {how.delay_steps}, temperature {how.temperature}",
            expected="continuity none, delay_steps 0, a temperature above 0",
        )
    if config.regulariser == "cloning" and not problem.demonstrated:
        raise ConfigError("There is nothing to clone.", found="no demonstrations", do="set demos.path=DATASET")
    if config.advantage == "group" and problem.group < 2:
        raise ConfigError("A group of one says nothing.", found=problem.group, do="set rl.group=8 or so")
