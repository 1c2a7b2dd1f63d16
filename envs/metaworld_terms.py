"""Observations, rewards and success of Meta-World's ten MT10 tasks, over all rows at once.

Formulas and constants are those of Meta-World 3.0 (reward version v2); a test holds them to its own code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.envs.exact.plan import Record
from robolearn.envs.exact.quaternions import wxyz_to_xyzw

__all__ = ["NATIVE", "Scene", "Terms", "record_of"]

_BODIES = ("hand", "rightclaw", "leftclaw", "leftpad", "rightpad")
_SITES = ("rightEndEffector", "leftEndEffector")
_OBJECT_WIDTH = 14
_PER_EPISODE = (
    "obj_init_pos", "init_tcp", "hand_init_pos", "peg_head_pos_init", "window_handle_pos_init",
)  # fmt: skip


@dataclass
class Scene:
    """The present state of E rows, and what Meta-World fixed at their resets."""

    qpos: np.ndarray
    qvel: np.ndarray
    bodies: np.ndarray  # [E,nb,7] position, quaternion wxyz
    sites: np.ndarray  # [E,ns,12] position, rotation matrix
    touch: np.ndarray
    previous: np.ndarray  # [E,18] the last observation without goals
    target_m: np.ndarray  # [E,3]
    at_reset: dict[str, np.ndarray]  # [E,3] each, and scalars [E]
    index: dict[str, int]
    model: mujoco.MjModel
    geoms: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def empty(cls, model: mujoco.MjModel, record: Record, terms: "Terms | None", rows: int) -> "Scene":
        """Return a scene of `rows` rows that were never reset."""
        bodies = (*_BODIES, *(terms.bodies if terms else ()))
        sites = (*_SITES, *(terms.sites if terms else ()))
        index = {f"body:{name}": i for i, name in enumerate(bodies)}
        index |= {f"site:{name}": i for i, name in enumerate(sites)}
        at_reset = {name: np.zeros((rows, 3)) for name in _PER_EPISODE} | {"_obj_to_target_init": np.zeros(rows)}
        return cls(
            np.zeros((rows, model.nq)), np.zeros((rows, model.nv)), np.zeros((rows, len(record.bodies), 7)),
            np.zeros((rows, len(record.sites), 12)), np.zeros((rows, 0), bool), np.zeros((rows, 18)),
            np.zeros((rows, 3)), at_reset, index, model,
        )  # fmt: skip

    def start(self, row: int, host: Mapping[str, Any], obs: np.ndarray) -> None:
        """Take over what a reset decided."""
        for name, value in self.at_reset.items():
            if host.get(name) is not None:
                value[row] = host[name]
        if host.get("_target_pos") is not None:
            self.target_m[row] = host["_target_pos"]
        self.previous[row] = host["_prev_obs"] if "_prev_obs" in host else obs[:18]

    def body(self, name: str) -> np.ndarray:
        """Return the position of a body [E,3], m."""
        return self.bodies[:, self.index[f"body:{name}"], :3]

    def body_quat(self, name: str) -> np.ndarray:
        """Return the orientation of a body [E,4], wxyz."""
        return self.bodies[:, self.index[f"body:{name}"], 3:]

    def geom(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where a geom lies in its body [3], m, and the matrix [4,4] from the body's wxyz to the geom's xyzw."""
        if name not in self.geoms:
            geom = self.model.geom(name)
            w, x, y, z = geom.quat
            times = np.array([[w, x, y, z], [-x, w, -z, y], [-y, z, w, -x], [-z, -y, x, w]])
            self.geoms[name] = geom.pos.copy(), wxyz_to_xyzw(times)
        return self.geoms[name]

    def site(self, name: str) -> np.ndarray:
        """Return the position of a site [E,3], m."""
        return self.sites[:, self.index[f"site:{name}"], :3]

    @property
    def tcp(self) -> np.ndarray:
        """Return the point between the fingers [E,3], m."""
        return (self.site("rightEndEffector") + self.site("leftEndEffector")) / 2.0


