"""The small protocols between the rooms. Each has a conformance check in `robolearn.testing`.

Shape letters, everywhere: B batch, E environments, T history, K chunk, A action, S state,
N tokens, D width, C H W image. Tensors that are normalised end in `_n`.
Flow time: t=0 is noise, t=1 is data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from robolearn.spec import Spec

if TYPE_CHECKING:
    import torch

__all__ = [
    "Actor",
    "Batch",
    "Controller",
    "Corrector",
    "EpisodeSink",
    "EpisodeSource",
    "Expert",
    "Narrator",
    "Observations",
    "Policy",
    "PolicyConfig",
    "Robot",
    "RobotState",
    "Scene",
    "Transform",
    "VectorEnv",
    "WindowSource",
]

Observations = dict[str, np.ndarray]  # batched: every value has a leading [E]; text is a str array
Batch = dict[str, Any]  # tensors with a leading [B]; "task" is a list of B strings


# ---------------------------------------------------------------- data


@runtime_checkable
class EpisodeSource(Protocol):
    """Recorded episodes, read by number."""

    spec: Spec

    @property
    def lengths(self) -> np.ndarray:
        """Frames per episode, int64 [episodes]."""

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys`, each with a leading time axis.

        Keys are the spec's observations, "action", and what else was recorded ("timestamp",
        "next.reward", "next.success", …). "task" gives a str array.
        """


@runtime_checkable
class EpisodeSink(Protocol):
    """Where episodes are written; an episode is durable when `save_episode` returns."""

    spec: Spec

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Append one time step: observations, "action", "task" and optional extras."""

    def save_episode(self, metadata: Mapping[str, Any] | None = None) -> int:
        """Commit the frames added since the last call; returns the episode's number."""

    def discard_episode(self) -> None:
        """Forget the frames added since the last commit."""

    def close(self) -> None:
        """Finish the dataset on disk; it is complete and readable afterwards."""


@runtime_checkable
class WindowSource(Protocol):
    """Training samples: one window (history and action chunk) per recorded step."""

    spec: Spec  # with history and chunk set

    def __len__(self) -> int: ...

    def gather(self, index: np.ndarray) -> Batch:
        """Return the windows `index` [B]: observations [B,T,…], "action" [B,K,A],
        "action_is_pad" bool [B,K], "task" list of B strings when there is one.

        Windows never cross episodes; the start repeats the first frame, the end the last action.
        Values are torch tensors over raw units (images uint8 [B,T,H,W,C]).
        """


# ---------------------------------------------------------------- policies


class Transform(Protocol):
    """One paired, serialisable processing step between raw units and the network.

    Frozen dataclass of plain data (it is saved in the checkpoint's `transforms.json` under its
    registered `name`); arrays that it learned from data live in `stats`.
    """

    name: str

    def forward(self, batch: Batch) -> Batch:
        """Return a new batch; handles batches with and without "action"."""

    def inverse(self, action: "torch.Tensor", batch: Batch) -> "torch.Tensor":
        """Undo `forward` on an action chunk [B,K,A]; `batch` is what `forward` was given."""

    def transform_spec(self, spec: Spec) -> Spec:
        """Return the spec of what `forward` gives."""


