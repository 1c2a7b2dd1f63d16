"""Paired transforms: the inverse undoes the forward, names are strict, statistics follow the chain."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robolearn.errors import ConfigError, DataError, RegistryError, SpecError
from robolearn.registry import names, resolve
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import (
    AbsoluteAction,
    ContinuousRotations,
    ConvertRotation,
    DeltaAction,
    ImageToFloat,
    Normalize,
    Pad,
    Pipeline,
    RelativeAction,
    convert_rotation,
)

SPEC = Spec(
    observations={
        "observation.state": Feature(shape=(4,), names=("x", "y", "yaw", "width"), unit="m"),
        "observation.goal": Feature(shape=(2,)),
        "observation.images.top": Feature(kind="image", shape=(8, 6, 3), dtype="uint8"),
    },
    action=ActionSpec(dim=4, names=("x", "y", "yaw", "grip"), kind="ee_pose", low=(-1,) * 4, high=(1,) * 4),
    rate_hz=10.0,
    history=2,
    chunk=5,
)
POSE = (("x", "x"), ("y", "y"), ("yaw", "yaw"))


def batch(seed: int, rows: int = 3, images: bool = True) -> dict:
    draw = torch.Generator().manual_seed(seed)
    result = {
        "observation.state": torch.randn(rows, 2, 4, generator=draw),
        "observation.goal": torch.randn(rows, 2, 2, generator=draw),
        "action": torch.randn(rows, 5, 4, generator=draw),
        "action_is_pad": torch.rand(rows, 5, generator=draw) < 0.2,
        "task": ["pick"] * rows,
    }
    if images:
        result["observation.images.top"] = torch.randint(0, 256, (rows, 2, 8, 6, 3), generator=draw, dtype=torch.uint8)
    return result


class Windows:
    spec = SPEC

    def __init__(self, size: int = 50):
        self.all = batch(7, size, images=False)

    def __len__(self) -> int:
        return len(self.all["action"])

    def gather(self, index: np.ndarray) -> dict:
        return {key: [v[i] for i in index] if key == "task" else v[index] for key, v in self.all.items()}


CHAINS = {
    "relative": [RelativeAction(POSE, angles=("yaw",)), Normalize({"*": "mean_std"})],
    "delta": [DeltaAction(POSE, angles=("yaw",)), Normalize({"*": "min_max"}), Pad("action", 7)],
    "absolute": [AbsoluteAction(POSE), Normalize({"*": "quantile"}), Pad("observation.state", 9)],
    "rotation": [ConvertRotation("yaw", "rot6d", start=2), Normalize({"*": "min_max"}), ImageToFloat()],
}
RAW_KIND = {"absolute": "ee_delta"}


def pipeline(name: str) -> Pipeline:
    spec = SPEC if name not in RAW_KIND else _with_kind(RAW_KIND[name])
    return Pipeline(tuple(CHAINS[name])).bind(spec).fit(Windows())


def _with_kind(kind: str) -> Spec:
    return Spec.from_dict(SPEC.to_dict() | {"action": SPEC.to_dict()["action"] | {"kind": kind}})


@pytest.mark.parametrize("name", CHAINS)
def test_the_inverse_undoes_the_forward(name):
    chain = pipeline(name)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**31), st.integers(1, 5))
    def property_holds(seed, rows):
        given_batch = batch(seed, rows)
        given_batch["action"][..., 2] = given_batch["observation.state"][:, -1:, 2] + torch.rand(rows, 5) * 3
        if name == "rotation":
            given_batch["action"][..., 2] = torch.rand(rows, 5) * 6 - 3
        if name == "delta":
            given_batch["action"][..., 2] = given_batch["observation.state"][:, -1:, 2] + torch.rand(rows, 1) * 3
        kept = {key: value.clone() if torch.is_tensor(value) else list(value) for key, value in given_batch.items()}
        encoded, _ = chain.encode(given_batch)
        observed = {key: value for key, value in given_batch.items() if key not in ("action", "action_is_pad")}
        _, trace = chain.encode(observed)
        torch.testing.assert_close(chain.decode(encoded["action"], trace), kept["action"], atol=1e-4, rtol=1e-4)
        for key, value in kept.items():
            assert torch.equal(given_batch[key], value) if torch.is_tensor(value) else given_batch[key] == value

    property_holds()


@pytest.mark.parametrize("name", CHAINS)
def test_the_spec_says_what_the_forward_gives(name):
    chain = pipeline(name)
    spec = chain.transform_spec(SPEC if name not in RAW_KIND else _with_kind(RAW_KIND[name]))
    encoded = chain.forward(batch(1))
    assert encoded["action"].shape[-1] == spec.action.dim
    for key, feature in spec.observations.items():
        assert encoded[key].shape[2:] == feature.shape
        assert str(encoded[key].dtype) == f"torch.{feature.dtype}"


@pytest.mark.parametrize("name", CHAINS)
def test_plain_data_brings_a_pipeline_back(name):
    chain = pipeline(name)
    plain, tensors = chain.to_plain()
    again = Pipeline.from_plain(json.loads(json.dumps(plain)), tensors)
    assert again == chain
    first, second = chain.forward(batch(3)), again.forward(batch(3))
    assert torch.equal(first["action"], second["action"])
    assert torch.equal(pickle.loads(pickle.dumps(chain)).forward(batch(3))["action"], first["action"])


def test_statistics_are_those_of_the_relative_chunk_without_padding():
    windows = Windows(200)
    chain = Pipeline((RelativeAction(POSE, angles=("yaw",)), Normalize({"*": "mean_std"}))).bind(SPEC).fit(windows, 7)
    relative = chain.transforms[0].forward(windows.all)["action"][~windows.all["action_is_pad"]].double()
    stats = chain.transforms[1].stats
    torch.testing.assert_close(stats["action/mean"].double(), relative.mean(0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(stats["action/std"].double(), relative.std(0, correction=0), atol=1e-6, rtol=1e-6)
    q99 = torch.quantile(relative, 0.99, dim=0)
    torch.testing.assert_close(stats["action/q99"].double(), q99, atol=1e-6, rtol=1e-6)
    assert int(stats["action/count"]) == len(relative)


@pytest.mark.parametrize("mode", ["min_max", "quantile", "mean_std"])
def test_a_constant_dimension_is_only_centred(mode):
    windows = Windows()
    windows.all["observation.goal"][..., 1] = 5.0
    normalize = Normalize({"*": mode}).bind(SPEC).fit([windows.all])
    result = normalize.forward(windows.all)["observation.goal"]
    assert torch.equal(result[..., 1], torch.zeros_like(result[..., 1]))
    moved = {**windows.all, "observation.goal": windows.all["observation.goal"] + 0.5}
    assert normalize.forward(moved)["observation.goal"][..., 1].max() <= 0.5 + 1e-6
    if mode == "min_max":
        assert result[..., 0].min() >= -1 - 1e-6
        assert result[..., 0].max() <= 1 + 1e-6


def test_missing_keys_and_modes_are_errors_that_say_what_exists():
    with pytest.raises(SpecError, match=r"observation\.goal"):
        Normalize({"action": "min_max", "observation.state": "min_max"}).bind(SPEC)
    with pytest.raises(SpecError, match=r"did you mean 'observation\.state'"):
        Normalize({"*": "min_max", "observation.stat": "mean_std"}).bind(SPEC)
    fitted = Normalize({"*": "min_max"}).bind(SPEC).fit([Windows().all])
    with pytest.raises(DataError, match=r"observation\.goal"):
        fitted.forward({"observation.state": torch.zeros(1, 2, 4)})
    with pytest.raises(SpecError, match="no statistics"):
        Normalize({"action": "min_max"}).inverse(torch.zeros(1, 5, 4), {})
    with pytest.raises(SpecError, match="did you mean 'yaw'"):
        RelativeAction((("jaw", "yaw"),)).bind(SPEC)
    with pytest.raises(SpecError, match="0 to 3"):
        RelativeAction(((4, 0),)).bind(SPEC)
    with pytest.raises(ConfigError, match="bind"):
        RelativeAction(POSE).forward(batch(0))
    with pytest.raises(SpecError, match="kind of action"):
        AbsoluteAction(POSE).bind(SPEC).transform_spec(SPEC)
    with pytest.raises(DataError, match="uint8"):
        ImageToFloat(("observation.goal",)).forward(batch(0))


def test_statistics_refuse_what_is_not_finite():
    windows = Windows()
    windows.all["action"][3, 2, 1] = math.nan
    windows.all["action_is_pad"][:] = False
    with pytest.raises(DataError, match="'action' holds a value that is not finite"):
        Pipeline((Normalize({"*": "min_max"}),)).bind(SPEC).fit(windows)


@pytest.mark.parametrize(
    "plain",
    [
        {"name": "normalize", "modes": {"*": "min_max"}},
        [{"modes": {"*": "min_max"}}],
        [{"name": "normalise", "modes": {"*": "min_max"}}],
        [{"name": "os:system", "command": "true"}],
        [{"name": "robolearn.transforms.normalize:Normalize", "modes": {"*": "min_max"}}],
        [{"name": "normalize", "modes": {"*": "min_max"}, "flor": 1.0}],
        [{"name": "normalize", "modes": {"*": "minmax"}}],
        [{"name": "normalize", "modes": {"*": "min_max"}, "stats": {"action/min": [0.0]}}],
        [{"_target_": "os.system", "name": "normalize", "modes": {}}],
    ],
)
def test_only_registered_names_and_known_keys_are_read(plain):
    with pytest.raises((ConfigError, RegistryError)):
        Pipeline.from_plain(plain)


def test_relative_angles_take_the_short_way():
    chain = Pipeline((RelativeAction(((0, 0),), angles=(0,)),))
    observed = {"observation.state": torch.tensor([[[3.0]]])}
    action = torch.tensor([[[-3.0], [3.1]]])
    relative = chain.forward({**observed, "action": action})["action"]
    torch.testing.assert_close(relative.flatten(), torch.tensor([2 * math.pi - 6, 0.1]))
    back = chain.decode(relative, [observed])
    torch.testing.assert_close(back.flatten(), torch.tensor([2 * math.pi - 3, 3.1]))


def test_deltas_follow_the_previous_target():
    chain = Pipeline((DeltaAction(((0, 1),)),))
    observed = {"observation.state": torch.tensor([[[9.0, 1.0]]])}
    action = torch.tensor([[[2.0, 5.0], [4.0, 6.0], [3.0, 7.0]]])
    delta = chain.forward({**observed, "action": action})["action"]
    assert torch.equal(delta, torch.tensor([[[1.0, 5.0], [2.0, 6.0], [-1.0, 7.0]]]))


FORMS = {
    "euler_xyz": lambda r: r.as_euler("xyz"),
    "axis_angle": lambda r: r.as_rotvec(),
    "quat_xyzw": lambda r: r.as_quat(canonical=True),
    "quat_wxyz": lambda r: r.as_quat(canonical=True, scalar_first=True),
    "rot6d": lambda r: np.concatenate([r.as_matrix()[..., 0], r.as_matrix()[..., 1]], -1),
}


def _rotations() -> Rotation:
    edge = Rotation.from_rotvec(np.array([[0, 0, 0], [math.pi - 1e-4, 0, 0], [0, 2.0, 0], [0, 0, -3.0], [1e-9, 0, 0]]))
    return Rotation.concatenate([Rotation.random(300, rng=np.random.default_rng(0)), edge])


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("source", FORMS)
def test_rotation_forms_agree_with_scipy(source, target):
    rotations = _rotations()
    given_form = torch.as_tensor(FORMS[source](rotations))
    torch.testing.assert_close(
        convert_rotation(given_form, source, target), torch.as_tensor(FORMS[target](rotations)), atol=1e-7, rtol=1e-6
    )


def test_yaw_is_the_turn_about_z():
    yaw = torch.linspace(-3.1, 3.1, 50, dtype=torch.float64)[:, None]
    for form in FORMS:
        torch.testing.assert_close(convert_rotation(convert_rotation(yaw, "yaw", form), form, "yaw"), yaw)


def test_quaternions_are_found_by_their_names_and_become_continuous():
    hand, cube = (tuple(f"{stem}[{i}]" for i in range(4)) for stem in ("hand_quat", "cube_quat_site"))
    spec = Spec(
        observations={
            "observation.state": Feature(shape=(10,), names=("z", *hand, *cube, "width")),
            "observation.goal": Feature(shape=(3,)),
        },
        action=ActionSpec(dim=4),
        rate_hz=20.0,
    )
    bound = Pipeline((ContinuousRotations(),)).bind(spec)
    plain, tensors = bound.to_plain()
    assert Pipeline.from_plain(plain, tensors) == bound
    turns = _rotations().as_quat()
    state = np.concatenate([np.ones((len(turns), 1)), turns, -turns, np.full((len(turns), 1), 2.0)], 1)
    result = bound.forward({"observation.state": torch.as_tensor(state)})["observation.state"].numpy()
    np.testing.assert_allclose(result[:, 1:7], FORMS["rot6d"](_rotations()), atol=1e-7)
    np.testing.assert_allclose(result[:, 1:7], result[:, 7:13], atol=1e-12)
    np.testing.assert_array_equal(result[:, [0, 13]], state[:, [0, 9]])
    assert bound.transform_spec(spec).observations["observation.state"].shape == (14,)
    with pytest.raises(SpecError, match="finds no quaternion"):
        Pipeline((ContinuousRotations(),)).bind(SPEC)


def test_euler_angles_at_the_gimbal_lock_keep_the_rotation():
    angles = torch.tensor([[0.3, math.pi / 2, -0.8], [0.3, -math.pi / 2, -0.8]], dtype=torch.float64)
    matrix = convert_rotation(angles, "euler_xyz", "rot6d")
    again = convert_rotation(convert_rotation(matrix, "rot6d", "euler_xyz"), "euler_xyz", "rot6d")
    torch.testing.assert_close(again, matrix, atol=1e-6, rtol=0)


def test_pictures_become_floats_and_are_resized():
    raw = batch(0)
    result = ImageToFloat(("observation.images.top",)).forward(raw)["observation.images.top"]
    assert torch.equal(result, raw["observation.images.top"].permute(0, 1, 4, 2, 3) / 255)
    small = ImageToFloat(("observation.images.top",), size=(4, 3)).forward(raw)["observation.images.top"]
    assert small.shape == (3, 2, 3, 4, 3)
    assert abs(small.mean() - result.mean()) < 0.02


def test_every_registered_transform_has_its_name():
    for name in names("transform"):
        fields = resolve("transform", name).__dataclass_fields__
        assert fields["name"].default == name