Judge = Callable[[Scene, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Terms:
    """One task: `place(scene)` gives the object's position and quaternion, `judge` reward and success."""

    place: Callable[[Scene], tuple[np.ndarray, np.ndarray]]
    judge: Judge
    bodies: tuple[str, ...] = ()
    sites: tuple[str, ...] = field(default=())

    def observe(self, scene: Scene) -> np.ndarray:
        """Return the hand, the gripper's opening and the padded object [E,18]."""
        apart = distance(scene.body("rightclaw"), scene.body("leftclaw"))
        position, quat = self.place(scene)
        padded = np.zeros((len(apart), _OBJECT_WIDTH))
        padded[:, :3], padded[:, 3:7] = position, quat
        return np.concatenate([scene.body("hand"), np.minimum(apart / 0.1, 1.0)[:, None], padded], 1)


def record_of(model: mujoco.MjModel, terms: Terms | None) -> Record:
    """Return what the loop records for a task; little for those that Meta-World judges itself."""
    bodies = [model.body(name).id for name in (*_BODIES, *(terms.bodies if terms else ()))]
    sites = [model.site(name).id for name in (*_SITES, *(terms.sites if terms else ()))]
    nothing = np.zeros((0, 2), np.int64)
    groups = np.zeros(model.ngeom, np.int64)
    return Record(np.array(bodies, np.int64), np.array(sites, np.int64), groups, nothing)


# ---------------------------------------------------------------- reward pieces


def tolerance(
    x: np.ndarray, upper: float, margin: np.ndarray | float, lower: float = 0.0, gaussian: bool = False
) -> np.ndarray:
    """Return 1 within [lower, upper], falling to 0.1 at `margin` beyond (long tail, or gaussian)."""
    beyond = np.maximum(lower - x, x - upper)
    away = beyond / margin  # infinite, and so worth 0, where there is no margin
    falling = np.exp(np.log(0.1) * away**2) if gaussian else 1.0 / ((away * 3.0) ** 2 + 1.0)
    return np.where(beyond <= 0.0, 1.0, falling)


def hamacher(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Hamacher product of two degrees in [0, 1]."""
    both = a * b
    below = a + b - both
    return np.where(below > 0, both / below, 0.0)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Euclidean distances [E]."""
    apart = a - b
    return np.sqrt(np.einsum("ei,ei->e", apart, apart))


def closing(action: np.ndarray) -> np.ndarray:
    """Return how far the action closes the gripper, in [0, 1]."""
    return np.minimum(np.maximum(0.0, action[:, 3].astype(np.float64)), 1.0)


def caging(scene: Scene, action: np.ndarray, obj: np.ndarray, radius: float, pad_m: float, xz_m: float) -> np.ndarray:
    """Return how well the fingers surround and hold an object."""
    start = scene.at_reset["obj_init_pos"]
    both = []
    for pad in ("leftpad", "rightpad"):
        y = scene.body(pad)[:, 1]
        margin = np.abs(np.abs(y - start[:, 1]) - pad_m)
        both.append(tolerance(np.abs(y - obj[:, 1]), pad_m, margin, radius))
    plane = [0, 2]
    margin = distance(start[:, plane], scene.at_reset["init_tcp"][:, plane]) - xz_m
    along = tolerance(distance(scene.tcp[:, plane], obj[:, plane]), xz_m, margin)
    surrounded = hamacher(hamacher(*both), along)
    held = np.where(surrounded > 0.97, closing(action), 0.0)
    return (hamacher(surrounded, held) + surrounded) / 2.0


# ---------------------------------------------------------------- the ten tasks


def _geom_of(body: str, name: str, at_body: bool) -> Callable[[Scene], tuple[np.ndarray, np.ndarray]]:
    """Return the pose of a geometry of `body`; with `at_body` the body's own position."""

    def place(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        offset_m, turn = scene.geom(name)
        position, quat = scene.body(body), scene.body_quat(body)
        if not at_body:
            position = position + Rotation.from_quat(wxyz_to_xyzw(quat)).apply(offset_m)
        turned = quat @ turn
        largest = turned[np.arange(len(turned)), np.abs(turned).argmax(1)]
        return position, turned * np.sign(largest)[:, None]  # the sign that a conversion from a matrix gives

    return place


_puck = _geom_of("obj", "objGeom", at_body=True)


def reach() -> Terms:
    """Bring the hand to a point in the air."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = distance(scene.tcp, scene.target_m)
        margin = distance(scene.at_reset["hand_init_pos"], scene.target_m)
        return 10.0 * tolerance(away, 0.05, margin), away <= 0.05

    return Terms(_puck, judge, bodies=("obj",))


def push() -> Terms:
    """Push the puck to a point on the table."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, opened = obs[:, 4:7], obs[:, 3]
        away = distance(obj, scene.target_m)
        placed = tolerance(away, 0.05, distance(scene.at_reset["obj_init_pos"], scene.target_m))
        reward = 2.0 * caging(scene, action, obj, 0.015, 0.05, 0.005)
        near = (distance(obj, scene.tcp) < 0.02) & (opened > 0)
        reward = np.where(near, reward + 1.0 + reward + 5.0 * placed, reward)
        return np.where(away < 0.05, 10.0, reward), away <= 0.05

    return Terms(_puck, judge, bodies=("obj",))


def pick_place() -> Terms:
    """Bring the puck to a point in the air."""

    def grasp(scene: Scene, action: np.ndarray, obj: np.ndarray) -> np.ndarray:
        right = obj[:, 1] - scene.body("rightpad")[:, 1]
        left = scene.body("leftpad")[:, 1] - obj[:, 1]
        sides = []
        for gap in (left, right):  # Meta-World's "initial" pads are views of the present ones
            margin = np.abs(np.abs(gap) - 0.05)
            sides.append(tolerance(gap, 0.05, margin, 0.015))
        plane = [0, 2]
        margin = distance(scene.at_reset["obj_init_pos"][:, plane], scene.at_reset["init_tcp"][:, plane]) - 0.005
        along = tolerance(distance(scene.tcp[:, plane], obj[:, plane]), 0.005, margin)
        surrounded = hamacher(hamacher(*sides), along)
        held = np.where(surrounded > 0.97, closing(action), 0.0)
        return (hamacher(surrounded, held) + surrounded) / 2.0

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, opened, start = obs[:, 4:7], obs[:, 3], scene.at_reset["obj_init_pos"]
        away = distance(obj, scene.target_m)
        placed = tolerance(away, 0.05, distance(start, scene.target_m))
        reward = hamacher(grasp(scene, action, obj), placed)
        raised = (distance(obj, scene.tcp) < 0.02) & (opened > 0) & (obj[:, 2] - 0.01 > start[:, 2])
        reward = np.where(raised, reward + 1.0 + 5.0 * placed, reward)
        return np.where(away < 0.05, 10.0, reward), away <= 0.07

    return Terms(_puck, judge, bodies=("obj",))


def _peg_place(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    site = scene.sites[:, scene.index["site:pegGrasp"]]
    return site[:, :3], Rotation.from_matrix(site[:, 3:].reshape(-1, 3, 3)).as_quat()


def _prism(point: np.ndarray, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Return the position of a point within a box from corner `zero` to `one`, 1 outside."""
    low, high = np.minimum(zero, one), np.maximum(zero, one)
    inside = ((low <= point) & (point <= high)).all(1)
    scaled = (point - zero) / (one - zero)
    return np.where(inside, scaled.prod(1), 1.0)


def peg_insert() -> Terms:
    """Put the peg into the hole in the side of a box."""
    corners = [f"{side}_corner_collision_box_{box}" for box in (1, 2) for side in ("top_left", "bottom_right")]

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, opened, head = obs[:, 4:7], obs[:, 3], scene.site("pegHead")
        scale = np.array([1.0, 2.0, 2.0])
        away = np.linalg.norm((head - scene.target_m) * scale, axis=1)
        margin = np.linalg.norm((scene.at_reset["peg_head_pos_init"] - scene.target_m) * scale, axis=1)
        one, zero, other, nought = (scene.site(corner) for corner in corners)
        boxes = hamacher(_prism(head, nought, other), _prism(head, zero, one))
        placed = hamacher(tolerance(away, 0.07, margin), boxes)
        near = distance(obj, scene.tcp) < 0.08
        raised = near & (opened > 0) & (obj[:, 2] - 0.01 > scene.at_reset["obj_init_pos"][:, 2])
        grasped = np.where(raised, 1.0, caging(scene, action, obj, 0.0075, 0.03, 0.005))
        reward = hamacher(grasped, placed)
        reward = np.where(raised, reward + 1.0 + 5.0 * placed, reward)
        return np.where(away <= 0.07, 10.0, reward), away <= 0.07

    return Terms(_peg_place, judge, sites=("pegGrasp", "pegHead", *corners))


def drawer_open() -> Terms:
    """Pull the drawer open."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hand, handle = obs[:, :3], obs[:, 4:7]
        away = distance(handle, scene.target_m)
        start = scene.target_m + np.array([0.0, 0.2, 0.0])
        scale = np.array([3.0, 3.0, 1.0])
        margin = np.linalg.norm((start - scene.at_reset["init_tcp"]) * scale, axis=1)
        near = tolerance(np.linalg.norm((handle - hand) * scale, axis=1), 0.01, margin)
        return (near + tolerance(away, 0.02, 0.2)) * 5.0, away <= 0.03

    return Terms(
        lambda scene: (scene.body("drawer_link") + np.array([0.0, -0.16, 0.0]), scene.body_quat("drawer_link")),
        judge,
        bodies=("drawer_link",),
    )


def drawer_close() -> Terms:
    """Push the drawer shut."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, start = obs[:, 4:7], scene.at_reset["obj_init_pos"]
        away = distance(obj, scene.target_m)
        placed = tolerance(away, 0.05, np.abs(distance(start, scene.target_m) - 0.05))
        margin = np.abs(distance(start, scene.at_reset["init_tcp"]) - 0.005)
        near = tolerance(distance(obj, scene.tcp), 0.005, margin, gaussian=True)
        reward = hamacher(hamacher(near, closing(action)), placed)
        shut = away <= 0.05 + 0.015
        return np.where(shut, 1.0, reward) * 10.0, shut

    return Terms(
        lambda scene: (scene.body("drawer_link") + np.array([0.0, -0.16, 0.05]), np.zeros((len(scene.qpos), 4))),
        judge,
        bodies=("drawer_link",),
    )


def door_open() -> Terms:
    """Pull the door open by its handle."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hand, door = obs[:, :3], obs[:, 4:7] + np.array([-0.05, 0.0, 0.0])
        theta = scene.qpos[:, scene.model.joint("doorjoint").qposadr[0]]
        radius = distance(hand[:, :2], door[:, :2])
        floor = np.where(radius <= 0.12, 0.0, 0.04 * np.log(np.maximum(radius - 0.12, 1e-300)) + 0.4)
        low = floor - hand[:, 2]
        above = np.where(low <= 0.0, 1.0, tolerance(low, 0.01, floor / 2.0))
        near = tolerance(distance(hand - door, np.array([0.05, 0.03, -0.01])), 0.06, 0.5)
        opened = 0.2 * (theta < -np.pi / 90.0) + 0.8 * tolerance(np.pi / 2 + np.pi / 6 + theta, 0.5, np.pi / 3)
        grab = ((np.clip(action[:, 3], -1, 1) + 1.0) / 2.0).astype(np.float64)
        done = np.abs(obs[:, 4] - scene.target_m[:, 0]) <= 0.08
        return np.where(done, 10.0, 2.0 * hamacher(hamacher(above, near), grab) + 8.0 * opened), done

    return Terms(_geom_of("door_link", "handle", at_body=False), judge, bodies=("door_link",))


def button_press() -> Terms:
    """Press the button from above."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, apart = obs[:, 4:7], distance(obs[:, 4:7], scene.tcp)
        away = np.abs(scene.target_m[:, 2] - obj[:, 2])
        near = tolerance(apart, 0.01, distance(obj, scene.at_reset["init_tcp"]))
        pressed = tolerance(away, 0.005, scene.at_reset["_obj_to_target_init"])
        reward = 5.0 * hamacher(1.0 - obs[:, 3], near)
        return np.where(apart <= 0.03, reward + 5.0 * pressed, reward), away <= 0.024

    return Terms(
        lambda scene: (scene.body("button") + np.array([0.0, 0.0, 0.193]), scene.body_quat("button")),
        judge,
        bodies=("button",),
    )


def window(handle: str, start: str, gaussian: bool) -> Callable[[], Terms]:
    """Return the task of sliding the window by one of its handles."""

    def judge(scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj = scene.site(handle)
        away = np.abs(obj[:, 0] - scene.target_m[:, 0])
        margin = np.abs(np.abs(scene.at_reset[start][:, 0] - scene.target_m[:, 0]) - 0.05)
        placed = tolerance(away, 0.05, margin)
        first = np.abs(distance(scene.at_reset["window_handle_pos_init"], scene.at_reset["init_tcp"]) - 0.02)
        near = tolerance(distance(obj, scene.tcp), 0.02, first, gaussian=gaussian)
        return 10.0 * hamacher(near, placed), away <= 0.05

    def place(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        return scene.site(handle), np.zeros((len(scene.qpos), 4))

    return lambda: Terms(place, judge, sites=(handle,))


NATIVE: dict[str, Callable[[], Terms]] = {
    "reach-v3": reach,
    "push-v3": push,
    "pick-place-v3": pick_place,
    "door-open-v3": door_open,
    "drawer-open-v3": drawer_open,
    "drawer-close-v3": drawer_close,
    "button-press-topdown-v3": button_press,
    "peg-insert-side-v3": peg_insert,
    "window-open-v3": window("handleOpenStart", "obj_init_pos", gaussian=False),
    "window-close-v3": window("handleCloseStart", "window_handle_pos_init", gaussian=True),
}
