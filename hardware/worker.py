"""The policy's side of the ring: observations in, stamped chunks out, at the policy's own pace."""

import numpy as np

from robolearn.buffer import ObservationBuffer
from robolearn.contracts import Actor, Corrector
from robolearn.errors import HardwareError
from robolearn.hardware.observe import ActionMap, Reading, observation
from robolearn.hardware.ring import Ring
from robolearn.plan import BlendedPlan, Execution
from robolearn.robots import Arm
from robolearn.seeding import policy_noise

__all__ = ["PolicyWorker"]

_ROW = np.zeros(1, np.int64)


class PolicyWorker:
    """Decides at the actor's rate, as `how` says; chunks carry the time of their observation."""

    def __init__(self, actor: Actor, arm: Arm, chunks: Ring, base_m: np.ndarray, how: Execution, seed: int = 0):
        spec = actor.spec
        if isinstance(actor, Corrector):  # executing its chunks alone would be another policy
            raise HardwareError(
                "This policy corrects its action in every step; chunks are streamed here.",
                found=type(actor).__name__,
                expected="a policy that acts by chunks",
                do="serve it (robolearn serve answers one corrected action a request), or deploy its base",
            )
        self._told, self._temperature = how.told(spec.chunk), np.float32(how.temperature)
        self._blend = BlendedPlan(1, spec.chunk, spec.action.dim, 1.0) if how.continuity == "blend" else None
        self._last: np.ndarray | None = None  # the chunk before, as the policy gave it
        self.actor, self.arm, self.execute, self.seed = actor, arm, how.execute, seed
        self.period_s = 1.0 / spec.rate_hz
        self._chunks, self._base_m = chunks, np.asarray(base_m, float)
        self._actions = ActionMap(spec, arm, self._base_m)
        self._buffer = ObservationBuffer(1, spec.history, self.period_s)
        self._episode, self._step = 0, 0

    def begin(self, episode: int) -> None:
        """Forget the history; noise is that of `episode`."""
        self._buffer.restart(_ROW)
        self._episode, self._step, self._last = episode, 0, None
        if self._blend is not None:
            self._blend.restart(_ROW)

    @property
    def decided(self) -> bool:
        """There is a chunk of this episode."""
        return self._last is not None

    def step(self, reading: Reading) -> np.ndarray | None:
        """Take one observation, once per period; returns the new targets [K,J+1] when a decision was due."""
        values = observation(reading, self.actor.spec, self.arm, self._base_m)
        stamp_ns = reading.state.stamp_ns
        stamp = np.array([self._step * self.period_s])  # the nominal grid: jitter must not shift a history
        self._buffer.append(_ROW, stamp, {key: value[None] for key, value in values.items()})
        self._step += 1
        if (self._step - 1) % self.execute:
            return None
        decision = (self._step - 1) // self.execute
        noise = self._temperature * policy_noise(self.seed, self._episode, decision, self.actor.noise_shape)
        prefix = None
        if self._told and self._last is not None:
            prefix = self._last[None, self.execute : self.execute + self._told]
        chunk = np.asarray(self.actor.act(self._buffer.window(_ROW), noise[None], prefix)[0], float)
        if not np.isfinite(chunk).all():
            raise HardwareError("The policy returned a non-finite action.", do="check the checkpoint")
        self._last = chunk
        if self._blend is not None:
            now = np.array([self._step - 1.0])
            self._blend.splice(_ROW, now, chunk[None])
            chunk = self._blend.remaining(_ROW, now)[0]
        targets = self._actions.joints(chunk, reading.state.position_rad)
        self._chunks.write(stamp_ns, targets)
        return targets
