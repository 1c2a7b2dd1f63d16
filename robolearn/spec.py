"""The typed boundary: what every dataset, policy, environment and robot says about its data.

Observation keys follow LeRobot: `observation.state`, `observation.environment_state`,
`observation.images.<camera>`, and `task` for the instruction. An empty string means "not stated";
only stated facts are compared.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any, Literal

from robolearn.config import parse
from robolearn.errors import SpecError, suggest

__all__ = ["ActionSpec", "CameraSpec", "Feature", "Spec", "check", "require"]

Kind = Literal["signal", "image", "depth", "points", "text", "audio"]
ActionKind = Literal["", "joint_position", "joint_velocity", "joint_delta", "ee_pose", "ee_delta", "ee_velocity"]
Rotation = Literal["", "none", "yaw", "euler_xyz", "axis_angle", "quat_wxyz", "quat_xyzw", "rot6d"]


@dataclass(frozen=True)
class CameraSpec:
    """How to read the pixels of one image feature."""

    colour: Literal["rgb", "bgr"] = "rgb"
    up: Literal["up", "down"] = "up"
    intrinsics: tuple[float, float, float, float] | None = None  # fx, fy, cx, cy [px]


@dataclass(frozen=True)
class Feature:
    """One observation: its kind and, per time step, its shape, dtype, unit and frame.

    Images are (H, W, 3) uint8, depth is (H, W) in `unit`, text has shape ().
    """

    kind: Kind = "signal"
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    unit: str = ""
    frame: str = ""
    names: tuple[str, ...] = ()
    rate_hz: float | None = None  # None: the rate of the spec
    camera: CameraSpec | None = None

    @property
    def size(self) -> int:
        """Numbers per time step."""
        return prod(self.shape)


@dataclass(frozen=True)
class ActionSpec:
    """What an action vector means.

    `reference` says what a delta is relative to; `gripper` says which sign closes the gripper
    (the last entry of the vector when there is one).
    """

    dim: int
    kind: ActionKind = ""
    names: tuple[str, ...] = ()
    unit: str = ""
    frame: str = ""
    rotation: Rotation = ""
    reference: Literal["", "measured", "previous_target"] = ""
    gripper: Literal["", "none", "positive_closes", "positive_opens"] = ""
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Spec:
    """Observations, action and rate; policies also state their history and chunk length.

    Observations are kept in the order of their names, so that a network that concatenates them is
    the same whoever wrote the spec down.
    """

    observations: Mapping[str, Feature]
    action: ActionSpec
    rate_hz: float
    history: int = 1
    chunk: int = 1
    robot: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "observations", dict(sorted(self.observations.items())))
        if not (0 < self.rate_hz < 1e5):
            raise SpecError(
                "The rate of a spec is a positive number.", found=self.rate_hz, expected="0 < rate_hz < 1e5"
            )

    def select(self, keys: tuple[str, ...]) -> "Spec":
        """Return the spec with only the named observations."""
        for key in keys:
            if key not in self.observations:
                raise SpecError(f"No observation '{key}'.", expected=suggest(key, self.observations))
        return replace(self, observations={key: self.observations[key] for key in keys})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; `from_dict` reads it back."""
        return asdict(self) | {"observations": {key: asdict(value) for key, value in self.observations.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Spec":
        """Read a spec from plain data, strictly."""
        return parse(cls, data, where="spec")


def check(provider: Spec, consumer: Spec, rename: Mapping[str, str] | None = None) -> list[str]:
    """List every way in which `provider` does not give what `consumer` expects; empty when it fits.

    `rename` maps the consumer's observation keys to the provider's.
    """
    rename = rename or {}
    differences = []
    for key, wanted in consumer.observations.items():
        name = rename.get(key, key)
        if name not in provider.observations:
            differences.append(f"{key}: missing; {suggest(name, provider.observations)}")
            continue
        given = provider.observations[name]
        for fact in ("kind", "shape", "dtype", "unit", "frame", "camera", "names"):
            differences += _difference(f"{key}.{fact}", getattr(given, fact), getattr(wanted, fact))
    for fact in ("dim", "kind", "unit", "frame", "rotation", "reference", "gripper", "names"):
        differences += _difference(f"action.{fact}", getattr(provider.action, fact), getattr(consumer.action, fact))
    differences += _difference("rate_hz", provider.rate_hz, consumer.rate_hz)
    if provider.robot and consumer.robot:
        differences += _difference("robot", provider.robot, consumer.robot)
    return differences


def require(provider: Spec, consumer: Spec, sides: tuple[str, str], rename: Mapping[str, str] | None = None) -> None:
    """Raise `SpecError` naming both `sides` (provider, consumer) unless the specs fit."""
    differences = check(provider, consumer, rename)
    if differences:
        given, wanted = sides
        raise SpecError(
            f"The {given} does not give what the {wanted} expects.",
            found="; ".join(differences),
            expected=f"every feature, unit and rate as the {wanted} states it",
            do="pick a matching pair, or declare `rename` or a conversion transform",
        )


def _difference(name: str, given: Any, wanted: Any) -> list[str]:
    unstated = ("", None, ())
    if (
        given == wanted
        or (given in unstated and name.rsplit(".", 1)[-1] not in ("shape", "kind"))
        or wanted in unstated
    ):
        return []
    return [f"{name}: {given} instead of {wanted}"]
