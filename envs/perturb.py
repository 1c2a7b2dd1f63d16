"""Perturbations of own tasks: named axes with levels, drawn per episode from its seed, and recorded.

Level 0 changes nothing; levels 1 to 3 look up a magnitude. The unperturbed draws of an episode stay as
they are, so that a level can be compared with the same episodes without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_box, allow_contact, gripper_geoms
from robolearn.errors import ConfigError, suggest
from robolearn.seeding import generator

__all__ = ["AXES", "Axis", "Commands", "Perturbations", "check_levels"]

LOOKS = 8  # how many looks a visual axis has; an episode's seed picks one
RAD_PER_M = 6.0  # noise on an angle where there is noise on a length
_FREE = mujoco.mjtJoint.mjJNT_FREE
_MEMORY, _GAIN = 0.8, 0.6  # first-order low pass with unit standard deviation


@dataclass(frozen=True)
class Axis:
    """One way to leave the training distribution; `levels` are magnitudes in `unit`."""

    what: str
    unit: str
    levels: tuple[float, float, float]


AXES = {
    "blackout": Axis("episodes without sight: every picture is black", "share", (0.25, 0.5, 1.0)),
    "camera_pose": Axis("cameras shifted and turned (by 2 rad per m)", "m", (0.02, 0.05, 0.1)),
    "colours": Axis("objects, table and floor recoloured", "share", (0.1, 0.25, 0.5)),
    "control_noise": Axis("smooth noise on what the arm is told", "m", (0.003, 0.006, 0.012)),
    "distractors": Axis("cubes that the task does not mention", "objects", (1, 2, 4)),
    "field_of_view": Axis("cameras zoomed in or out", "deg", (2.0, 5.0, 10.0)),
    "friction": Axis("friction of every contact divided or multiplied by up to", "factor", (1.2, 1.5, 2.0)),
    "latency": Axis("actions carried out later", "steps", (1, 2, 3)),
    "lights": Axis("brightness and direction of the lights", "share", (0.2, 0.4, 0.7)),
    "object_mass": Axis("mass of free objects divided or multiplied by up to", "factor", (1.5, 2.5, 4.0)),
    "object_pose": Axis("ranges of the reset widened", "share", (0.1, 0.2, 0.35)),
    "object_size": Axis("size of free objects changed by up to", "share", (0.03, 0.06, 0.1)),
    "observation_noise": Axis("noise on state observations", "m or rad", (0.002, 0.005, 0.01)),
    "paraphrase": Axis("instructions in words of politeness and of synonyms", "rewrites", (1, 2, 3)),
    "shuffled": Axis("episodes that are told an instruction drawn at random", "share", (0.25, 0.5, 1.0)),
    "textures": Axis("patterns on the table and the floor", "contrast", (0.15, 0.3, 0.6)),
}
_VISUAL = ("camera_pose", "colours", "field_of_view", "lights", "textures")
_FRAMES = ("please {}", "could you {}", "now {}", "your task: {}", "i need you to {}")
_SYNONYMS = (
    ("put", "set"),
    ("place", "lay"),
    ("cube", "block"),
    ("bin", "box"),
    ("pick up", "take"),
    ("press", "push"),
)
_COLOURS = ((0.55, 0.25, 0.65), (0.9, 0.5, 0.1), (0.1, 0.6, 0.6), (0.5, 0.5, 0.5))


def check_levels(levels: Mapping[str, int], possible: Iterable[str] = AXES) -> None:
    """Raise `ConfigError` for an unknown axis or level, or one that is not `possible` here."""
    for axis, level in levels.items():
        if axis in AXES and axis not in possible:
            expected = ", ".join(possible)
            raise ConfigError(f"Perturbation '{axis}' does not exist for this task.", found=axis, expected=expected)
        if axis not in AXES:
            raise ConfigError(f"Unknown perturbation '{axis}'.", expected=suggest(axis, AXES))
        if level not in (0, 1, 2, 3):
            raise ConfigError(f"Perturbation '{axis}' has no such level.", found=level, expected="0, 1, 2 or 3")


@dataclass
class Perturbations:
    """The axes of one environment; `drawn` keeps what each row's episode got."""

    levels: Mapping[str, int]
    rows: int
    sentences: Sequence[str] = ()  # every instruction of the task
    drawn: list[dict[str, float]] = field(init=False)
    random: list[np.random.Generator] = field(init=False)

    def __post_init__(self):
        check_levels(self.levels, AXES if self.sentences else set(AXES) - {"shuffled"})
        self.drawn = [{} for _ in range(self.rows)]
        self.random = [generator("perturb", row) for row in range(self.rows)]

    def size(self, axis: str) -> float:
        """Return the magnitude of an axis, 0.0 when it is off."""
        level = self.levels.get(axis, 0)
        return float(AXES[axis].levels[level - 1]) if level else 0.0

    def begin(self, row: int, seed: int | None) -> None:
        """Start a row's episode: a generator of its own, so that the task's draws do not move."""
        if seed is not None:
            self.random[row] = generator(seed, "perturb")
        self.drawn[row] = {}
        if self.size("paraphrase"):
            self.drawn[row]["paraphrase"] = int(self.random[row].integers(len(_FRAMES)))
        if self._chance(row, "shuffled"):
            self.drawn[row]["shuffled"] = int(self.random[row].integers(len(self.sentences)))
        if self._chance(row, "blackout"):
            self.drawn[row]["blackout"] = 1.0

    def blind(self) -> np.ndarray:
        """Return which rows see nothing in this episode, bool [E]."""
        return np.array(["blackout" in drawn for drawn in self.drawn])

    @property
    def physical(self) -> bool:
        """Whether rows need models of their own."""
        return any(self.levels.get(axis, 0) for axis in ("friction", "object_mass", "object_size"))

    @property
    def visual(self) -> bool:
        """Whether rows need a look of their own."""
        return any(self.levels.get(axis, 0) for axis in _VISUAL)

    # ------------------------------------------------------------ the scene

    def extend_scene(self, spec: mujoco.MjSpec) -> mujoco.MjSpec:
        """Add the distractors; they touch the table, the grippers and what is free."""
        count = int(self.size("distractors"))
        if not count:
            return spec
        free = [body for body in spec.bodies if any(joint.type == _FREE for joint in body.joints)]
        touch = [geom.name for body in free for geom in body.geoms if geom.name]
        for index in range(count):
            body = spec.worldbody.add_body(name=f"distractor{index}", pos=[0, 0, TABLE_M + 0.02])
            body.add_freejoint()
            add_box(body, f"distractor{index}_geom", (0, 0, 0), (0.018,) * 3, (*_COLOURS[index], 1), mass_kg=0.05)
        names = [f"distractor{index}_geom" for index in range(count)]
        prefixes = [
            f"robot{index}_" for index in (0, 1) if any(b.name.startswith(f"robot{index}_") for b in spec.bodies)
        ]
        hands = [name for prefix in prefixes for name in gripper_geoms(spec, prefix)]
        allow_contact(spec, names, ["table", *hands, *touch])
        for index in range(count):
            allow_contact(spec, names[index : index + 1], names[index + 1 :])
        return spec

    def place_distractors(self, row: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Lay the distractors where nothing else lies; call it after the task's reset."""
        mujoco.mj_kinematics(model, data)
        on_table = data.xpos[1:, 2] < TABLE_M + 0.12
        taken = [place[:2] for place in data.xpos[1:][on_table]]
        for index in range(int(self.size("distractors"))):
            start = model.jnt_qposadr[model.body(f"distractor{index}").jntadr[0]]
            place = self._clear_place(row, taken)
            taken.append(place)
            data.qpos[start : start + 7] = (*place, TABLE_M + 0.018, 1, 0, 0, 0)
            self.drawn[row] |= {f"distractor{index}_x_m": float(place[0]), f"distractor{index}_y_m": float(place[1])}

    def _clear_place(self, row: int, taken: list[np.ndarray]) -> np.ndarray:
        """Return the clearest of 200 random places."""
        places = self.random[row].uniform((-0.25, -0.4), (0.25, 0.4), (200, 2))
        away = np.linalg.norm(places[:, None] - np.array(taken)[None], axis=-1).min(1)
        clear = np.flatnonzero(away > 0.1)
        return places[clear[0] if len(clear) else away.argmax()]

    # ------------------------------------------------------------ physics

    def draw_physics(self, row: int) -> None:
        """Draw a row's factors of friction and object mass, for a model that somebody else changes by them."""
        self._factor(row, "friction")
        self._factor(row, "object_mass")

    def row_model(self, row: int, model: mujoco.MjModel, own: mujoco.MjModel) -> None:
        """Write the row's physical parameters into `own`, a copy of `model` that may hold an older episode's."""
        factor = self._factor(row, "friction")
        own.pair_friction[:, :2] = model.pair_friction[:, :2] * factor
        mass, scale = self._factor(row, "object_mass"), self._share(row, "object_size")
        for body in range(1, model.nbody):
            joint = model.body_jntadr[body]
            if joint < 0 or model.jnt_type[joint] != _FREE or "distractor" in model.body(body).name:
                continue
            own.body_mass[body] = model.body_mass[body] * mass
            own.body_inertia[body] = model.body_inertia[body] * mass * scale**2
            first, count = model.body_geomadr[body], model.body_geomnum[body]
            geoms = slice(first, first + count)
            own.geom_size[geoms] = model.geom_size[geoms] * scale
            own.geom_pos[geoms] = model.geom_pos[geoms] * scale
            own.geom_rbound[geoms] = model.geom_rbound[geoms] * scale
            own.geom_aabb[geoms] = model.geom_aabb[geoms] * scale

    def _factor(self, row: int, axis: str) -> float:
        if not self.size(axis):
            return 1.0
        value = float(self.size(axis) ** self.random[row].uniform(-1, 1))
        self.drawn[row][axis] = value
        return value

    def _chance(self, row: int, axis: str) -> bool:
        """Draw whether an axis of shares strikes the row's episode."""
        return bool(self.size(axis)) and bool(self.random[row].uniform() < self.size(axis))

    def _share(self, row: int, axis: str) -> float:
        if not self.size(axis):
            return 1.0
        value = 1.0 + float(self.size(axis) * self.random[row].uniform(-1, 1))
        self.drawn[row][axis] = value
        return value

    def widen(self, random: np.random.Generator) -> Any:
        """Return `random`, its uniform ranges widened."""
        return _Wide(random, self.size("object_pose")) if self.size("object_pose") else random

    # ------------------------------------------------------------ what is seen and said

    def look(self, row: int) -> int:
        """Return which of the looks the row's episode has, -1 for the plain one."""
        if not self.visual:
            return -1
        chosen = int(self.random[row].integers(LOOKS))
        self.drawn[row]["look"] = chosen
        return chosen

    def paint(self, spec: mujoco.MjSpec, look: int) -> mujoco.MjSpec:
        """Change a visual scene in place to one of the looks."""
        if look < 0:
            return spec
        draw = generator("look", look)
        shift, zoom, glow = self.size("camera_pose"), self.size("field_of_view"), self.size("lights")
        for camera in spec.cameras:
            camera.pos = camera.pos + shift * draw.uniform(-1, 1, 3)
            turned, turn = np.zeros(4), np.array([1.0, *(shift * draw.uniform(-1, 1, 3))])
            mujoco.mju_mulQuat(turned, np.array(camera.quat), turn / np.linalg.norm(turn))
            camera.quat, camera.fovy = turned, camera.fovy + zoom * draw.uniform(-1, 1)
        for light in spec.lights:
            light.diffuse = np.clip(np.array(light.diffuse) * (1 + glow * draw.uniform(-1, 1)), 0, 1)
            light.dir = light.dir + glow * draw.uniform(-0.5, 0.5, 3)
        mix = self.size("colours")
        for geom in spec.geoms:
            if not geom.material and geom.rgba[3] > 0:
                geom.rgba = [*((1 - mix) * geom.rgba[:3] + mix * draw.uniform(0, 1, 3)), geom.rgba[3]]
        self._add_pattern(spec, draw)
        return spec

    def _add_pattern(self, spec: mujoco.MjSpec, draw: np.random.Generator) -> None:
        contrast = self.size("textures")
        if not contrast:
            return
        pattern = spec.add_texture(name="pattern", type=mujoco.mjtTexture.mjTEXTURE_2D, width=128, height=128)
        pattern.builtin = mujoco.mjtBuiltin.mjBUILTIN_CHECKER
        pattern.rgb1, pattern.rgb2 = draw.uniform(1 - contrast, 1, (2, 3))
        material = spec.add_material(name="pattern", texrepeat=[6, 6])
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "pattern"
        for name in ("table", "floor"):
            spec.geom(name).material = "pattern"

    def jitter(self, row: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return the noise of one state observation of a row."""
        return self.random[row].normal(0.0, self.size("observation_noise"), shape)

    def say(self, row: int, instruction: str) -> str:
        """Return what the row hears for an instruction, the same all through its episode."""
        if "shuffled" in self.drawn[row]:
            instruction = self.sentences[int(self.drawn[row]["shuffled"])]
        rewrites = int(self.size("paraphrase"))
        if rewrites >= 2:
            for word, other in _SYNONYMS:
                instruction = instruction.replace(word, other)
        if rewrites in (1, 3):
            instruction = _FRAMES[int(self.drawn[row]["paraphrase"])].format(instruction)
        return instruction


class Commands:
    """Actions on their way to the arm: late by `latency`, shaken by `control_noise`.

    `scale` [A] is the noise of every action entry per metre of the axis; `noise` [E,A] and `queue`
    [E,steps,A] are changed in place and belong to a row's snapshot.
    """

    def __init__(self, perturb: Perturbations, rows: int, scale: np.ndarray):
        self._perturb, self._scale = perturb, np.asarray(scale, float)
        self.noise = np.zeros((rows, len(self._scale)))
        self.queue = np.zeros((rows, int(perturb.size("latency")), len(self._scale)))

    def begin(self, row: int, still: np.ndarray) -> None:
        """Start a row's episode; until the first action arrives it is told to stay as `still` [A]."""
        self.noise[row], self.queue[row] = 0.0, still

    def arriving(self, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return what the arms of `rows` are told this step, when `actions` were given."""
        if self.queue.shape[1]:
            due = self.queue[rows, 0].copy()
            self.queue[rows] = np.concatenate([self.queue[rows, 1:], actions[:, None]], 1)
            actions = due
        size_m = self._perturb.size("control_noise")
        if size_m == 0.0:
            return actions
        for row in rows:
            fresh = self._perturb.random[row].standard_normal(len(self._scale))
            self.noise[row] = _MEMORY * self.noise[row] + _GAIN * fresh
        return actions + size_m * self._scale * self.noise[rows]


class _Wide:
    """A generator whose uniform ranges are wider by a share; all else is the generator's own."""

    def __init__(self, random: np.random.Generator, share: float):
        self._random, self._share = random, share
        self.normal, self.integers = random.normal, random.integers

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        low, high = np.asarray(low, float), np.asarray(high, float)
        more = self._share * (high - low) / 2
        drawn = self._random.uniform(low - more, high + more, size)
        return float(drawn) if np.ndim(drawn) == 0 else drawn
