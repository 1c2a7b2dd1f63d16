"""What a robot config says, and the parts that are built from it."""

from dataclasses import dataclass, field
from typing import Literal

from robolearn.contracts import Robot, Scene
from robolearn.errors import ConfigError
from robolearn.hardware.calibration import Calibration, read_calibration
from robolearn.hardware.cameras import VideoConfig
from robolearn.hardware.devices import LeaderConfig
from robolearn.hardware.executor import ExecutorConfig
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.makers import open_maker
from robolearn.hardware.ros_robot import RosRobot, RosRobotConfig, command_topic
from robolearn.hardware.transport import Transport
from robolearn.registry import resolve
from robolearn.robots import Arm

__all__ = [
    "RobotConfig",
    "TwinOptions",
    "executor_config",
    "logged_topics",
    "make_robot",
    "make_ros_robot",
    "open_calibration",
    "open_scene",
    "open_transport",
]

_FLOATS = "std_msgs/msg/Float64MultiArray"


@dataclass(frozen=True)
class TwinOptions:
    """The simulated arm that stands in for the real one."""

    scene: str = "pick_place"  # or FILE.xml: an MJCF scene whose site "base" is where the arm stands
    personality: Literal["jtc", "forward", "ur", "franka"] = "jtc"
    image_px: int = 96
    camera_hz: float = 15.0
    seed: int = 0
    latency_s: float = 0.0  # of inference, on a simulated clock
    wire: Literal["memory", "dds"] = "memory"  # what carries the topics on a simulated clock


@dataclass(frozen=True)
class RobotConfig:
    """One robot: its arm, how it is reached, what it is held to.

    `cameras` are names; their pictures come from `/<name>/image_raw`, those of `video` from this machine.
    `signals` maps observation keys to topics of std_msgs/Float64MultiArray. `calibration` is a file of
    `robolearn robot calibrate`; into `log`, an MCAP file, goes every message of these topics.
    """

    name: str = "twin/panda"
    arm: str = "panda"
    driver: Literal["ros", "ur_rtde", "pylibfranka"] = "ros"
    address: str = ""  # of the arm, for a driver that needs no ROS
    transport: Literal["dds", "rcl"] = "dds"
    domain: int = 0
    ros: RosRobotConfig = field(default_factory=RosRobotConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    base_m: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the arm, in the world frame of policies
    cameras: tuple[str, ...] = ()
    video: dict[str, VideoConfig] = field(default_factory=dict)
    signals: dict[str, str] = field(default_factory=dict)
    blend_s: float = 0.1
    gripper_m_s: float = 0.1  # how fast its width changes
    jog_m_s: float = 0.15  # of the tool, at a device's full deflection
    calibration: str | None = None
    leader: LeaderConfig | None = None
    log: str | None = None
    twin: TwinOptions | None = None

    def __post_init__(self):
        if not 0 <= self.domain <= 101:
            raise ConfigError("robot.domain is not a ROS domain.", found=self.domain, expected="0 to 101")


def open_scene(twin: TwinOptions, arm: Arm) -> Scene:
    """Return what the twin steps: a registered scene, or the MJCF file that is named."""
    name = "file" if twin.scene.endswith(".xml") else twin.scene
    return resolve("scene", name)(twin.scene, arm, twin.image_px)


def open_transport(config: RobotConfig) -> Transport:
    """Join the graph that `config` names."""
    if config.transport == "rcl":
        from robolearn.hardware.rcl import RclTransport

        return RclTransport(config.domain)
    from robolearn.hardware.dds import DdsTransport

    return DdsTransport(config.domain)


def logged_topics(config: RobotConfig) -> dict[str, str]:
    """Return the topics that tell what a robot did, and their types."""
    topics = {config.ros.state_topic: "sensor_msgs/msg/JointState"}
    topics |= dict([command_topic(config.ros)])
    topics |= {topic: _FLOATS for topic in (config.ros.gripper_topic, *config.signals.values()) if topic}
    return topics | {f"/{name}/image_raw": "sensor_msgs/msg/Image" for name in config.cameras}


def executor_config(config: RobotConfig, chunk_period_s: float) -> ExecutorConfig:
    """Return how chunks with one action per `chunk_period_s` are executed on the robot of `config`."""
    return ExecutorConfig(
        chunk_period_s,
        config.blend_s,
        gripper_m_s=config.gripper_m_s,
        gripper_width_m=resolve("robot", config.arm).gripper.width_m,
        send_path=config.driver == "ros" and config.ros.controller == "jtc",
    )


def open_calibration(config: RobotConfig) -> Calibration:
    """Return the calibration of a robot; nothing is known without a file."""
    arm = resolve("robot", config.arm)
    return read_calibration(config.calibration, arm) if config.calibration else Calibration(arm.name)


def make_robot(config: RobotConfig) -> Robot:
    """Return the robot of `config`, its joints' offsets applied."""
    if config.driver == "ros":
        return make_ros_robot(config, open_transport(config))
    offsets = open_calibration(config).offsets_rad
    return open_maker(config.driver, resolve("robot", config.arm), config.address, config.ros.rate_hz, offsets)


def make_ros_robot(config: RobotConfig, transport: Transport) -> RosRobot:
    """Return the robot of `config` behind `transport`."""
    return RosRobot(resolve("robot", config.arm), transport, config.ros, open_calibration(config).offsets_rad)
