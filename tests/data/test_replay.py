"""Replay, re-expressed actions, and pictures side by side."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.cli import main
from robolearn.collect import CollectConfig, collect
from robolearn.data.commands import convert
from robolearn.data.compare import compare
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.reexpress import Reexpressed, arm_tool
from robolearn.data.replay import replay
from robolearn.data.synthetic import camera_spec, record
from robolearn.errors import DataError, SpecError
from robolearn.registry import resolve
from robolearn.rollout import ExpertController
from robolearn.spec import ActionSpec, Feature, Spec

TOP = "observation.images.top"


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """Three demonstrations of the task `reach`."""
    root = tmp_path_factory.mktemp("replay") / "set"
    env = make_env("robolearn/reach", 2)
    with LeRobotWriter(root, env.spec) as sink:
        collect(env, ExpertController(env.expert(), 0), sink, CollectConfig(3, 2))
    env.close()
    return root


@pytest.mark.parametrize("through", ["", "ee_delta"])
def test_demonstrations_replay(demonstrations, through):
    result = replay({"path": str(demonstrations), "env": "robolearn/reach", "through": through})
    assert (result["succeeded"], result["of"]) == (3, 3)
    assert result["largest_drift"] <= (1e-3 if through else 1e-5)  # actions are stored in single precision
    assert all(item["recorded_success"] for item in result["episodes"].values())


def test_other_actions_do_not_replay(demonstrations, tmp_path):
    with pytest.raises(SpecError, match="dim: 5 instead of 2"):
        replay({"path": str(demonstrations), "env": "pusht"})
    with pytest.raises(DataError, match="not there"):
        replay({"path": str(demonstrations), "env": "robolearn/reach", "episodes": [7]})
    convert({"path": str(demonstrations), "out": str(tmp_path / "steps"), "actions": "ee_delta"})
    steps = LeRobotReader(tmp_path / "steps")
    assert (steps.spec.action.kind, steps.spec.action.reference) == ("ee_delta", "previous_target")
    with pytest.raises(SpecError, match="kind: ee_delta instead of ee_pose"):
        replay({"path": str(tmp_path / "steps"), "env": "robolearn/reach"})
    back = Reexpressed(steps, "ee_pose")
    original = LeRobotReader(demonstrations).read(1, ["action"])["action"]
    assert np.allclose(back.read(1, ["action"])["action"], original, atol=1e-5)
    assert np.array_equal(back.read(1, ["action"], 2, 4)["action"], back.read(1, ["action"])["action"][2:4])


class Joints:
    """One episode of smooth joint targets with a gripper."""

    def __init__(self, arm):
        joints = len(arm.joints)
        self.spec = Spec(
            {"observation.state": Feature("signal", (joints,), unit="rad")},
            ActionSpec(joints + 1, "joint_position", unit="rad"),
            rate_hz=20.0,
        )
        time = np.linspace(0, 1, 30)[:, None]
        phase = np.arange(joints)
        targets = np.array(arm.home_rad) + 0.2 * np.sin(2 * np.pi * time + phase) - 0.2 * np.sin(phase)
        self.action = np.concatenate([targets, np.sign(np.sin(9 * time))], 1).astype(np.float32)
        self.lengths = np.array([30])

    def read(self, episode, keys, start=0, stop=None):
        columns = {"action": self.action, "observation.state": self.action[:, :-1]}
        return {key: columns[key][start:stop] for key in keys}


def test_joints_to_steps_and_back():
    name = "panda"
    source = Joints(resolve("robot", name))
    steps = Reexpressed(source, "ee_delta", name)
    assert steps.spec.action.dim == 7
    assert steps.spec.action.rotation == "axis_angle"
    back = Reexpressed(steps, "joint_position", name)
    got = back.read(0, ["action"])["action"]
    tool, joints = arm_tool(name)
    one, two = (tool.pose(action[:, :joints].astype(np.float64)) for action in (source.action, got))
    assert np.abs(one[0] - two[0]).max() < 1e-4
    assert np.abs(one[1] - two[1]).max() < 1e-3
    assert np.array_equal(got[:, -1], source.action[:, -1])


def test_what_cannot_be_re_expressed():
    source = Joints(resolve("robot", "panda"))
    with pytest.raises(SpecError, match="arm=panda"):
        Reexpressed(source, "ee_delta")
    source.spec = replace(source.spec, action=replace(source.spec.action, dim=9))
    with pytest.raises(SpecError, match="at most a gripper"):
        Reexpressed(source, "ee_delta", "panda")


# ---------------------------------------------------------------- compare


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A dataset with a picture that looks different whichever way it is turned."""
    root = tmp_path_factory.mktemp("compare")
    rows, columns = np.mgrid[0:48, 0:64]
    picture = np.stack([rows * 4, columns * 3, (rows * columns) % 50 + 60 * (columns > 40)], -1).astype(np.uint8)
    picture[16:30, 20:44] = (240, 120, 20)
    picture[20:26, 24:30] = (0, 60, 250)
    spec = Spec({TOP: Feature("image", (48, 64, 3), "uint8")}, ActionSpec(1), rate_hz=10.0)
    with LeRobotWriter(root / "set", spec, WriterOptions(images="image")) as writer:
        writer.add_frame({TOP: picture, "action": np.zeros(1)})
        writer.save_episode()
    return root, picture


