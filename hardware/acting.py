"""A policy acts on a robot; a human beside it may take over, rewind, correct and hand back."""

from typing import Any

import numpy as np

from robolearn.contracts import Actor
from robolearn.errors import HardwareError
from robolearn.hardware.deploy import RobotConfig
from robolearn.hardware.observe import Reading
from robolearn.hardware.record import EpisodeWriter, Recorded
from robolearn.hardware.safety import Mode
from robolearn.hardware.sessions import MOVING, Session, SinkOpener, open_session, recording, show
from robolearn.hardware.teleop import Device, Jog, Twist
from robolearn.hardware.worker import PolicyWorker
from robolearn.interventions import HUMAN, POLICY, REWIND
from robolearn.plan import Execution
from robolearn.rollout import episode_seed

__all__ = ["rollout"]

_REWIND_S = 1.5


def rollout(
    config: RobotConfig,
    actor: Actor,
    how: Execution,
    episodes: int,
    max_steps: int,
    seed: int = 0,
    device: Device | None = None,
    open_sink: SinkOpener | None = None,
    task: str = "",
    simulated: bool = False,
    action: Recorded = "joint_position",
    first: int = 0,
) -> dict[str, Any]:
    """Let a policy act; a human with a `device` may take over, rewind, correct, mark success, discard and hand back.

    An arm that holds, because of what the policy asked for, waits for the human to take over; without one the
    episode is over, and its `problem` says why.

    On the twin every episode starts as the simulation's episode of the same number does, and the
    scene says whether the task was done; on a real arm the device's marks do. `first` numbers the episodes.
    """
    outcomes = []
    with open_session(config, actor.spec.chunk, 1.0 / actor.spec.rate_hz, simulated) as session:
        base_m = np.array(config.base_m)
        worker = PolicyWorker(actor, session.arm_constants, session.chunks, base_m, how, seed)
        sink = open_sink(recording(session, actor.spec.rate_hz, action)) if open_sink else None
        try:
            for episode in range(first, first + episodes):
                if session.twin is not None:
                    session.reset_twin(episode_seed(seed, episode))
                writer = EpisodeWriter(sink, task, session.arm_constants, base_m) if sink is not None else None
                outcomes.append(_Episode(session, worker, device, writer, task, max_steps).run(episode))
                session.rest()
            status = session.status()
        finally:
            if sink is not None:
                sink.close()
    successes = sum(outcome["success"] for outcome in outcomes)
    return {"episodes": outcomes, "successes": successes, "trials": len(outcomes), "status": status}


class _Episode:
    """One episode, step by step: who acts, what was asked for, where the arm was sent before."""

    def __init__(
        self,
        session: Session,
        worker: PolicyWorker,
        device: Device | None,
        writer: EpisodeWriter | None,
        task: str,
        max_steps: int,
    ):
        self._session, self._worker, self._device, self._writer = session, worker, device, writer
        self._task, self._max_steps = task, max_steps
        size = session.chunks.shape[0]
        self._jog = Jog(session.arm_constants, worker.period_s, size, session.config.jog_m_s)
        self._who, self._interventions, self._human_steps = POLICY, 0, 0
        self._targets: np.ndarray | None = None  # the chunk being followed, and the step it began at
        self._since, self._steps, self._success, self._discarded = 0, 0, False, False
        self._problem = ""  # the last thing that the policy asked for in vain
        self._past: list[np.ndarray] = []  # targets of every step so far, less what was rewound

    def run(self, episode: int) -> dict[str, Any]:
        """Act until success, a mark, the last step or a hold that nobody takes over; returns the outcome."""
        self._number = episode
        self._worker.begin(episode)
        self._session.request("arm")
        self._session.every(self._worker.period_s, self._work)
        if self._writer is not None and self._discarded:
            self._writer.discard()
        elif self._writer is not None:
            self._writer.save(self._success)
        return {
            "episode": episode,
            "success": self._success,
            "steps": self._steps,
            "interventions": self._interventions,
            "human_steps": self._human_steps,
            "mode": self._session.status()["mode"],
            "problem": self._problem,
        }

    def _work(self, step: int) -> bool:
        twist = self._device.read() if self._device is not None else Twist()
        reading = self._session.reading(self._task)
        self._change(twist.mark, reading)
        moving = self._session.mode() in MOVING
        targets = self._decide(twist, reading) if moving else None
        if targets is not None:
            self._targets, self._since = targets, step
        if moving and self._targets is not None:
            row = self._targets[min(step - self._since, len(self._targets) - 1)]  # due now, as in playing a chunk
            if self._who != REWIND:
                self._past.append(row)
            if self._writer is not None:
                self._writer.add(reading, row, self._who)
        show(self._device, self._session, reading)
        self._steps, self._human_steps = step + 1, self._human_steps + (self._who != POLICY)
        self._success = bool(twist.mark == "success" or self._session.succeeded())
        self._discarded = twist.mark == "discard"
        ended = self._success or twist.mark in ("discard", "stop") or step + 1 >= self._max_steps
        mode = self._session.mode()
        return not ended and (mode in MOVING or (mode == Mode.HOLD and self._device is not None))

    def _change(self, mark: str, reading: Reading) -> None:
        """Hand the arm from the policy to the human and back."""
        if mark in ("takeover", "rewind") and self._session.mode() == Mode.HOLD:
            self._session.request("arm")
            self._who, mark = POLICY, "takeover"
        if mark in ("takeover", "rewind") and self._who == POLICY:
            self._interventions += 1
        if mark == "rewind" and self._past:
            self._who, self._left = REWIND, round(_REWIND_S / self._worker.period_s)
        elif mark in ("takeover", "rewind") or (self._who == REWIND and not (self._left and self._past)):
            self._who = HUMAN
            self._jog.start(reading.state)
        elif mark == "handback" and self._who != POLICY:
            self._who = POLICY
            self._worker.begin(self._number)

    def _decide(self, twist: Twist, reading: Reading) -> np.ndarray | None:
        """Return new targets [K,J+1], written to the executor; None while the last ones are followed."""
        if self._who == POLICY:
            try:
                return self._worker.step(reading)
            except HardwareError as error:  # such as a pose out of reach
                self._problem = str(error)
                self._session.request("hold")  # until the human takes over
                return None
        if self._who == HUMAN:
            targets = self._jog.step(twist)
        else:
            size = self._session.chunks.shape[0]
            back = np.array(self._past[: -size - 1 : -1])
            targets = back[np.minimum(np.arange(size), len(back) - 1)]
            self._past.pop()
            self._left -= 1
        self._session.chunks.write(self._session.now_ns(), targets)
        return targets
