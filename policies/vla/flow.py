"""Flow matching by an action expert on the backbone's memory (π0, arXiv 2410.24164; SmolVLA, arXiv 2506.01844)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.nets.backbones import Backbone, Memory, Tokens
from robolearn.nets.expert import ActionExpert, ExpertConfig
from robolearn.policies.common import check_prefix, chunk_mean, prefix_path
from robolearn.policies.flow import PrefixConfig, TimeSampling, sample_guided, sample_times
from robolearn.policies.samplers import Solver, Velocity, integrate
from robolearn.policies.vla.bins import BinTokens
from robolearn.policies.vla.head import Head
from robolearn.policies.vla.tokens import BinsConfig, TokensHead, TokensHeadConfig
from robolearn.spec import Spec

__all__ = ["FlowHead", "FlowHeadConfig"]


@dataclass(frozen=True)
class FlowHeadConfig:
    """`steps` solver steps on one memory; training draws `repeat` noises for each memory.

    With `insulate` no gradient of the flow reaches the backbone; it then learns by predicting the same actions as
    `bins` tokens for each number, with weight `cotrain` (knowledge insulation, arXiv 2505.23705). The expert
    never sees those tokens, and acting does without them.
    """

    name: Literal["flow"] = "flow"
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    steps: int = 10
    solver: Solver = "euler"
    times: TimeSampling = "beta"
    repeat: int = 1
    insulate: bool = False
    cotrain: float = 0.0
    bins: int = 256
    prefix: PrefixConfig = field(default_factory=PrefixConfig)

    def __post_init__(self):
        if self.steps < 1 or self.repeat < 1 or self.cotrain < 0 or self.prefix.name == "warm":
            raise ConfigError(
                "Flow head options are out of range.",
                found=self,
                expected="steps and repeat >= 1, cotrain >= 0, prefix hard or guided",
            )

    @property
    def action_tokens(self) -> int:
        """How many tokens of the backbone's vocabulary stand for actions."""
        return self.bins if self.cotrain else 0

    def build(self, backbone: Backbone, spec: Spec, state: int) -> "FlowHead":
        """Return the head; `state` is the size of the proprioception that it takes (0: none)."""
        return FlowHead(self, backbone, spec, state)


class FlowHead(Head):
    """An action expert with the flow's loss and sampler."""

    def __init__(self, config: FlowHeadConfig, backbone: Backbone, spec: Spec, state: int):
        super().__init__()
        self.config, self.spec = config, spec
        self.expert = ActionExpert(config.expert, backbone, spec.chunk, spec.action.dim)
        self.state = nn.Linear(state, config.expert.width) if state else None
        self.reads_states = config.cotrain > 0
        self.last_read = (len(self.expert.layers) - 1) * self.expert.stride
        self.codec = BinTokens(config.bins, spec.chunk, spec.action.dim)
        options = TokensHeadConfig(tokenizer=BinsConfig(vocabulary=config.bins))
        tokens = self.codec.transform_spec(spec)
        self.tokens = TokensHead(options, backbone, tokens) if config.cotrain else None

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One chunk."""
        return (self.spec.chunk, self.spec.action.dim)

    def extend(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Return the prefix, in training with the action tokens that the backbone learns from."""
        if self.tokens is None or "action" not in batch:
            return tokens
        return self.tokens.extend(tokens, self.codec.forward(batch))

    def loss(self, memory: Memory, state: Tensor | None, batch: Batch) -> Tensor:
        """Return the squared velocity error [B], the mean over `repeat` noises, and what tokens add to it."""
        if self.tokens is None:
            return self._flow_loss(memory, state, batch)
        known = self.codec.forward(batch)
        error = self.tokens.loss(memory, None, known)
        return self._flow_loss(memory.without(known["action"].shape[1]), state, batch) + self.config.cotrain * error

    def _flow_loss(self, memory: Memory, state: Tensor | None, batch: Batch) -> Tensor:
        count = self.config.repeat
        memory = (memory.map(Tensor.detach) if self.config.insulate else memory).repeat(count)
        action = batch["action"].repeat_interleave(count, 0)
        noise = torch.randn_like(action)
        time = sample_times(self.config.times, len(action), action.device)
        x = torch.lerp(noise, action, time[:, None, None])
        state = state if state is None else state.repeat_interleave(count, 0)
        error = (self.velocity(memory, state)(x, time) - (action - noise)).square()
        pad = {"action_is_pad": batch["action_is_pad"].repeat_interleave(count, 0)} if "action_is_pad" in batch else {}
        return chunk_mean(error, pad).unflatten(0, (-1, count)).mean(1)

    def sample(self, memory: Memory, state: Tensor | None, noise: Tensor, prefix: Tensor | None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,K,A]."""
        check_prefix(self.spec, prefix)
        config = self.config
        if prefix is not None and config.prefix.name == "guided":
            with torch.inference_mode(False):  # gradients need ordinary tensors
                memory, state = memory.map(Tensor.clone), state if state is None else state.clone()
            velocity = self.velocity(memory, state)
            return sample_guided(velocity, noise, prefix, config.prefix, config.steps, config.solver)
        return integrate(self.velocity(memory, state), noise, config.steps, config.solver, prefix_path(noise, prefix))

    def velocity(self, memory: Memory, state: Tensor | None) -> Velocity:
        """Return the velocity field, a function of (x [B,K,A], time [B])."""
        extra = None if self.state is None or state is None else self.state(state)

        def evaluate(x: Tensor, time: Tensor) -> Tensor:
            return self.expert(x, time, memory, extra).float()

        return evaluate

    def blocks(self) -> list[nn.Module]:
        """Return the expert's layers."""
        return list(self.expert.layers)