WAYS = {
    "as it is": lambda p: p,
    "upside down": lambda p: p[::-1],
    "mirrored": lambda p: p[:, ::-1],
    "turned by 180°": lambda p: p[::-1, ::-1],
    "blue and red swapped": lambda p: p[..., ::-1],
    "upside down, blue and red swapped": lambda p: p[::-1, :, ::-1],
    "too narrow by 1.43": lambda p: p[7:41, 10:54],
}


@pytest.mark.parametrize("name", list(WAYS))
def test_each_mistake_is_named(pictures, tmp_path, name):
    root, picture = pictures
    live = cv2.resize(np.ascontiguousarray(WAYS[name](picture)), (128, 96))
    live = np.clip(live * 0.8 + np.random.default_rng(0).normal(0, 4, live.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "live.png"), live[..., ::-1])
    out = tmp_path / "side.png"
    result = compare({"path": str(root / "set"), "image": str(tmp_path / "live.png"), "out": str(out)})
    assert result["live_is"] == name
    assert result["good"] == (name == "as it is")
    assert result["brightness"] == pytest.approx(0.8 * WAYS[name](picture).mean() / picture.mean(), rel=0.05)
    assert cv2.imread(str(out)).shape == (48, 192, 3)


def test_compare_with_an_environment(tmp_path, capsys):
    env = make_env("pusht", 1)
    env.reset(seed=[3])
    picture = env.render(0)
    env.close()
    spec = Spec({TOP: Feature("image", picture.shape, "uint8")}, ActionSpec(2), rate_hz=10.0)
    with LeRobotWriter(tmp_path / "set", spec, WriterOptions(images="image")) as writer:
        writer.add_frame({TOP: picture, "action": np.zeros(2)})
        writer.save_episode({"seed": 3})
    assert main(["data", "compare", str(tmp_path / "set"), str(tmp_path / "side.png"), "env=pusht"]) == 0
    assert "as it is" in capsys.readouterr().out
    assert (tmp_path / "side.png").exists()


def test_compare_says_what_is_missing(tmp_path):
    root = record(tmp_path / "set", [2], camera_spec(), WriterOptions(images="image"))
    with pytest.raises(DataError, match=r"did you mean 'observation\.images\.top'"):
        compare({"path": str(root), "camera": "observation.images.tpo", "image": "x"})
    with pytest.raises(DataError, match="does not exist"):
        compare({"path": str(root), "image": str(tmp_path / "none.png")})
