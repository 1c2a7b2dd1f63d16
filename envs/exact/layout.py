"""Where MuJoCo keeps its fields: word offsets into its structs, found by looking, and function addresses.

The compiled loop works on raw `mjData` pointers. Offsets are found at first use by scanning a struct's
words for the addresses that the Python bindings report, so nothing depends on a header file.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from robolearn.errors import EnvError

__all__ = ["DATA_FIELDS", "FUNCTIONS", "Layout", "RowModel", "address_of", "layout"]

DATA_FIELDS = (
    "qpos", "qvel", "ctrl", "qfrc_bias", "qM", "xpos", "xquat", "site_xpos", "site_xmat", "sensordata",
    "mocap_pos", "mocap_quat",
)  # fmt: skip
FUNCTIONS = ("mj_step", "mj_step1", "mj_step2", "mj_jacSite", "mj_forward", "mj_kinematics", "mj_comPos")
_UNSEEN = ("nbvh", "ncam", "nlight")  # counts of what a step only clears or moves for pictures
_DATA_WORDS, _BLOCK = 24_000, 64  # how far fields are searched, 8 bytes each
_MODEL_WORDS = 4_096  # more than sizeof(mjModel), which ends with its signature

_HINGE = '<body pos="0 5 5"><joint name="hinge" axis="1 0 0"/><geom size="0.1"/><site name="tip"/></body>'
_BOX = '<body pos="{x} 0 0.09"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>'
_SCENE = """<mujoco><worldbody><geom name="floor" type="plane" size="9 9 1"/>{bodies}<body mocap="true"/></worldbody>
<actuator><motor joint="hinge"/></actuator><sensor><jointpos joint="hinge"/></sensor></mujoco>"""
_SIGHTS = """<mujoco><worldbody>{cameras}{lights}<geom size="1"/>
<flexcomp name="cloth" type="grid" count="{side} {side} 1" spacing="1 1 1" dim="2"/></worldbody></mujoco>"""


class Layout(NamedTuple):
    """Offsets into `mjData` and the addresses of the functions that the loop calls."""

    data: np.ndarray  # int64, words of the pointers DATA_FIELDS
    contact: np.ndarray  # int64: word of the contact pointer, int32 index of ncon, then contact size and geom [bytes]
    functions: np.ndarray  # int64, addresses of FUNCTIONS


@cache
def layout() -> Layout:
    """Return the offsets of the installed MuJoCo; raises `EnvError` when a field is not found.

    Also stops the clock that fills `mjData.timer`: forty readings a step, which nobody looks at here.
    """
    scenes = [_scene(boxes) for boxes in (3, 5, 9)]
    found = [_words(data) for data in scenes]
    for name in (*DATA_FIELDS, "contact"):
        if len({words[name] for words in found}) != 1:
            raise _unknown(name)
    first, geoms = scenes[0], scenes[0].contact.geom
    contact = [found[0]["contact"], _count_index(scenes, found[0]["contact"])]
    contact += [geoms.strides[0], geoms.ctypes.data - _contact_start(first)]
    library = ctypes.CDLL(str(next(Path(mujoco.__file__).parent.glob("libmujoco.*"))))
    ctypes.c_void_p.in_dll(library, "mjcb_time").value = None
    functions = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in FUNCTIONS]
    return Layout(
        np.array([found[0][name] for name in DATA_FIELDS], np.int64),
        np.array(contact, np.int64),
        np.array(functions, np.int64),
    )


def address_of(function: str) -> int:
    """Return the address of one of `FUNCTIONS`."""
    return int(layout().functions[FUNCTIONS.index(function)])


class RowModel:
    """A model's struct copied, sharing every array with the model except those it owns.

    Rows whose objects differ in size, mass or place get one each: some kilobytes, not a second model.
    It counts no bounding volumes, cameras and lights, so that a step neither clears the marks by which
    a viewer draws the volumes (one per mesh triangle and step) nor moves cameras and lights.
    """

    def __init__(self, model: mujoco.MjModel):
        self._base = model
        self._struct = (ctypes.c_int64 * _model_words(model)).from_address(model._address)
        self._struct = type(self._struct).from_buffer_copy(self._struct)
        self._arrays: dict[str, np.ndarray] = {}
        self.count(False)

    def count(self, everything: bool) -> None:
        """Count bounding volumes, cameras and lights as the model does, or none."""
        for name, word in zip(_UNSEEN, _unseen_words(), strict=True):
            self._struct[word] = getattr(self._base, name) if everything else 0

    @property
    def address(self) -> int:
        """Address of the struct, for functions that take a model."""
        return ctypes.addressof(self._struct)

    def own(self, name: str) -> np.ndarray:
        """Return this row's private copy of the model array `name`; the physics reads it."""
        if name not in self._arrays:
            shared = getattr(self._base, name)
            private = np.array(shared, order="C")
            words = np.frombuffer(self._struct, np.int64)
            words[words == shared.ctypes.data] = private.ctypes.data
            self._arrays[name] = private
        return self._arrays[name]

    def take(self, source: mujoco.MjModel, names: tuple[str, ...]) -> None:
        """Own the arrays `names` with `source`'s values, and its mean inertia (it scales the solver)."""
        for name in names:
            self.own(name)[...] = getattr(source, name)
        word = _inertia_word(self._base)
        self._struct[word] = int(np.float64(source.stat.meaninertia).view(np.int64))


