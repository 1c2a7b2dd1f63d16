"""Rotation forms and conversions between them, all through rotation matrices.

Forms: "yaw" (about z), "euler_xyz" (extrinsic x, y, z: R = Rz Ry Rx), "axis_angle", "quat_wxyz",
"quat_xyzw", "rot6d" (first two columns of R, Zhou et al. 2019). Angles in [rad].
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError, suggest
from robolearn.spec import Rotation, Spec
from robolearn.stats import lookup

__all__ = ["ContinuousRotations", "ConvertRotation", "convert_rotation"]

_SIZES = {"yaw": 1, "euler_xyz": 3, "axis_angle": 3, "quat_wxyz": 4, "quat_xyzw": 4, "rot6d": 6}


@dataclass(frozen=True)
class ConvertRotation:
    """Rewrite the rotation that starts at entry `start` of `key` from form `source` to form `target`.

    `key` is "action" or a signal. The inverse gives the same rotation in the `source` form, with
    quaternions of non-negative w and axis angles up to pi.
    """

    source: Rotation
    target: Rotation
    start: int
    key: str = "action"
    name: str = "convert_rotation"

    on_device: ClassVar[bool] = True

    def __post_init__(self):
        for form in (self.source, self.target):
            if form not in _SIZES:
                raise ConfigError("convert_rotation needs two forms.", found=repr(form), expected=suggest(form, _SIZES))

    def bind(self, spec: Spec) -> "ConvertRotation":
        if self.key != "action" and self.key not in spec.observations:
            raise SpecError(f"convert_rotation has no '{self.key}'.", expected=suggest(self.key, spec.observations))
        size = spec.action.dim if self.key == "action" else spec.observations[self.key].shape[-1]
        stop = self.start + _SIZES[self.source]
        if self.start < 0 or stop > size:
            raise SpecError(
                f"'{self.key}' does not hold that rotation.",
                found=f"entries {self.start} to {stop - 1} of {size}",
                expected="a rotation inside the vector",
            )
        if self.key == "action" and spec.action.rotation not in ("", self.source):
            raise SpecError("The action has another rotation form.", found=spec.action.rotation, expected=self.source)
        return self

    def forward(self, batch: Batch) -> Batch:
        if self.key == "action" and "action" not in batch:
            return batch
        return batch | {self.key: self._rewrite(lookup(batch, self.key), self.source, self.target)}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._rewrite(action, self.target, self.source) if self.key == "action" else action

    def transform_spec(self, spec: Spec) -> Spec:
        change = _SIZES[self.target] - _SIZES[self.source]
        if self.key == "action":
            action = replace(
                spec.action,
                dim=spec.action.dim + change,
                rotation=self.target,
                names=self._names(spec.action.names),
                low=None,
                high=None,
            )
            return replace(spec, action=action)
        feature = spec.observations[self.key]
        shape = (*feature.shape[:-1], feature.shape[-1] + change)
        changed = replace(feature, shape=shape, names=self._names(feature.names))
        return replace(spec, observations={**spec.observations, self.key: changed})

    def _rewrite(self, value: torch.Tensor, source: Rotation, target: Rotation) -> torch.Tensor:
        stop = self.start + _SIZES[source]
        rotation = convert_rotation(value[..., self.start : stop], source, target)
        return torch.cat([value[..., : self.start], rotation, value[..., stop:]], -1)

    def _names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            return ()
        rotation = tuple(f"{self.target}.{i}" for i in range(_SIZES[self.target]))
        return (*names[: self.start], *rotation, *names[self.start + _SIZES[self.source] :])


@dataclass(frozen=True)
class ContinuousRotations:
    """Rewrite every quaternion among the signals as rot6d, which does not change its sign where the hand points down.

    Quaternions are found by the names of their entries: `…quat…[0]` to `…quat…[3]`.
    """

    source: Rotation = "quat_xyzw"
    places: tuple[tuple[str, int], ...] = ()  # key and first entry of each, from the back; `bind` finds them
    name: str = "continuous_rotations"

    on_device: ClassVar[bool] = True

    def bind(self, spec: Spec) -> "ContinuousRotations":
        places = self.places or _quaternions(spec)
        if not places:
            raise SpecError(
                "continuous_rotations finds no quaternion.",
                found=", ".join(spec.observations),
                expected="a signal with entries named like hand_quat[0] to hand_quat[3]",
            )
        return replace(self, places=places)

    def forward(self, batch: Batch) -> Batch:
        for part in self._parts():
            batch = part.forward(batch)
        return batch

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        for part in self._parts():
            spec = part.bind(spec).transform_spec(spec)
        return spec

    def _parts(self) -> list[ConvertRotation]:
        return [ConvertRotation(self.source, "rot6d", start, key) for key, start in self.places]


def _quaternions(spec: Spec) -> tuple[tuple[str, int], ...]:
    """Return the key and the first entry of each named quaternion, later entries first."""
    found = []
    for key, feature in spec.observations.items():
        stems = [name.removesuffix("[0]") for name in feature.names]
        found += [
            (key, start)
            for start, stem in reversed(list(enumerate(stems)))
            if "quat" in stem and feature.names[start : start + 4] == tuple(f"{stem}[{i}]" for i in range(4))
        ]
    return tuple(found)


def convert_rotation(value: torch.Tensor, source: Rotation, target: Rotation) -> torch.Tensor:
    """Return rotations [..., n] of form `source` in form `target` [..., m]."""
    return value if source == target else _from_matrix(_to_matrix(value, source), target)


def _to_matrix(value: torch.Tensor, form: Rotation) -> torch.Tensor:
    if form == "yaw":
        return _about(value[..., 0], 2)
    if form == "euler_xyz":
        return _about(value[..., 2], 2) @ _about(value[..., 1], 1) @ _about(value[..., 0], 0)
    if form == "axis_angle":
        return _quaternion_to_matrix(_axis_angle_to_quaternion(value))
    if form == "quat_wxyz":
        return _quaternion_to_matrix(value)
    if form == "quat_xyzw":
        return _quaternion_to_matrix(value.roll(1, -1))
    first = torch.nn.functional.normalize(value[..., :3], dim=-1)
    second = value[..., 3:] - (first * value[..., 3:]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.cross(first, second, dim=-1)], -1)


def _from_matrix(matrix: torch.Tensor, form: Rotation) -> torch.Tensor:
    if form == "yaw":
        return torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]).unsqueeze(-1)
    if form == "euler_xyz":
        return _matrix_to_euler(matrix)
    if form == "rot6d":
        return torch.cat([matrix[..., 0], matrix[..., 1]], -1)
    quaternion = _matrix_to_quaternion(matrix)
    if form == "quat_wxyz":
        return quaternion
    if form == "quat_xyzw":
        return quaternion.roll(-1, -1)
    return _quaternion_to_axis_angle(quaternion)


def _about(angle: torch.Tensor, axis: int) -> torch.Tensor:
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = {
        0: (one, zero, zero, zero, cos, -sin, zero, sin, cos),
        1: (cos, zero, sin, zero, one, zero, -sin, zero, cos),
        2: (cos, -sin, zero, sin, cos, zero, zero, zero, one),
    }[axis]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _matrix_to_euler(matrix: torch.Tensor) -> torch.Tensor:
    """Extrinsic x, y, z angles; at the gimbal lock the x angle is zero."""
    horizontal = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    y = torch.atan2(-matrix[..., 2, 0], horizontal)
    locked = horizontal < 1e-6
    x = torch.where(locked, 0.0, torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]))
    z_locked = torch.atan2(-matrix[..., 0, 1], matrix[..., 1, 1])
    z = torch.where(locked, z_locked, torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]))
    return torch.stack([x, y, z], -1)


def _quaternion_to_matrix(quaternion: torch.Tensor) -> torch.Tensor:
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _matrix_to_quaternion(matrix: torch.Tensor) -> torch.Tensor:
    """Unit quaternions wxyz with w >= 0, by the best conditioned of the four rows of 4 q qᵀ (Shepperd 1978)."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    diagonal = torch.stack([trace, m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], -1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    squares = 1 + 2 * diagonal - trace.unsqueeze(-1)
    squares[..., 0] = 1 + trace
    rows = torch.stack(
        [
            torch.stack([squares[..., 0], wx, wy, wz], -1),
            torch.stack([wx, squares[..., 1], xy, xz], -1),
            torch.stack([wy, xy, squares[..., 2], yz], -1),
            torch.stack([wz, xz, yz, squares[..., 3]], -1),
        ],
        -2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = torch.nn.functional.normalize(rows.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def _axis_angle_to_quaternion(value: torch.Tensor) -> torch.Tensor:
    half = value.norm(dim=-1, keepdim=True) / 2
    return torch.cat([half.cos(), value / 2 * torch.sinc(half / torch.pi)], -1)


def _quaternion_to_axis_angle(quaternion: torch.Tensor) -> torch.Tensor:
    vector = quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    half = torch.atan2(sine, quaternion[..., :1])
    return torch.where(sine < 1e-7, 2 * vector, vector * (2 * half / sine.clamp_min(1e-7)))
