"""Observations, rewards and success of robosuite's tasks, over all rows at once.

A task is a `Terms`: what the loop records and a few functions over a `View`. Values follow
robosuite 1.5, its habits included: positions of bodies lag the joints by one physics step, relative
poses use the object's pose of the observation before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from robolearn.envs.exact.export import Export
from robolearn.envs.exact.quaternions import mat_to_quat, pose_matrix, relative_pose, rotate, wxyz_to_xyzw

__all__ = ["Raw", "Terms", "View", "proprioception", "reached", "relative_to_hand"]

Raw = dict[str, np.ndarray]  # robosuite's observation keys → float64 [E,…]


@dataclass
class View:
    """The present state of E rows, as the loop recorded it."""

    export: Export
    qpos: np.ndarray  # [E,nq]
    qvel: np.ndarray  # [E,nv]
    bodies: np.ndarray  # [E,nb,7] position, quaternion wxyz
    sites: np.ndarray  # [E,ns,12] position, rotation matrix
    touch: np.ndarray  # bool [E,np]
    fresh: np.ndarray  # bool [E], rows that were reset and have not moved since
    memory: dict[str, np.ndarray]  # what tasks remember between observations, [E,…]
    index: dict[str, int]  # of bodies ("body:name"), sites ("site:name") and pairs ("pair:name")

    def position(self, body: str) -> np.ndarray:
        """Return the position of a body [E,3], m."""
        return self.bodies[:, self.index[f"body:{body}"], :3]

    def quat(self, body: str) -> np.ndarray:
        """Return the orientation of a body [E,4], xyzw."""
        return wxyz_to_xyzw(self.bodies[:, self.index[f"body:{body}"], 3:])

    def point(self, body: str, offset_m: np.ndarray) -> np.ndarray:
        """Return where `offset_m` [3] in the frame of a body is [E,3], m."""
        return self.position(body) + rotate(self.quat(body), offset_m)

    def site(self, name: str) -> np.ndarray:
        """Return the position of a site [E,3], m."""
        return self.sites[:, self.index[f"site:{name}"], :3]

    def site_mat(self, name: str) -> np.ndarray:
        """Return the orientation of a site [E,3,3]."""
        return self.sites[:, self.index[f"site:{name}"], 3:].reshape(-1, 3, 3)

    def touching(self, pair: str) -> np.ndarray:
        """Return which rows have a contact of a recorded pair, bool [E]."""
        return self.touch[:, self.index[f"pair:{pair}"]]

    def tool(self, arm: int = 0) -> np.ndarray:
        """Return the position of an arm's grip site [E,3], m."""
        return self.site(f"tool{arm}")

    def grasps(self, name: str) -> np.ndarray:
        """Return which rows hold `name` between both finger pads of the first gripper, bool [E]."""
        return self.touching(f"left:{name}") & self.touching(f"right:{name}")


@dataclass(frozen=True)
class Terms:
    """One task: what to record, and its functions.

    `observe` gives the object observations in robosuite's order; `reward(view, shaped)` is unscaled
    as robosuite's default; `success` holds at this instant. `sizes` are half extents of boxes that
    each reset draws anew; `absent` are objects that a reset moves out of the way.
    """

    bodies: tuple[str, ...]
    observe: Callable[[View], Raw]
    reward: Callable[[View, bool], np.ndarray]
    success: Callable[[View], np.ndarray]
    instruction: str
    sites: tuple[str, ...] = ()
    graspable: tuple[tuple[str, tuple[str, ...]], ...] = ()  # name → geometries, each with both pads
    contacts: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()  # name → two groups of geometries
    sizes: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = ()  # body, low, high [m]
    absent: tuple[str, ...] = ()
    memory: tuple[tuple[str, int], ...] = field(default=())  # name → width


def proprioception(view: View) -> Raw:
    """Return the observations of all arms, in robosuite's order."""
    raw: Raw = {}
    robots: dict[str, list[int]] = {}
    for index, arm in enumerate(view.export.arms):
        robots.setdefault(arm.name.split("_")[0] + "_", []).append(index)
    for prefix, indices in robots.items():
        arms = [view.export.arms[index] for index in indices]
        joints = [joint for arm in arms for joint in arm.qpos]
        angles = view.qpos[:, joints]
        raw[f"{prefix}joint_pos"] = angles
        raw[f"{prefix}joint_pos_cos"], raw[f"{prefix}joint_pos_sin"] = np.cos(angles), np.sin(angles)
        raw[f"{prefix}joint_vel"] = view.qvel[:, [joint for arm in arms for joint in arm.qvel]]
        for index, arm in zip(indices, arms, strict=True):
            raw[f"{arm.name}eef_pos"] = view.tool(index)
            raw[f"{arm.name}eef_quat"] = view.quat(f"hand{index}")
            raw[f"{arm.name}eef_quat_site"] = mat_to_quat(view.site_mat(f"tool{index}"))
            if arm.grip_qpos:
                raw[f"{arm.name}gripper_qpos"] = view.qpos[:, list(arm.grip_qpos)]
                raw[f"{arm.name}gripper_qvel"] = view.qvel[:, list(arm.grip_qvel)]
    return raw


def reached(distance_m: np.ndarray) -> np.ndarray:
    """Return robosuite's reaching reward, 1 at no distance."""
    return 1.0 - np.tanh(10.0 * distance_m)


def relative_to_hand(view: View, name: str, position_m: np.ndarray, quat: np.ndarray) -> Raw:
    """Return an object's pose seen from the hand, its pose in the world, and remember the latter.

    The relative pose is that of the object one observation earlier; a reset has none and gives zeros.
    """
    memory, hand = view.memory[name], pose_matrix(view.tool(), view.quat("hand0"))
    seen_m, seen_quat = relative_pose(hand, pose_matrix(memory[:, :3], memory[:, 3:]))
    known = ~view.fresh[:, None]
    here = np.concatenate([position_m, quat], 1)
    memory[:] = here
    prefix = view.export.arms[0].name
    return {
        f"{name}_to_{prefix}eef_pos": np.where(known, seen_m, 0.0),
        f"{name}_to_{prefix}eef_quat": np.where(known, seen_quat, 0.0),
        f"{name}_pos": here[:, :3],
        f"{name}_quat": here[:, 3:],
    }
