"""One robot in use: its processes, its rings, and what its sensors say."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.hardware.cameras import VideoCamera
from robolearn.hardware.deploy import RobotConfig, open_transport
from robolearn.hardware.executor import STATUS, states_ring, status_ring
from robolearn.hardware.kinematics import Kinematics
from robolearn.hardware.observe import Reading
from robolearn.hardware.processes import Child, start_executor, start_recorder, start_twin, wait_for
from robolearn.hardware.ring import Ring
from robolearn.hardware.safety import Mode
from robolearn.hardware.transport import COMMAND, Subscriber
from robolearn.registry import resolve
from robolearn.robots import Arm

__all__ = ["STILL_RAD_S", "RobotSession"]

_MODES = tuple(Mode)
STILL_RAD_S = 0.02  # slower joints stand still
_IMAGE, _FLOATS = "sensor_msgs/msg/Image", "std_msgs/msg/Float64MultiArray"


class RobotSession:
    """Starts the twin (when the config has one) and the executor; a context manager.

    `chunk` and `period_s` are those of the chunks that will be written to `chunks`.
    """

    def __init__(self, config: RobotConfig, chunk: int, period_s: float):
        self.config, self.period_s = config, period_s
        self.arm_constants: Arm = resolve("robot", config.arm)
        joints = len(self.arm_constants.joints)
        self.chunks, self.states, self.status_records = (
            Ring.create((chunk, joints + 1)),
            states_ring(joints),
            status_ring(),
        )
        self.kinematics = Kinematics(self.arm_constants)
        self.twin: Child | None = None
        self.executor: Child | None = None
        self.recorder: Child | None = None
        self._images: dict[str, np.ndarray] = {}
        self._signals: dict[str, np.ndarray] = {}
        self._subscribers: dict[str, Subscriber] = {}
        self._video: dict[str, VideoCamera] = {}

    def __enter__(self) -> "RobotSession":
        try:
            self.twin = start_twin(self.config) if self.config.twin is not None else None
            self.recorder = start_recorder(self.config, self.config.log) if self.config.log else None
            rings = {"chunks": self.chunks, "states": self.states, "status": self.status_records}
            self.executor = start_executor(self.config, self.period_s, rings)
            self._transport = open_transport(self.config)
            for name, options in self.config.video.items():
                self._video[name] = VideoCamera(name, options)
            for name in self.config.cameras:
                self._subscribers[name] = self._transport.subscriber(f"/{name}/image_raw", _IMAGE, COMMAND)
            for key, topic in self.config.signals.items():
                self._subscribers[key] = self._transport.subscriber(topic, _FLOATS, COMMAND)
            wait_for(lambda: self.states.latest() is not None, 10.0, "A first reading of the arm")
        except HardwareError:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------ modes

    def request(self, verb: str) -> str:
        """Ask the executor to "arm", "hold", "stop" or "disarm"; returns its mode."""
        if self.executor is None:
            raise HardwareError("The session has not started.", do="use it in a `with` statement")
        return str(self.executor.request(verb)["mode"])

    def rest(self) -> None:
        """Hold, come to rest and disarm; returns when the arm itself stands still."""
        self.request("hold")
        wait_for(self._disarmed, 5.0, "Coming to rest")
        wait_for(lambda: self.mode() == Mode.DISARMED, 5.0, "A report of it")
        wait_for(lambda: np.abs(self.reading().state.velocity_rad_s).max() < STILL_RAD_S, 10.0, "Standing still")

    def _disarmed(self) -> bool:
        try:
            return self.request("disarm") == Mode.DISARMED
        except HardwareError:
            return False

    def reset_twin(self, seed: int) -> None:
        """Put the twin's scene at its start for `seed`; the arm must be disarmed."""
        if self.twin is None:
            raise HardwareError("This robot has no twin.", found=self.config.name, do="put the scene in order by hand")
        self.twin.request(f"reset {seed}")
        over = self._readings() + 25  # readings of before the reset
        wait_for(lambda: self._readings() >= over, 5.0, "A reading after the reset")

    def _readings(self) -> int:
        record = self.states.latest()
        return record.number if record is not None else 0

    def succeeded(self) -> bool:
        """Say whether the twin's task is done now; False on a real robot, where somebody else must say."""
        return bool(self.twin.request("status")["success"]) if self.twin is not None else False

    # ------------------------------------------------------------ what is known

    def status(self) -> dict[str, Any]:
        """Return the executor's counts and mode."""
        record = self.status_records.latest()
        if record is None:
            raise HardwareError("The executor has not reported yet.")
        values = dict(zip(STATUS, record.values[0].astype(int).tolist(), strict=True))
        return values | {"mode": _MODES[values["mode"]].value, "age_s": 1e-9 * (time.monotonic_ns() - record.stamp_ns)}

    def mode(self) -> str:
        """Return the executor's mode as it last reported it."""
        return str(self.status()["mode"])

    def reading(self, task: str = "") -> Reading:
        """Return the newest state, pictures and signals."""
        record = self.states.latest()
        if record is None:
            raise HardwareError("There is no reading of the arm yet.")
        position, velocity = record.values[0], record.values[1]
        gripper = None if np.isnan(position[-1]) else float(position[-1])
        names = self.arm_constants.joints
        state = RobotState(record.stamp_ns, names, position[:-1], velocity[:-1], gripper)
        self._listen()
        return Reading(state, dict(self._images), dict(self._signals), task)

    def now_ns(self) -> int:
        """Return the time that chunks are stamped with."""
        return time.monotonic_ns()

    def _listen(self) -> None:
        for name, camera in self._video.items():
            newest = camera.latest()
            if newest is not None:
                self._images[name] = newest[0]
        for key, subscriber in self._subscribers.items():
            for received in subscriber.take():
                if key not in self.config.cameras:
                    self._signals[key] = np.asarray(received.message.data)
                    continue
                image = received.message
                if image.encoding not in ("rgb8", "bgr8") or len(image.data) != image.height * image.width * 3:
                    raise HardwareError(
                        f"The camera '{key}' sends another format.", found=image.encoding, expected="rgb8"
                    )
                pixels = np.asarray(image.data).reshape(image.height, image.width, 3)
                self._images[key] = pixels if image.encoding == "rgb8" else pixels[..., ::-1]

    def every(self, period_s: float, work: Callable[[int], bool]) -> None:
        """Call `work(step)` on an absolute schedule until it says False; late steps are not caught up."""
        due, step = time.monotonic(), 0
        while work(step):
            step += 1
            due = max(due + period_s, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0.0))

    def close(self) -> None:
        """End the executor (it comes to rest first), then the recorder and the twin."""
        for child in (self.executor, self.recorder, self.twin):
            if child is not None:
                child.close()
        self.executor = self.recorder = self.twin = None
        for camera in self._video.values():
            camera.close()
        self._video.clear()
        if hasattr(self, "_transport"):
            self._subscribers.clear()
            self._transport.close()
            del self._transport
        for ring in (self.chunks, self.states, self.status_records):
            ring.path.unlink(missing_ok=True)
