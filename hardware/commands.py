"""`robolearn robot …`: what the command line does with a robot, as functions that return plain data."""

import time
from typing import Any

import numpy as np

from robolearn import registry
from robolearn.contracts import EpisodeSource
from robolearn.errors import HardwareError, SpecError
from robolearn.hardware.acting import rollout
from robolearn.hardware.deploy import RobotConfig, make_ros_robot, open_transport
from robolearn.hardware.limits import limits_of
from robolearn.hardware.looking import calibrate
from robolearn.hardware.processes import start_twin
from robolearn.hardware.record import EpisodeWriter, Recorded
from robolearn.hardware.ros_robot import PROTECTION
from robolearn.hardware.sessions import MOVING, Session, SinkOpener, open_session, recording, show
from robolearn.hardware.teleop import Device, Jog
from robolearn.hardware.transport import SENSOR
from robolearn.interventions import HUMAN
from robolearn.registry import resolve
from robolearn.rollout import episode_seed

__all__ = ["calibrate", "check", "list_robots", "record", "replay", "rollout", "teleop"]


def list_robots() -> list[dict[str, Any]]:
    """Return the registered arms and what is known of each."""
    rows = []
    for name in registry.names("robot"):
        arm = resolve("robot", name)
        complete = len(arm.jerk_rad_s3) == len(arm.links) == len(arm.joints)
        rows.append({"name": name, "joints": len(arm.joints), "gripper": arm.gripper.name, "deployable": complete})
    return rows


def check(config: RobotConfig, seconds: float = 2.0) -> dict[str, Any]:
    """Look at a robot without moving it: rates, jitter, joints, limits, clock, protection, cameras."""
    if config.driver != "ros":
        raise HardwareError("Only robots on a ROS 2 graph can be checked.", found=config.driver, do="use its own tools")
    twin = start_twin(config) if config.twin is not None else None
    arm = resolve("robot", config.arm)
    transport = open_transport(config)
    try:
        robot = make_ros_robot(config, transport)
        robot.connect()
        cameras = {
            name: transport.subscriber(f"/{name}/image_raw", "sensor_msgs/msg/Image", SENSOR) for name in config.cameras
        }
        states = transport.subscriber(config.ros.state_topic, "sensor_msgs/msg/JointState")
        arrivals, stamps, pictures = [], [], dict.fromkeys(cameras, 0)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for received in states.take():
                stamp = received.message.header.stamp
                arrivals.append(1e-9 * received.stamp_ns)
                stamps.append(stamp.sec + 1e-9 * stamp.nanosec)
            for name, subscriber in cameras.items():
                pictures[name] += len(subscriber.take())
            time.sleep(0.001)
        state = robot.read()
        limits = limits_of(arm, config.ros.rate_hz, config.safety)
        inside = (state.position_rad >= limits.low_rad) & (state.position_rad <= limits.high_rad)
        gaps = np.diff(arrivals) if len(arrivals) > 2 else np.array([np.inf])
        return {
            "robot": config.name,
            "state_hz": round(len(arrivals) / seconds, 1),
            "state_gap_p50_ms": round(1e3 * float(np.percentile(gaps, 50)), 3),
            "state_gap_max_ms": round(1e3 * float(gaps.max()), 3),
            **_clock(np.array(arrivals), np.array(stamps)),
            "malformed": states.malformed,
            "joints": dict(zip(robot.names, state.position_rad.round(4).tolist(), strict=True)),
            "outside_limits": [name for name, good in zip(robot.names, inside, strict=True) if not good],
            "tool_speed_limit_m_s": config.safety.tool_m_s,
            "camera_hz": {name: round(count / seconds, 1) for name, count in pictures.items()},
            "dead_cameras": [name for name, count in pictures.items() if count == 0],
            "when_we_die": PROTECTION[config.ros.controller],
        }
    finally:
        transport.close()
        if twin is not None:
            twin.close()


def _clock(arrivals_s: np.ndarray, stamps_s: np.ndarray) -> dict[str, Any]:
    """Return by which clock the robot stamps its states, and how far that one is from ours (with the delay)."""
    if not len(arrivals_s):
        return {"clock": None, "clock_offset_s": None}
    monotonic = float(np.min(arrivals_s - stamps_s))
    wall = monotonic + time.time() - time.monotonic()
    name, offset = min((("wall", wall), ("monotonic", monotonic)), key=lambda each: abs(each[1]))
    return {"clock": name, "clock_offset_s": round(offset, 6)}


