"""What the commands ask of a session, real or simulated."""

import time
from collections.abc import Callable

from robolearn.contracts import EpisodeSink
from robolearn.errors import HardwareError
from robolearn.hardware.deploy import RobotConfig, open_calibration
from robolearn.hardware.observe import Reading
from robolearn.hardware.record import Recorded, recorded_spec
from robolearn.hardware.safety import Mode
from robolearn.hardware.session import RobotSession
from robolearn.hardware.simulated import SimulatedSession
from robolearn.hardware.teleop import Device, Shows
from robolearn.spec import Spec

__all__ = ["MOVING", "Session", "SinkOpener", "open_session", "recording", "seeing", "show"]

MOVING = (Mode.RAMP_IN, Mode.RUN)
Session = RobotSession | SimulatedSession
SinkOpener = Callable[[Spec], EpisodeSink]  # from the recording's spec


def open_session(config: RobotConfig, chunk: int, period_s: float, simulated: bool) -> Session:
    """Return a session in real time, or of the twin on a simulated clock as fast as it computes."""
    return SimulatedSession(config, chunk, period_s) if simulated else RobotSession(config, chunk, period_s)


def seeing(session: Session) -> Reading:
    """Return a reading with every camera and signal of the config in it."""
    end = time.monotonic() + 10.0
    while True:
        reading = session.reading()
        missing = [name for name in (*session.config.cameras, *session.config.video) if name not in reading.images]
        missing += [key for key in session.config.signals if key not in reading.signals]
        if not missing:
            return reading
        if time.monotonic() > end:
            raise HardwareError("Nothing comes from a sensor.", found=", ".join(missing), do="check its topic")
        time.sleep(0.02)


def recording(session: Session, rate_hz: float, action: Recorded) -> Spec:
    """Return the spec of what this session records."""
    calibration = open_calibration(session.config)
    return recorded_spec(session.arm_constants, rate_hz, seeing(session), action, calibration)


def show(device: Device | None, session: Session, reading: Reading) -> None:
    """Let a device that shows things show this reading."""
    if not isinstance(device, Shows):
        return
    status = session.status()
    tool = session.kinematics.tool(reading.state.position_rad[None])[0]
    signals: dict[str, float | str] = {"mode": str(status["mode"]), "limited": float(status.get("limited", 0))}
    signals |= {f"tool {axis} [m]": float(value) for axis, value in zip("xyz", tool, strict=True)}
    device.show(reading, signals)