class Policy(Protocol):
    """A `torch.nn.Module` over normalised tensors."""

    spec: Spec  # of what it is fed after the transforms; history T and chunk K

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the explicit noise of one decision (without B); (0,) when none is needed."""

    def loss(self, batch: Batch) -> tuple["torch.Tensor", dict[str, "torch.Tensor"]]:
        """Return the per-sample loss [B] and detached metrics; padded actions do not count."""

    def sample(self, obs: Batch, noise: "torch.Tensor", prefix: "torch.Tensor | None" = None) -> "torch.Tensor":
        """Return action chunks [B,K,A] from `noise` [B,*noise_shape].

        `prefix` [B,P,A] are the first P actions that are already committed (real-time chunking).
        """


class PolicyConfig(Protocol):
    """Frozen options of one policy; `build` never loads weights and works on the meta device."""

    name: str
    history: int
    chunk: int

    def transforms(self, spec: Spec) -> Sequence[Transform]:
        """Return the unfitted transforms from the dataset's spec to the network's."""

    def build(self, spec: Spec) -> Policy:
        """Return the network for `spec`, the spec after the transforms."""


class Actor(Protocol):
    """A policy with its transforms, in real units: what a checkpoint loads to."""

    spec: Spec  # raw observations, action, rate, history T, chunk K
    noise_shape: tuple[int, ...]

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        """Return chunks [n,K,A] for histories `obs` [n,T,…] and `noise` [n,*noise_shape]."""


@runtime_checkable
class Corrector(Protocol):
    """A capability of actors: their policy looks at every observation, not only at those it decides from."""

    def correct(self, obs: Observations, action: np.ndarray) -> np.ndarray:
        """Return better actions [n,A] than the chunk's `action` [n,A], for histories `obs` [n,T,…]."""


# ---------------------------------------------------------------- environments


@runtime_checkable
class VectorEnv(Protocol):
    """gymnasium's vector environment with autoreset DISABLED, plus a spec.

    Environment rows restart only through `reset(seed=…, options={"reset_mask": …})`. What an
    episode does is a function of its seed and its actions only.
    """

    spec: Spec
    num_envs: int
    max_episode_steps: int

    def reset(
        self, *, seed: Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Reset the rows of `options["reset_mask"]` (all without one) with one seed per row.

        `options["episode"]` [E] numbers the episodes, for environments that start from a stored list.
        """

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Return (obs, reward [E], terminated [E], truncated [E], info) with `info["success"]` bool [E].

        Rows that are done stay frozen until they are reset. A diverged row is terminated with
        `info["diverged"]` and is never a success.
        """

    def render(self, row: int = 0) -> np.ndarray:
        """Return a picture (H, W, 3) uint8 of one row."""

    def close(self) -> None: ...


@runtime_checkable
class Expert(Protocol):
    """A scripted demonstrator bound to one environment (`env.expert()`)."""

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        """Start new episodes on `rows`."""

    def act(self) -> np.ndarray:
        """Return actions [E,A] for the environment's present state."""


@runtime_checkable
class Narrator(Protocol):
    """A capability of experts: they say what they see and are about to do."""

    def say(self) -> np.ndarray:
        """Return a text for each row, str [E], about the environment's present state."""


@runtime_checkable
class Scene(Protocol):
    """One steppable robot scene, for the twin: joint targets in, joint state and pixels out."""

    joint_names: tuple[str, ...]
    dt_s: float

    def reset(self, seed: int) -> None: ...

    def step(self, target_rad: np.ndarray, gripper_m: float) -> None:
        """Advance `dt_s` towards joint targets [rad] and a finger opening [m]."""

    def state(self) -> "RobotState": ...

    def image(self, camera: str) -> np.ndarray:
        """Return (H, W, 3) uint8 of a named camera."""


class Controller(Protocol):
    """Who drives the rows of a rollout: a policy, a scripted expert, a random baseline."""

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        """Start `episodes` on `rows` from their first observation."""

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        """Return actions [E,A]; rows that are not `active` [E] may hold anything finite."""


# ---------------------------------------------------------------- hardware


@dataclass(frozen=True)
class RobotState:
    """One reading. Stamps are monotonic nanoseconds at capture; joints follow `names`."""

    stamp_ns: int
    names: tuple[str, ...]
    position_rad: np.ndarray
    velocity_rad_s: np.ndarray
    gripper_m: float | None = None


@runtime_checkable
class Robot(Protocol):
    """An arm: connect, read, send, close."""

    spec: Spec

    def connect(self) -> None: ...

    def read(self) -> RobotState: ...

    def send(self, positions_rad: np.ndarray, stamp_ns: int) -> np.ndarray:
        """Stream a set-point [A] or a chunk [K,A] that starts at `stamp_ns`; returns what was sent."""

    def close(self) -> None: ...
