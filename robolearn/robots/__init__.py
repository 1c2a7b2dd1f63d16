"""Arms and grippers as constants, for simulation and hardware alike.

An arm is one file with one `Arm`; `registry.resolve("robot", "panda")` returns it.
"""

from dataclasses import dataclass

from robolearn.errors import ConfigError

__all__ = ["Arm", "Gripper", "Link"]


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper: `joints` move from `closed` to `open_` joint positions, width 0 to `width_m`."""

    name: str
    asset: str  # MJCF below the installed `robosuite/models/assets`
    joints: tuple[str, ...]
    open_: tuple[float, ...]
    closed: tuple[float, ...]
    width_m: float


@dataclass(frozen=True)
class Link:
    """Where a joint sits in the frame of the link before it, and which of its axes it turns about."""

    position_m: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float]
    axis: int = 2  # 0 x, 1 y, 2 z


@dataclass(frozen=True)
class Arm:
    """A serial arm. Joint tuples follow `joints`, from the base outwards; limits are the maker's."""

    name: str
    asset: str  # MJCF below the installed `robosuite/models/assets`; empty: not simulated
    joints: tuple[str, ...]
    home_rad: tuple[float, ...]
    low_rad: tuple[float, ...]
    high_rad: tuple[float, ...]
    velocity_rad_s: tuple[float, ...]
    acceleration_rad_s2: tuple[float, ...]
    effort_nm: tuple[float, ...]
    gripper: Gripper
    jerk_rad_s3: tuple[float, ...] = ()
    links: tuple[Link, ...] = ()
    tool_m: tuple[float, float, float] = (0.0, 0.0, 0.0)  # the point between the fingers, in the last link's frame
    tool_quat_wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)  # its z points out, fingers move along y

    def __post_init__(self):
        for field in ("home_rad", "low_rad", "high_rad", "velocity_rad_s", "acceleration_rad_s2", "effort_nm"):
            if len(getattr(self, field)) != len(self.joints):
                raise ConfigError(
                    f"{self.name}.{field} does not fit its joints.",
                    found=len(getattr(self, field)),
                    expected=len(self.joints),
                )
        for low, home, high in zip(self.low_rad, self.home_rad, self.high_rad, strict=True):
            if not low <= home <= high:
                raise ConfigError(f"The home of {self.name} is outside its limits.", found=home, expected=(low, high))
