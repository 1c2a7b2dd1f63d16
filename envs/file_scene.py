"""A user's own cell as a scene for a twin: one MJCF file with furniture, objects and cameras; the arm is mounted in it.

    <mujoco>
      <worldbody>
        <site name="base" pos="-0.5 0 0.4"/>          where the arm stands
        <camera name="front" pos="1 0 1" .../>
        <geom type="plane" size="2 2 0.1"/> ...
      </worldbody>
    </mujoco>

A file is data: it may name no other file and no plugin, and its numbers stay within what a desk can hold.
"""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np

from robolearn.envs.images import Cameras
from robolearn.envs.robot_scene import ArmScene
from robolearn.envs.scene import add_arm, gripper_geoms
from robolearn.errors import EnvError, suggest
from robolearn.robots import Arm

__all__ = ["FileScene", "open_scene"]

_BASE, _PREFIX = "base", "robot0_"
_LARGEST_BYTES = 2**22
_OUTSIDE = ("include", "plugin", "extension", "attach", "model")  # elements that bring in what is not in the file
_TIMESTEP_S = (1e-4, 0.01)
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}
_MEMORY_BYTES = 2**30
_MOST = {"size": 1e5, "texture": 4096, "hfield": 4096, "replicate": 100, "composite": 100, "flexcomp": 100, "": 1e6}


def open_scene(name: str, arm: Arm, image_px: int = 96) -> "FileScene":
    """Return the scene of the MJCF file `name` with `arm` on its site "base"; raises `EnvError`."""
    return FileScene(Path(name), arm, image_px)


class FileScene(ArmScene):
    """`contracts.Scene` of an MJCF file; every seed starts as the file says, the arm at home, its fingers open."""

    def __init__(self, path: Path, arm: Arm, image_px: int):
        text = _read(path)
        model = _compile(path, text, arm, visual=False)
        super().__init__(model, mujoco.MjData(model), arm, _PREFIX)
        self._image_px = image_px
        self._names = [model.camera(number).name for number in range(model.ncam)]
        self._cameras = Cameras(lambda visual, look: _compile(path, text, arm, visual) if visual else model, threads=1)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Bring everything back to where the file has it."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._qpos], self.data.qpos[self._fingers] = self.arm.home_rad, self._open
        self.data.ctrl[self._actuators] = np.concatenate([self.arm.home_rad, self._open])
        mujoco.mj_forward(self.model, self.data)

    def image(self, camera: str) -> np.ndarray:
        """Return (H, W, 3) uint8 of one of the file's cameras, or of the arm's "wrist"."""
        if camera not in self._names:
            raise EnvError(f"The scene has no camera '{camera}'.", expected=suggest(camera, self._names))
        return self._cameras.picture(self.data, camera, (self._image_px, self._image_px))


def _read(path: Path) -> str:
    """Return the text of a scene file that was found harmless."""
    if not path.is_file():
        raise EnvError("There is no such scene file.", found=str(path), do="give the path of an MJCF file")
    if path.stat().st_size > _LARGEST_BYTES:
        raise EnvError(f"The scene file {path} is too large.", found=f"{path.stat().st_size} bytes", expected="4 MB")
    try:
        text = path.read_text(encoding="utf-8")
        if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):
            raise EnvError(f"The scene file {path} declares entities.", found="<!", do="write the values themselves")
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        raise EnvError(f"The scene file {path} is no XML.", found=str(error)) from error
    for element in root.iter():
        _check(path, element)
    return text


def _check(path: Path, element: ElementTree.Element) -> None:
    """Refuse an element that reaches outside the file or asks for what no scene needs."""
    tag = element.tag
    outside = [name for name in element.attrib if name.startswith("file")]
    if tag in _OUTSIDE or outside:
        what = f"<{tag} {outside[0]}=...>" if outside else f"<{tag}>"
        do = "build it of primitives, meshes with inline vertices and builtin textures"
        raise EnvError(f"The scene file {path} brings in what lies outside it.", found=what, do=do)
    for name, value in element.attrib.items():
        if (tag, name) == ("size", "memory"):
            _check_memory(path, value)
            continue
        most = _MOST.get(tag, _MOST[""])
        for number in _numbers(value):
            if not math.isfinite(number) or abs(number) > most:
                found = f'<{tag} {name}="{value[:40]}">'
                raise EnvError(
                    f"The scene file {path} holds an impossible number.", found=found, expected=f"<= {most:g}"
                )


def _check_memory(path: Path, value: str) -> None:
    match = re.fullmatch(r"\s*(-1|\d{1,15})\s*([KMGTPE]?)\s*", value)
    if not match or int(match[1]) * _UNIT[match[2]] > _MEMORY_BYTES:
        raise EnvError(f"The scene file {path} asks for too much memory.", found=value[:40], expected="at most 1G")


def _numbers(value: str) -> list[float]:
    """The numbers of an attribute; none if it is a word."""
    try:
        return [float(part) for part in value.split()]
    except ValueError:
        return []


def _compile(path: Path, text: str, arm: Arm, visual: bool) -> mujoco.MjModel:
    """Return the file's model with the arm on its site "base"."""
    try:
        spec = mujoco.MjSpec.from_string(text)
        base = spec.site(_BASE)
        if base is None or base.parent.name != "world":
            do = '<site name="base" pos="x y z"/> in the worldbody, where the arm stands'
            raise EnvError(f"The scene file {path} does not say where the arm stands.", do=do)
        low, high = _TIMESTEP_S
        if not low <= spec.option.timestep <= high:
            found, expected = f"{spec.option.timestep} s", f"{low} to {high} s"
            raise EnvError(f"The scene file {path} has an impossible time step.", found=found, expected=expected)
        for key in list(spec.keys):
            spec.delete(key)  # states of the model without the arm
        add_arm(spec, arm, visual, _PREFIX, base.pos)
        for name in gripper_geoms(spec):
            spec.geom(name).conaffinity = 1  # meets the file's geometry, not its own fingers
        return spec.compile()
    except ValueError as error:
        raise EnvError(f"MuJoCo cannot compile the scene file {path}.", found=str(error).splitlines()[0]) from error
