"""Recording, replay and rollouts with interventions on the twin, on a simulated clock."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from robolearn.errors import HardwareError
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.hardware.simulated import SimulatedSession
from robolearn.hardware.teleop import Scripted, Twist
from robolearn.plan import Execution
from robolearn.robots.panda import PANDA
from robolearn.spec import ActionSpec, Feature, Spec


class Seeker:
    """A straight line from the tool to the marker; `blind` ones go nowhere."""

    noise_shape = (0,)

    def __init__(self, blind=False):
        observations = {
            "observation.state": Feature(shape=(5,), names=("x", "y", "z", "yaw", "width")),
            "observation.environment_state": Feature(shape=(6,)),
        }
        names = ("x", "y", "z", "yaw", "gripper")
        action = ActionSpec(5, "ee_pose", names, rotation="yaw", gripper="positive_closes")
        self.spec = Spec(observations, action, rate_hz=20.0, chunk=16)
        self.blind, self.asked = blind, 0

    def act(self, obs, noise, prefix=None):
        self.asked += 1
        tool, goal = obs["observation.state"][0, -1, :3], obs["observation.environment_state"][0, -1, :3]
        away = np.zeros(3) if self.blind else goal - tool
        reach = np.linalg.norm(away)
        along = np.minimum(0.15 / 20 * np.arange(16), reach)[:, None] / max(reach, 1e-9)
        chunk = np.zeros((1, 16, 5))
        chunk[0, :, :3], chunk[0, :, 4] = tool + along * away, -1.0
        return chunk


class Helper:
    """A scripted human: takes over after some steps, steers to the marker, hands back or not."""

    def __init__(self, session_reading, after, back=None):
        self.read_state, self.after, self.back, self.step = session_reading, after, back, 0

    def read(self):
        self.step += 1
        if self.step == self.after:
            return Twist(mark="takeover")
        if self.back is not None and self.step == self.back:
            return Twist(mark="handback")
        return Twist((0.0, 0.0, 1.0)) if self.step > self.after else Twist()

    def close(self): ...


@pytest.fixture
def config():
    ros = RosRobotConfig(
        "forward", rate_hz=100.0, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1"
    )
    return RobotConfig(
        ros=ros,
        safety=SafetyConfig(),
        base_m=(-0.56, 0.0, 0.912),
        twin=TwinOptions("reach", "forward"),
    )


@pytest.fixture
def sinks():
    return []


@pytest.fixture
def open_sink(sinks, list_sink):
    def make(spec):
        sinks.append(list_sink(spec))
        return sinks[-1]

    return make


def test_record_then_replay(config, sinks, open_sink):
    closing, opening = (
        [Twist()] * 5 + [Twist((0.0, 0.0, 0.5), gripper=sign)] * 20 + [Twist()] * 5 for sign in (-1.0, 1.0)
    )
    device = Scripted([*opening, Twist(mark="discard"), *closing, Twist(mark="success")])
    result = commands.record(config, device, open_sink, "lift the tool", 1, simulated=True)
    assert result["episodes"] == 1
    (sink,) = sinks
    ((frames, metadata),) = sink.episodes
    assert (len(frames), metadata["success"], sink.closed) == (31, True, True)
    times = np.array([frame["timestamp"] for frame in frames])
    assert times == pytest.approx(0.05 * np.arange(31), abs=0.011)
    actions = np.array([frame["action"] for frame in frames])
    states = np.array([frame["observation.state"] for frame in frames])
    assert np.abs(states[1:, :7] - actions[:-1, :7]).max() < 0.03  # an action is about where the arm is one step later
    assert actions[-1, 7] < actions[0, 7] - 0.05
    assert all(frame["intervention"][0] == 1.0 for frame in frames)
    report = commands.replay(config, sink, 0, simulated=True)
    assert report["frames"] == 31
    assert report["median_error_rad"] < 0.03


def test_a_session_ends_at_stop(config, sinks, open_sink):
    device = Scripted([Twist()] * 5)
    assert commands.record(config, device, open_sink, "", 3, simulated=True)["episodes"] == 0
    assert sinks[0].episodes == []


def test_rollouts_succeed_and_say_how(config):
    result = commands.rollout(config, Seeker(), Execution(), 2, 120, seed=3, simulated=True)
    assert (result["successes"], result["trials"]) == (2, 2)
    assert [each["interventions"] for each in result["episodes"]] == [0, 0]
    again = commands.rollout(config, Seeker(), Execution(), 2, 120, seed=3, simulated=True)
    assert again["episodes"] == result["episodes"]


def test_who_acted_is_stored_per_step(config, sinks, open_sink):
    actor = Seeker(blind=True)
    result = commands.rollout(
        config, actor, Execution(), 1, 40, seed=3, device=Helper(None, 10, back=25), open_sink=open_sink, simulated=True
    )
    (episode,) = result["episodes"]
    assert episode["interventions"] == 1
    ((frames, metadata),) = sinks[0].episodes
    acted = np.array([frame["intervention"][0] for frame in frames])
    assert acted[:9].max() == 0
    assert acted[9:24].min() == 1
    assert acted[24:].max() == 0
    heights = np.array([frame["action"] for frame in frames])
    assert np.abs(np.diff(heights[:9, :7], axis=0)).max() < 5e-3
    assert np.abs(np.diff(heights[10:24, :7], axis=0)).max() > 5e-3
    assert metadata["success"] == episode["success"]


def test_a_discarded_rollout_is_not_recorded(config, sinks, open_sink):
    device = Scripted([Twist()] * 5 + [Twist(mark="discard")])
    options = {"device": device, "open_sink": open_sink, "simulated": True}
    (episode,) = commands.rollout(config, Seeker(), Execution(), 1, 40, seed=3, **options)["episodes"]
    assert (episode["steps"], episode["success"]) == (6, False)
    assert sinks[0].episodes == []


@pytest.mark.parametrize("away_m", [0.4, 3.0])
def test_a_human_takes_over_what_the_policy_made_hold(config, sinks, open_sink, away_m):
    """A first target too far away, or out of reach: nothing moves and nothing is recorded until the human acts."""
    actor = Seeker()
    act = actor.act
    actor.act = lambda obs, noise, prefix=None: act(obs, noise) + np.eye(5)[0] * away_m
    options = {"device": Helper(None, 20), "open_sink": open_sink, "simulated": True}
    result = commands.rollout(config, actor, Execution(), 1, 40, seed=3, **options)
    (episode,) = result["episodes"]
    assert (episode["interventions"], episode["human_steps"], episode["steps"]) == (1, 21, 40)
    assert episode["mode"] in ("run", "ramp_in")
    ((frames, _),) = sinks[0].episodes
    assert [int(frame["intervention"][0]) for frame in frames[-21:]] == [1] * 21
    assert len(frames) < 25
    heights = np.array([frame["action"] for frame in frames[-21:]])
    assert np.abs(np.diff(heights[:, :7], axis=0)).max() > 5e-3


def test_without_a_human_what_cannot_be_done_ends_the_episode_not_the_session(config):
    actor, asked = Seeker(), []
    act = actor.act

    def far_at_first(obs, noise, prefix=None):
        asked.append(len(asked))
        return act(obs, noise) + np.eye(5)[0] * (3.0 if len(asked) == 1 else 0.0)

    actor.act = far_at_first
    first, second = commands.rollout(config, actor, Execution(), 2, 120, seed=3, simulated=True)["episodes"]
    assert (first["success"], first["steps"], first["mode"]) == (False, 1, "hold")
    assert "cannot reach" in first["problem"]
    assert (second["success"], second["problem"]) == (True, "")


class Rewinder:
    """Takes the arm back along its way after 20 steps, waits, hands it back."""

    def __init__(self):
        self.step, self.shown = 0, []

    def read(self):
        self.step += 1
        return Twist(mark={20: "rewind", 45: "handback"}.get(self.step, ""))

    def show(self, reading, signals):
        self.shown.append(signals["mode"])

    def close(self): ...


def test_a_rewound_arm_goes_back_along_its_way(config, sinks, open_sink):
    device = Rewinder()
    options = {"device": device, "open_sink": open_sink, "simulated": True, "action": "ee_pose"}
    result = commands.rollout(config, Seeker(), Execution(), 1, 120, seed=3, **options)
    (episode,) = result["episodes"]
    assert (episode["success"], episode["interventions"], episode["human_steps"]) == (True, 1, 25)
    assert len(device.shown) == episode["steps"]
    sink = sinks[0]
    assert (sink.spec.action.kind, sink.spec.action.names[-1]) == ("ee_pose", "gripper")
    ((frames, _),) = sink.episodes
    acted = [int(frame["intervention"][0]) for frame in frames]
    assert acted[:45] == [0] * 19 + [2] * 19 + [1] * 6 + [0]
    tool = np.array([frame["observation.state"][:3] for frame in frames])
    assert np.linalg.norm(tool[19] - tool[0]) > 0.05
    assert np.linalg.norm(tool[42] - tool[0]) < 0.02  # where it began
    back, there = tool[21:38], tool[:20]
    apart = np.linalg.norm(back[:, None] - there[None], axis=-1).min(1)
    assert apart.max() < 0.01  # along the way it had come
    actions = np.array([frame["action"] for frame in frames])
    assert np.linalg.norm(actions[:-1, :3] - tool[1:], axis=1).max() < 0.03
    assert set(actions[:, 4]) == {-1.0}  # the gripper stayed open


def test_a_logged_rollout_becomes_a_dataset(config, sinks, open_sink, tmp_path):
    from dataclasses import replace

    from robolearn.registry import resolve

    file = tmp_path / "rollout.mcap"
    logged = replace(config, log=str(file))
    result = commands.rollout(logged, Seeker(), Execution(), 1, 40, seed=3, open_sink=open_sink, simulated=True)
    keys = {
        "observation.state": {"topic": "/joint_states", "joints": [*PANDA.joints, "finger_joint1"]},
        "action": {"topic": "/forward_position_controller/commands"},
    }
    options = {"rate_hz": 20.0, "keys": keys, "action_kind": "joint_position", "max_age_s": 3.0}
    source = resolve("data", "rosbag")(file, options)
    read = source.read(0, ["observation.state", "action"])
    ((frames, _),) = sinks[0].episodes
    assert len(frames) <= len(read["action"]) < len(frames) + 60  # and how it came to rest
    states = np.array([frame["observation.state"][:7] for frame in frames])
    apart = np.abs(states[:, None] - read["observation.state"][None, :, :7]).max(-1).min(1)
    assert apart.max() < 0.02
    assert np.abs(read["action"] - read["observation.state"][:, :7]).max() < 0.1
    sink = resolve("sink", "lerobot")(tmp_path / "dataset", source.spec, {})
    for state, action in zip(read["observation.state"], read["action"], strict=True):
        sink.add_frame({"observation.state": state, "action": action, "task": "reach"})
    sink.save_episode({"success": result["episodes"][0]["success"]})
    sink.close()
    again = resolve("data", "auto")(tmp_path / "dataset", {})
    assert again.read(0, ["action"])["action"] == pytest.approx(read["action"])


def test_dds_on_a_simulated_clock_is_the_same(config):
    from dataclasses import replace

    pytest.importorskip("cyclonedds")
    outcomes = []
    for wire in ("memory", "dds"):
        twin = TwinOptions("reach", "forward", wire=wire)
        made = replace(config, domain=65, twin=twin)
        result = commands.rollout(made, Seeker(), Execution(), 2, 120, seed=3, simulated=True, first=1)
        outcomes.append((result["episodes"], result["status"]))
    assert [each["episode"] for each in outcomes[0][0]] == [1, 2]
    assert outcomes[0] == outcomes[1]


def test_a_real_robot_cannot_be_simulated(config):
    from dataclasses import replace

    with pytest.raises(HardwareError, match="Only a twin"):
        commands.rollout(replace(config, twin=None), Seeker(), Execution(), 1, 10, simulated=True)


def test_a_twin_of_a_cell_in_a_file(tmp_path):
    cell = tmp_path / "cell.xml"
    cell.write_text('<mujoco><worldbody><site name="base" pos="0 0 0.5"/></worldbody></mujoco>')
    ros = RosRobotConfig("forward", gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1")
    config = RobotConfig(ros=ros, twin=TwinOptions(str(cell), "forward"))
    with SimulatedSession(config, 16, 0.05) as session:
        assert session.twin.scene.state().position_rad == pytest.approx(PANDA.home_rad)
        assert session.twin.scene.data.body("robot0_base").xpos == pytest.approx([0, 0, 0.5])
