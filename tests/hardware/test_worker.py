"""Policy → ring → executor → topics → MuJoCo twin on a simulated clock, on the reach task."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from robolearn.errors import ConfigError, HardwareError, SpecError
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.observe import ActionMap
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.plan import Execution
from robolearn.robots.panda import PANDA
from robolearn.spec import ActionSpec, Feature, Spec

BASE_M = (-0.56, 0.0, 0.912)
STATE = ("x", "y", "z", "yaw", "width")


class Seeker:
    """A scripted actor: a straight line from the tool to the marker at 0.15 m/s, as a chunk of tool poses."""

    noise_shape = (0,)

    def __init__(self):
        observations = {
            "observation.state": Feature(shape=(5,), names=STATE),
            "observation.environment_state": Feature(shape=(6,)),
            "task": Feature(kind="text", dtype="str"),
        }
        names = ("x", "y", "z", "yaw", "gripper")
        action = ActionSpec(5, "ee_pose", names, rotation="yaw", gripper="positive_closes")
        self.spec = Spec(observations, action, rate_hz=20.0, history=2, chunk=16)
        self.tasks = set()

    def act(self, obs, noise, prefix=None):
        self.tasks.add(str(obs["task"][0, -1]))
        tool, goal = obs["observation.state"][0, -1, :3], obs["observation.environment_state"][0, -1, :3]
        away = goal - tool
        reach = np.linalg.norm(away)
        along = np.minimum(0.15 / 20 * np.arange(16), reach)[:, None] / max(reach, 1e-9)
        chunk = np.zeros((1, 16, 5))
        chunk[0, :, :3], chunk[0, :, 4] = tool + along * away, -1.0
        return chunk


def config(controller="jtc", personality="jtc", latency_s=0.0):
    ros = RosRobotConfig(controller, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1")
    return RobotConfig(ros=ros, base_m=BASE_M, twin=TwinOptions("reach", personality, latency_s=latency_s))


class Correcting(Seeker):
    """A policy whose chunks are only half of what it does."""

    def correct(self, obs, action):
        return action


def test_a_policy_that_corrects_every_step_is_refused():
    with pytest.raises(HardwareError, match="corrects its action in every step"):
        commands.rollout(config(), Correcting(), Execution(), 1, 20, seed=3, simulated=True)


@pytest.mark.parametrize(
    ("controller", "personality", "latency_s"), [("jtc", "jtc", 0.0), ("jtc", "jtc", 0.2), ("forward", "ur", 0.1)]
)
def test_a_policy_reaches_through_the_whole_stack(controller, personality, latency_s):
    actor = Seeker()
    result = commands.rollout(
        config(controller, personality, latency_s), actor, Execution(), 1, 120, seed=3, simulated=True
    )
    (episode,) = result["episodes"]
    assert episode["success"]
    assert episode["mode"] == "run"
    assert actor.tasks == {"reach the marker"}


@pytest.mark.parametrize(("arm", "controller", "personality"), [("ur5e", "forward", "ur"), ("kinova3", "jtc", "jtc")])
def test_other_arms_reach(arm, controller, personality):
    made = replace(config(controller, personality), arm=arm)
    result = commands.rollout(made, Seeker(), Execution(), 1, 160, seed=3, simulated=True)
    (episode,) = result["episodes"]
    assert (episode["success"], episode["mode"]) == (True, "run")


def test_a_policy_that_answers_nonsense_never_moves_the_arm():
    actor = Seeker()
    actor.act = lambda obs, noise, prefix=None: np.full((1, 16, 5), np.nan)
    result = commands.rollout(config(), actor, Execution(), 1, 20, simulated=True)
    (episode,) = result["episodes"]
    assert (episode["success"], episode["steps"], episode["mode"]) == (False, 1, "hold")
    assert "non-finite" in episode["problem"]
    assert result["status"].get("chunks", 0) == 0  # nothing was asked of the arm


def test_the_noise_is_as_large_as_the_temperature(home):
    from robolearn.contracts import RobotState
    from robolearn.hardware.observe import Reading
    from robolearn.hardware.ring import Ring
    from robolearn.hardware.worker import PolicyWorker

    seen = {}
    for temperature in (1.0, 0.5):
        actor, chunks = Seeker(), Ring.create((16, 8))
        actor.noise_shape, act = (3,), actor.act
        actor.act = lambda obs, noise, prefix=None, t=temperature, act=act: seen.update({t: noise}) or act(obs, noise)
        worker = PolicyWorker(actor, PANDA, chunks, np.array(BASE_M), Execution(4, temperature=temperature))
        worker.begin(0)
        signals = {"observation.environment_state": np.zeros(6, np.float32)}
        worker.step(Reading(RobotState(1, PANDA.joints, home, np.zeros(7), 0.08), {}, signals, "reach"))
        chunks.remove()
    assert np.abs(seen[1.0]).min() > 0
    assert np.array_equal(seen[0.5], 0.5 * seen[1.0])


def test_committed_actions_are_the_prefix_of_the_next_chunk(home):
    from robolearn.contracts import RobotState
    from robolearn.hardware.observe import Reading
    from robolearn.hardware.ring import Ring
    from robolearn.hardware.worker import PolicyWorker

    actor, given = Seeker(), []
    act = actor.act
    actor.act = lambda obs, noise, prefix=None: given.append(prefix) or act(obs, noise)
    chunks = Ring.create((16, 8))
    worker = PolicyWorker(actor, PANDA, chunks, np.array(BASE_M), Execution(4, 3, continuity="committed"))
    signals = {"observation.environment_state": np.array([0.1, 0, 1, 0, 0, 0])}
    for step in range(9):
        worker.step(Reading(RobotState(step, PANDA.joints, home, np.zeros(7), 0.08), {}, signals, "reach"))
    assert given[0] is None
    assert [prefix.shape for prefix in given[1:]] == [(1, 3, 5)] * 2
    first = act({k: np.asarray(v)[None, None] for k, v in _seen(home, signals).items()}, None)
    assert given[1] == pytest.approx(first[:, 4:7])
    worker.begin(1)
    worker.step(Reading(RobotState(9, PANDA.joints, home, np.zeros(7), 0.08), {}, signals, "reach"))
    assert given[-1] is None
    with pytest.raises(ConfigError, match="too short"):
        PolicyWorker(actor, PANDA, chunks, np.array(BASE_M), Execution(4, 5))
    with pytest.raises(ConfigError, match="too short"):
        PolicyWorker(actor, PANDA, chunks, np.array(BASE_M), Execution(14, 3))
    chunks.remove()


class Fickle:
    """Changes its mind at every decision; continues a chunk whose beginning it is told."""

    noise_shape = (0,)

    def __init__(self):
        names = (*PANDA.joints, "gripper")
        state = Feature(shape=(8,), names=names)
        self.spec = Spec({"observation.state": state}, ActionSpec(8, "joint_position", names), rate_hz=20.0, chunk=16)
        self.decisions = 0

    def act(self, obs, noise, prefix=None):
        self.decisions += 1
        chunk = np.zeros((1, 16, 8))
        chunk[0, :, 6] = 0.1 * (-1) ** self.decisions
        if prefix is not None:
            known = prefix.shape[1]
            chunk[0, :known] = prefix[0]
            fade = np.linspace(0, 1, 17 - known)[1:, None]
            chunk[0, known:] = (1 - fade) * prefix[0, -1] + fade * chunk[0, known:]
        return chunk


def executed(continuity, delay, steps=33):
    """Return the last joint's action at every step when chunks arrive `delay` steps after their observation."""
    from robolearn.contracts import RobotState
    from robolearn.hardware.observe import Reading
    from robolearn.hardware.ring import Ring
    from robolearn.hardware.worker import PolicyWorker

    ring = Ring.create((16, 8))
    worker = PolicyWorker(Fickle(), PANDA, ring, np.zeros(3), Execution(6, delay, continuity=continuity))
    chunks, done = [], []
    for step in range(steps):
        targets = worker.step(Reading(RobotState(step, PANDA.joints, np.zeros(7), np.zeros(7), 0.08)))
        if targets is not None:
            chunks.append((step, targets))
        arrived = [(begun, chunk) for begun, chunk in chunks if begun + delay <= step or begun == 0]
        begun, chunk = arrived[-1]
        done.append(chunk[step - begun, 6])
    ring.remove()
    return np.array(done)