def teleop(config: RobotConfig, device: Device, seconds: float = float("inf"), rate_hz: float = 20.0) -> dict[str, Any]:
    """Drive the arm by hand until the device says stop."""
    result = record(config, device, None, "", episodes=1, seconds=seconds, rate_hz=rate_hz)
    return {"seconds": result["seconds"], "status": result["status"]}


def record(
    config: RobotConfig,
    device: Device,
    open_sink: SinkOpener | None,
    task: str,
    episodes: int,
    seconds: float = 60.0,
    rate_hz: float = 20.0,
    simulated: bool = False,
    action: Recorded = "joint_position",
    seed: int = 0,
) -> dict[str, Any]:
    """Record teleoperated episodes; "success" saves one, "discard" forgets it, "stop" ends the session.

    A twin's episodes start as the simulation's episodes of the same numbers do.
    """
    saved, tried, begun = 0, 0, time.monotonic()
    jog = Jog(resolve("robot", config.arm), 1.0 / rate_hz, speed_m_s=config.jog_m_s)
    with open_session(config, 10, 1.0 / rate_hz, simulated) as session:
        sink = open_sink(recording(session, rate_hz, action)) if open_sink else None
        try:
            mark = ""
            while saved < episodes and mark != "stop":
                if session.twin is not None:
                    session.reset_twin(episode_seed(seed, tried))
                writer = EpisodeWriter(sink, task, session.arm_constants, config.base_m) if sink else None
                mark = _teleoperate(session, device, jog, writer, seconds)
                saved, tried = saved + (mark == "success"), tried + 1
                session.rest()
                if sink is None:
                    break
            return {"episodes": saved, "seconds": time.monotonic() - begun, "status": session.status()}
        finally:
            if sink is not None:
                sink.close()


def _teleoperate(session: Session, device: Device, jog: Jog, writer: EpisodeWriter | None, seconds: float) -> str:
    """Run one episode by hand and return how it ended."""
    end_ns, ended = session.now_ns() + 1e9 * seconds, ["discard"]
    jog.start(session.reading().state)
    session.request("arm")

    def work(step: int) -> bool:
        twist = device.read()
        reading = session.reading()
        targets = jog.step(twist)
        session.chunks.write(session.now_ns(), targets)
        if writer is not None:
            writer.add(reading, targets[0], HUMAN)  # due now, as the first action of a chunk is
        show(device, session, reading)
        if twist.mark in ("success", "discard", "stop"):
            ended[0] = twist.mark
            return False
        return session.now_ns() < end_ns and session.mode() in MOVING

    session.every(jog.period_s, work)
    if writer is not None:
        if ended[0] == "success":
            writer.save(success=True)
        else:
            writer.discard()
    return ended[0]


def replay(config: RobotConfig, source: EpisodeSource, episode: int, simulated: bool = False) -> dict[str, Any]:
    """Play the recorded joint targets of one episode; the arm must be near its first pose."""
    arm = resolve("robot", config.arm)
    action = source.spec.action
    if action.kind != "joint_position" or action.names != (*arm.joints, "gripper"):
        raise SpecError(
            "Only recorded joint targets can be replayed.", found=f"{action.kind} {action.names}", expected=arm.joints
        )
    targets = np.asarray(source.read(episode, ["action"])["action"], float)
    period_s, size = 1.0 / source.spec.rate_hz, 16
    with open_session(config, size, period_s, simulated) as session:
        session.request("arm")
        errors = []

        def work(step: int) -> bool:
            rows = np.minimum(np.arange(step, step + size), len(targets) - 1)
            session.chunks.write(session.now_ns(), targets[rows])
            errors.append(np.abs(session.reading().state.position_rad - targets[max(step - 1, 0), :-1]).max())
            return step + 1 < len(targets) and session.mode() in MOVING

        session.every(period_s, work)
        status = session.status()
        session.rest()
    return {"frames": len(errors), "median_error_rad": float(np.median(errors)), "status": status}
