"""Tool velocities for MoveIt Servo: stamped twists, limited, repeated, and zero when nothing is asked for."""

import numpy as np

from robolearn.errors import HardwareError
from robolearn.hardware.messages import header, message
from robolearn.hardware.transport import DEFAULT, Publisher, Transport

__all__ = ["ServoTwist"]

_KIND = "geometry_msgs/msg/TwistStamped"


class ServoTwist:
    """Publishes to `/servo_node/delta_twist_cmds`; Servo itself stops the arm 0.1 s after the last message.

    Speeds are cut to `tool_m_s` and `tool_rad_s` with their direction kept; a change of speed is held to
    `acceleration_m_s2`.
    """

    def __init__(
        self,
        transport: Transport,
        frame: str,
        rate_hz: float = 100.0,
        tool_m_s: float = 0.25,
        tool_rad_s: float = 1.0,
        acceleration_m_s2: float = 2.0,
        topic: str = "/servo_node/delta_twist_cmds",
    ):
        self._publisher: Publisher = transport.publisher(topic, _KIND, DEFAULT)
        self._frame, self._period_s = frame, 1.0 / rate_hz
        self._limits = tool_m_s, tool_rad_s
        self._step = acceleration_m_s2 / rate_hz, 4.0 * acceleration_m_s2 / rate_hz
        self._last = np.zeros((2, 3))

    def send(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int | None = None) -> np.ndarray:
        """Send one velocity; returns what was sent [2,3]. Call it every period, with zeros to stop."""
        wanted = np.stack([np.asarray(linear_m_s, float), np.asarray(angular_rad_s, float)])
        if wanted.shape != (2, 3) or not np.isfinite(wanted).all():
            raise HardwareError("A tool velocity is refused.", found=wanted.shape, expected="3 + 3 finite numbers")
        for row, (most, step) in enumerate(zip(self._limits, self._step, strict=True)):
            wanted[row] = _shorten(wanted[row], most)
            wanted[row] = self._last[row] + _shorten(wanted[row] - self._last[row], step)
        self._last = wanted
        vectors = [message("geometry_msgs/msg/Vector3", *row.tolist()) for row in wanted]
        twist = message("geometry_msgs/msg/Twist", *vectors)
        self._publisher.publish(message(_KIND, header(stamp_ns, self._frame), twist))
        return wanted.copy()


def _shorten(vector: np.ndarray, most: float) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector * (most / length) if length > most else vector
