"""A simulated arm on the graph: the topics and manners of a real one around a `Scene`."""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from robolearn.contracts import Scene
from robolearn.hardware import messages, personality
from robolearn.hardware.transport import COMMAND, DEFAULT, SENSOR, Faults, FaultyPublisher, Transport

__all__ = ["Perceives", "Twin", "TwinConfig", "run"]

_log = logging.getLogger(__name__)
_NO_FAULTS = Faults()
_FLOATS = "std_msgs/msg/Float64MultiArray"


@dataclass(frozen=True)
class TwinConfig:
    """Options of the twin; `faults` befall what it publishes."""

    personality: str = "jtc"
    state_topic: str = "/joint_states"
    gripper_topic: str = "/gripper_controller/commands"
    gripper_joint: str = "finger_joint1"
    cameras: tuple[str, ...] = ()
    camera_hz: float = 15.0
    faults: Faults = _NO_FAULTS
    seed: int = 0
    signals: dict[str, str] = field(default_factory=dict)  # observation key → topic of what the scene perceives


@runtime_checkable
class Perceives(Protocol):
    """A scene that knows its objects and its task."""

    def environment_state(self) -> np.ndarray:
        """Return observation.environment_state [S]."""

    def success(self) -> bool:
        """Say whether the task's condition holds now."""

    def instruction(self) -> str:
        """Return the task in words."""


class Twin:
    """Steps a scene: commands in, joint states and images out. One `tick` is `scene.dt_s`."""

    def __init__(
        self, scene: Scene, transport: Transport, config: TwinConfig, clock_ns: Callable[[], int] = time.monotonic_ns
    ):
        self.scene, self.config, self._transport = scene, config, transport
        self.reset(config.seed)
        states = transport.publisher(config.state_topic, "sensor_msgs/msg/JointState", DEFAULT)
        self._states = FaultyPublisher(states, config.faults, clock_ns)
        self._images = {
            name: transport.publisher(f"/{name}/image_raw", "sensor_msgs/msg/Image", SENSOR) for name in config.cameras
        }
        self._commands = transport.subscriber(self.control.topic, self.control.kind, COMMAND)
        self._grip = transport.subscriber(config.gripper_topic, _FLOATS, COMMAND)
        self._signals = [
            transport.publisher(topic, _FLOATS, SENSOR)
            for key, topic in config.signals.items()
            if key == "observation.environment_state"
        ]
        self._image_due_ns = 0

    def reset(self, seed: int) -> None:
        """Put the scene at its start for `seed`, with a fresh controller."""
        self.scene.reset(seed)
        start = self.scene.state()
        names, period_s = self.scene.joint_names, self.scene.dt_s
        self.control = personality.make(self.config.personality, names, start.position_rad, period_s)
        self.gripper_m = start.gripper_m if start.gripper_m is not None else 0.0

    def tick(self, now_ns: int) -> None:
        """Take the commands that came, move for one period, publish what is to be seen."""
        for received in self._commands.take():
            self.control.receive(received.message, now_ns)
        for received in self._grip.take():
            if received.message.data.shape == (1,) and np.isfinite(received.message.data[0]):
                self.gripper_m = float(received.message.data[0])
        self.scene.step(self.control.target(now_ns), self.gripper_m)
        state = self.scene.state()
        names, position, velocity = list(state.names), state.position_rad, state.velocity_rad_s
        if state.gripper_m is not None:
            names.append(self.config.gripper_joint)
            position, velocity = np.append(position, state.gripper_m / 2), np.append(velocity, 0.0)
        self._states.publish(messages.joint_state(names, position, velocity, now_ns))
        if self._images and now_ns >= self._image_due_ns:
            self._image_due_ns = now_ns + round(1e9 / self.config.camera_hz)
            for name, publisher in self._images.items():
                publisher.publish(messages.image(self.scene.image(name), name, now_ns))
        if self._signals and isinstance(self.scene, Perceives):
            seen = messages.float_array(self.scene.environment_state())
            for publisher in self._signals:
                publisher.publish(seen)

    def success(self) -> bool:
        """Say whether the scene's task is done; False without a task."""
        return isinstance(self.scene, Perceives) and self.scene.success()

    def task(self) -> str:
        """Return the scene's task in words."""
        return self.scene.instruction() if isinstance(self.scene, Perceives) else ""

    def close(self) -> None:
        self._transport.close()


def run(twin: Twin, keep_running: Callable[[], bool]) -> int:
    """Tick in real time until `keep_running` says no; returns how many ticks came more than a period late."""
    period_ns = round(1e9 * twin.scene.dt_s)
    gc.freeze()
    due, late = time.monotonic_ns() + period_ns, 0
    while keep_running():
        wait = due - time.monotonic_ns()
        if wait > 0:
            time.sleep(1e-9 * wait)
        now = time.monotonic_ns()
        late += now - due > period_ns
        twin.tick(now)
        due = max(due + period_ns, now)
    return late