@pytest.mark.parametrize("delay", [0, 2, 4, 6])
def test_continuity_joins_chunks_across_the_delay(delay):
    jumps = {name: np.abs(np.diff(executed(name, delay))).max() for name in ("none", "committed", "rest", "blend")}
    assert jumps["none"] == pytest.approx(0.2)
    assert jumps["rest"] < 0.05
    assert jumps["blend"] < 0.15
    if delay:
        assert jumps["committed"] < 0.05
    else:  # nothing is committed
        assert jumps["committed"] == pytest.approx(0.2)


@pytest.mark.parametrize(("continuity", "delay_steps"), [("committed", 2), ("blend", 0)])
def test_continuity_reaches_through_the_whole_stack(continuity, delay_steps):
    result = commands.rollout(
        config("forward", "ur", 0.1),
        Seeker(),
        Execution(8, delay_steps, continuity=continuity),
        1,
        120,
        seed=3,
        simulated=True,
    )
    (episode,) = result["episodes"]
    assert (episode["success"], episode["mode"]) == (True, "run")


def _seen(home, signals):
    from robolearn.contracts import RobotState
    from robolearn.hardware.observe import Reading, observation

    state = RobotState(0, PANDA.joints, home, np.zeros(7), 0.08)
    return observation(Reading(state, {}, signals, "reach"), Seeker().spec, PANDA, np.array(BASE_M))


def test_poses_out_of_reach_are_refused(home):
    actions = ActionMap(Seeker().spec, PANDA, np.array(BASE_M))
    with pytest.raises(HardwareError, match="cannot reach"):
        actions.joints(np.array([[3.0, 0, 1, 0, 1]]), home)


def test_gripper_signs_become_widths(home):
    actions = ActionMap(Seeker().spec, PANDA, np.array(BASE_M))
    chunk = np.tile([0.0, 0.0, 1.0, 0.0, 1.0], (2, 1))
    chunk[1, 4] = -1
    assert actions.joints(chunk, home)[:, 7].tolist() == [0.0, 0.08]


@pytest.mark.parametrize(
    "action",
    [
        ActionSpec(7, "ee_delta", rotation="axis_angle"),
        ActionSpec(8, "joint_velocity", (*PANDA.joints, "gripper")),
        ActionSpec(8, "joint_position", ("a",) * 8),
        ActionSpec(2),
    ],
)
def test_other_actions_are_refused(action):
    with pytest.raises(SpecError, match="cannot be executed"):
        ActionMap(Spec({}, action, 10.0), PANDA, np.zeros(3))


def test_another_robots_policy_is_refused():
    action = ActionSpec(8, "joint_position", (*PANDA.joints, "gripper"))
    with pytest.raises(SpecError, match="another robot"):
        ActionMap(Spec({}, action, 10.0, robot="ur5e"), PANDA, np.zeros(3))
    same = ActionMap(Spec({}, action, 10.0, robot="panda"), PANDA, np.zeros(3))
    assert same.joints(np.arange(16.0).reshape(2, 8), np.zeros(7)).tolist() == np.arange(16.0).reshape(2, 8).tolist()
