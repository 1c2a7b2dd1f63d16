"""`robolearn robot …`: what the command line does with a robot, as functions that return plain data."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robolearn import registry
from robolearn.contracts import Actor, EpisodeSink, EpisodeSource
from robolearn.errors import HardwareError, SpecError
from robolearn.hardware.deploy import RobotConfig, open_transport
from robolearn.hardware.limits import limits_of
from robolearn.hardware.observe import Reading
from robolearn.hardware.processes import start_twin
from robolearn.hardware.record import EpisodeWriter, recorded_spec
from robolearn.hardware.ros_robot import PROTECTION, RosRobot
from robolearn.hardware.safety import Mode
from robolearn.hardware.session import RobotSession
from robolearn.hardware.simulated import SimulatedSession
from robolearn.hardware.teleop import Device, Jog, Twist
from robolearn.hardware.worker import PolicyWorker
from robolearn.registry import resolve
from robolearn.rollout import episode_seed

__all__ = ["check", "list_robots", "open_session", "record", "replay", "rollout", "teleop"]

_MODES = (Mode.RAMP_IN, Mode.RUN)
Session = RobotSession | SimulatedSession
SinkOpener = Callable[[Any], EpisodeSink]  # from the recording's spec


def open_session(config: RobotConfig, chunk: int, period_s: float, simulated: bool) -> Session:
    """Return a session in real time, or of the twin on a simulated clock as fast as it computes."""
    return SimulatedSession(config, chunk, period_s) if simulated else RobotSession(config, chunk, period_s)


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
    twin = start_twin(config) if config.twin is not None else None
    arm = resolve("robot", config.arm)
    transport = open_transport(config)
    try:
        robot = RosRobot(arm, transport, config.ros)
        robot.connect()
        cameras = {name: transport.subscriber(f"/{name}/image_raw", "sensor_msgs/msg/Image") for name in config.cameras}
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
) -> dict[str, Any]:
    """Record teleoperated episodes; "success" saves one, "discard" forgets it, "stop" ends the session."""
    saved, begun = 0, time.monotonic()
    jog = Jog(resolve("robot", config.arm), 1.0 / rate_hz)
    with open_session(config, 10, 1.0 / rate_hz, simulated) as session:
        sink = open_sink(recorded_spec(session.arm_constants, rate_hz, _seeing(session))) if open_sink else None
        try:
            mark = ""
            while saved < episodes and mark != "stop":
                mark = _teleoperate(session, device, jog, EpisodeWriter(sink, task) if sink else None, seconds)
                saved += mark == "success"
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
            writer.add(reading, targets[1], intervention=True)
        _show(device, session, reading)
        if twist.mark in ("success", "discard", "stop"):
            ended[0] = twist.mark
            return False
        return session.now_ns() < end_ns and session.mode() in _MODES

    session.every(jog.period_s, work)
    if writer is not None:
        if ended[0] == "success":
            writer.save(success=True)
        else:
            writer.discard()
    return ended[0]


def rollout(
    config: RobotConfig,
    actor: Actor,
    episodes: int,
    execute: int,
    max_steps: int,
    seed: int = 0,
    device: Device | None = None,
    open_sink: SinkOpener | None = None,
    task: str = "",
    simulated: bool = False,
) -> dict[str, Any]:
    """Let a policy act; a human with a `device` may take over, correct, mark success and hand back.

    On the twin every episode starts as the simulation's episode of the same number does, and the
    scene says whether the task was done; on a real arm the device's marks do.
    """
    outcomes = []
    with open_session(config, actor.spec.chunk, 1.0 / actor.spec.rate_hz, simulated) as session:
        worker = PolicyWorker(actor, session.arm_constants, session.chunks, np.array(config.base_m), execute, seed)
        sink = (
            open_sink(recorded_spec(session.arm_constants, actor.spec.rate_hz, _seeing(session))) if open_sink else None
        )
        try:
            for episode in range(episodes):
                if session.twin is not None:
                    session.reset_twin(episode_seed(seed, episode))
                writer = EpisodeWriter(sink, task) if sink is not None else None
                outcomes.append(_act(session, worker, episode, max_steps, device, writer, task))
                session.rest()
            status = session.status()
        finally:
            if sink is not None:
                sink.close()
    successes = sum(outcome["success"] for outcome in outcomes)
    return {"episodes": outcomes, "successes": successes, "trials": len(outcomes), "status": status}


def _act(
    session: Session,
    worker: PolicyWorker,
    episode: int,
    max_steps: int,
    device: Device | None,
    writer: EpisodeWriter | None,
    task: str,
) -> dict[str, Any]:
    jog = Jog(session.arm_constants, worker.period_s, chunk=session.chunks.shape[0])
    state: dict[str, Any] = {"success": False, "human": False, "interventions": 0, "steps": 0, "targets": None, "at": 0}
    worker.begin(episode)
    session.request("arm")

    def work(step: int) -> bool:
        twist = device.read() if device is not None else Twist()
        reading = session.reading(task)
        if not state["human"] and twist.mark == "takeover":
            jog.start(reading.state)
            state.update(human=True, interventions=state["interventions"] + 1)
        elif state["human"] and twist.mark == "handback":
            worker.begin(episode)
            state.update(human=False)
        if state["human"]:
            state.update(targets=jog.step(twist), at=step)
            session.chunks.write(session.now_ns(), state["targets"])
        else:
            targets = worker.step(reading)
            state.update(targets=targets, at=step) if targets is not None else None
        if writer is not None and state["targets"] is not None:
            index = min(step - state["at"] + 1, len(state["targets"]) - 1)
            writer.add(reading, state["targets"][index], state["human"])
        state["steps"] = step + 1
        state["success"] = twist.mark == "success" or session.succeeded()
        ended = state["success"] or twist.mark in ("discard", "stop") or step + 1 >= max_steps
        return not ended and session.mode() in _MODES

    session.every(worker.period_s, work)
    if writer is not None:
        writer.save(bool(state["success"]))
    status = session.status()
    return {
        "episode": episode,
        "success": bool(state["success"]),
        "steps": state["steps"],
        "interventions": state["interventions"],
        "mode": status["mode"],
    }


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
            return step + 1 < len(targets) and session.mode() in _MODES

        session.every(period_s, work)
        status = session.status()
        session.rest()
    return {"frames": len(errors), "median_error_rad": float(np.median(errors)), "status": status}


def _seeing(session: Session) -> Reading:
    """Return a reading with every camera and signal of the config in it."""
    end = time.monotonic() + 10.0
    while True:
        reading = session.reading()
        missing = [name for name in session.config.cameras if name not in reading.images]
        missing += [key for key in session.config.signals if key not in reading.signals]
        if not missing:
            return reading
        if time.monotonic() > end:
            raise HardwareError("Nothing comes from a sensor.", found=", ".join(missing), do="check its topic")
        time.sleep(0.02)


def _show(device: Device, session: Session, reading: Reading) -> None:
    show = getattr(device, "show", None)
    if show is None:
        return
    status: Mapping[str, Any] = session.status()
    tool = session.kinematics.tool(reading.state.position_rad[None])[0]
    signals = {"mode": str(status["mode"]), "limited": float(status["limited"])}
    signals |= {f"tool {axis} [m]": float(value) for axis, value in zip("xyz", tool, strict=True)}
    show(reading.images, signals)