def _scene(boxes: int) -> mujoco.MjData:
    bodies = _HINGE + "".join(_BOX.format(x=i) for i in range(boxes))
    model = mujoco.MjModel.from_xml_string(_SCENE.format(bodies=bodies))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    data.qpos[-5] = 1.0  # one box lifted: the number of contacts is not the largest so far
    mujoco.mj_forward(model, data)
    return data


def _contact_start(data: mujoco.MjData) -> int:
    return data.contact[0].frame.ctypes.data - 4 * 8  # `dist` and `pos` precede the frame


def _words(data: mujoco.MjData) -> dict[str, int]:
    """Return the word of every field. Empty arrays share the address of the one after them: the last hit counts."""
    targets = {name: getattr(data, name).ctypes.data for name in DATA_FIELDS} | {"contact": _contact_start(data)}
    found: dict[str, int] = {}
    for start in range(0, _DATA_WORDS, _BLOCK):  # block by block: never far beyond the struct's end
        block = (ctypes.c_int64 * _BLOCK).from_address(data._address + 8 * start)
        for name, target in targets.items():
            hits = [start + i for i, value in enumerate(block) if value == target]
            if hits:
                found[name] = hits[-1]
        if len(found) == len(targets):
            return found
    raise _unknown(", ".join(sorted(set(targets) - set(found))))


def _count_index(scenes: list[mujoco.MjData], words: int) -> int:
    """Return the int32 index of `ncon`, which lies before the pointers and differs between the scenes."""
    hits = [
        np.flatnonzero(np.frombuffer((ctypes.c_int32 * (2 * words)).from_address(data._address), np.int32) == data.ncon)
        for data in scenes
    ]
    common = sorted(set(hits[0]).intersection(*hits[1:]))
    if len(common) != 1:
        raise _unknown(f"ncon ({len(common)} candidates)")
    return int(common[0])


def _unknown(name: str) -> EnvError:
    return EnvError(
        f"The field {name} of MuJoCo's structs is not found.",
        found=f"mujoco {mujoco.__version__}",
        do="install the pinned mujoco version",
    )


@cache
def _model_size() -> int:
    model = mujoco.MjModel.from_xml_string(_SCENE.format(bodies=_HINGE))
    words = np.frombuffer((ctypes.c_uint64 * _MODEL_WORDS).from_address(model._address), np.uint64)
    return int(np.flatnonzero(words == np.uint64(model.signature))[0]) + 1


def _model_words(model: mujoco.MjModel) -> int:
    words = _model_size()
    last = ctypes.c_uint64.from_address(model._address + 8 * (words - 1)).value
    if last != model.signature:
        raise EnvError("MuJoCo's model struct has an unknown size.", found=f"mujoco {mujoco.__version__}")
    return words


@cache
def _unseen_words() -> tuple[int, ...]:
    """Return the words of `_UNSEEN`, told apart by models that differ in all of them."""
    probes = [
        mujoco.MjModel.from_xml_string(_SIGHTS.format(cameras="<camera/>" * n, lights="<light/>" * (n + 9), side=n))
        for n in (3, 5)
    ]
    words = [np.frombuffer((ctypes.c_int64 * _model_size()).from_address(probe._address), np.int64) for probe in probes]
    found = []
    for name in _UNSEEN:
        hits = [np.flatnonzero(own == getattr(probe, name)) for own, probe in zip(words, probes, strict=True)]
        common = set(hits[0]).intersection(hits[1])
        if len(common) != 1:
            raise _unknown(f"{name} ({len(common)} candidates)")
        found.append(int(common.pop()))
    return tuple(found)


@cache
def _inertia_word_of(address: int, value: float) -> int:
    words = np.frombuffer((ctypes.c_double * _model_size()).from_address(address), np.float64)
    return int(np.flatnonzero(words == value)[0])


def _inertia_word(model: mujoco.MjModel) -> int:
    return _inertia_word_of(model._address, model.stat.meaninertia)
