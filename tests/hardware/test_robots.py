"""Arms without a model here: their kinematics against other tables, and a motion through their drivers."""

import numpy as np
import pytest

from robolearn.contracts import RobotState
from robolearn.hardware.commands import list_robots
from robolearn.hardware.executor import Executor, ExecutorConfig
from robolearn.hardware.kinematics import Kinematics, rotation
from robolearn.hardware.lerobot_robot import AsLeRobot, FromLeRobot
from robolearn.hardware.limits import limits_of
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.ring import Ring
from robolearn.hardware.ros_robot import RosRobot, RosRobotConfig, robot_spec
from robolearn.hardware.safety import Mode
from robolearn.hardware.twin import Twin, TwinConfig
from robolearn.registry import resolve

ARMS = ("fr3", "xarm7", "so101")
MS = 1_000_000


class Following:
    """Joints and a gripper that are where they were told to be."""

    dt_s = 0.01

    def __init__(self, arm):
        self.joint_names, self.q, self.width = arm.joints, np.array(arm.home_rad), 0.5 * arm.gripper.width_m

    def reset(self, seed): ...

    def step(self, target_rad, gripper_m):
        self.q, self.width = np.array(target_rad), gripper_m

    def state(self):
        return RobotState(0, self.joint_names, self.q, np.zeros(len(self.q)), self.width)


def turned(a, d, alpha, theta):
    """One row of a standard Denavit-Hartenberg table."""
    ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array([[ct, -st * ca, st * sa, a * ct], [st, ct * ca, -ct * sa, a * st], [0, sa, ca, d], [0, 0, 0, 1]])


def test_xarm7_is_as_its_published_table():
    """UFACTORY's user manual, "xArm 7 D-H parameters"."""
    half, arm = np.pi / 2, resolve("robot", "xarm7")
    table = [(0, 0.267, -half), (0, 0, half), (0.0525, 0.293, half), (0.0775, 0, half), (0, 0.3425, half)]
    table += [(0.076, 0, -half), (0, 0.097, 0)]
    kinematics, draw = Kinematics(arm), np.random.default_rng(0)
    for q in draw.uniform(arm.low_rad, arm.high_rad, (20, 7)):
        pose = np.eye(4)
        for (a, d, alpha), theta in zip(table, q, strict=True):
            pose = pose @ turned(a, d, alpha, theta)
        (point,), (axes,) = kinematics.pose(q[None])
        assert point == pytest.approx((pose @ [0, 0, arm.tool_m[2], 1])[:3], abs=1e-9)
        assert axes == pytest.approx(pose[:3, :3], abs=1e-9)


def test_fr3_points_down_at_home():
    arm = resolve("robot", "fr3")
    (point,), (axes,) = Kinematics(arm).pose(np.array([arm.home_rad]))
    assert axes[:, 2] == pytest.approx([0, 0, -1], abs=1e-9)
    assert point == pytest.approx([0.307, 0.0, 0.487], abs=5e-4)  # as the maker's examples print O_T_EE


def test_so101_is_as_mujoco_has_its_designers_model():
    mujoco = pytest.importorskip("mujoco")
    arm = resolve("robot", "so101")
    spec = mujoco.MjSpec()
    body = spec.worldbody
    for name, link in zip(arm.joints, arm.links, strict=True):
        body = body.add_body(pos=link.position_m, quat=link.quat_wxyz)
        body.add_joint(name=name, axis=(0, 0, 1))
        body.add_geom(size=(0.01, 0, 0))
    body.add_site(name="tool", pos=arm.tool_m)
    model = spec.compile()
    data, draw = mujoco.MjData(model), np.random.default_rng(0)
    for q in draw.uniform(arm.low_rad, arm.high_rad, (20, 5)):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        assert Kinematics(arm).tool(q[None])[0] == pytest.approx(data.site("tool").xpos, abs=1e-6)
    (straight,) = Kinematics(arm).tool(np.zeros((1, 5)))
    assert straight == pytest.approx([0.391, 0.0, 0.226], abs=5e-3)  # its arm stretched out to the front
    assert rotation(arm.tool_quat_wxyz)[:, 2] == pytest.approx([0, 0, -1])


@pytest.mark.parametrize("name", ARMS)
def test_a_chunk_moves_it_through_its_driver(name):
    arm, now = resolve("robot", name), 10_000 * MS
    graph = MemoryGraph(lambda: now)
    scene = Following(arm)
    names = TwinConfig("forward", gripper_joint="gripper_joint")
    twin = Twin(scene, MemoryTransport(graph), names, lambda: now)
    ros = {"gripper_topic": names.gripper_topic, "gripper_joint": names.gripper_joint}
    robot = RosRobot(arm, MemoryTransport(graph), RosRobotConfig("forward", 100.0, **ros))
    robot.join()
    twin.tick(now)
    joints = len(arm.joints)
    chunks = Ring.create((64, joints + 1))
    width = {"gripper_width_m": arm.gripper.width_m}
    executor = Executor(limits_of(arm, 100.0), robot, chunks, ExecutorConfig(0.05, **width))
    executor.request("arm", now)
    goal = np.append(np.array(arm.home_rad) + 0.05, arm.gripper.width_m)
    chunks.write(now, np.tile(goal, (64, 1)))
    for _ in range(200):
        now += 10 * MS
        twin.tick(now)
        executor.tick(now)
    assert executor.state.mode == Mode.RUN
    assert scene.q == pytest.approx(goal[:joints], abs=1e-3)
    assert scene.width == pytest.approx(arm.gripper.width_m)
    chunks.remove()


@pytest.mark.parametrize("name", ARMS)
def test_it_is_a_lerobot_robot(name):
    arm = resolve("robot", name)

    class Arm:
        spec = robot_spec(arm, 50.0, gripper=True)

        def __init__(self):
            self.row = np.append(arm.home_rad, 0.02)

        def connect(self): ...

        def close(self): ...

        def read(self):
            return RobotState(1, arm.joints, self.row[:-1], np.zeros(len(arm.joints)), float(self.row[-1]))

        def send(self, positions_rad, stamp_ns):
            self.row = np.array(positions_rad)
            return self.row

    robot = FromLeRobot(AsLeRobot(Arm(), arm), arm, 50.0)
    robot.connect()
    wanted = np.append(np.array(arm.home_rad) + 0.1, 0.03)
    assert robot.send(wanted, 0) == pytest.approx(wanted)
    assert robot.read().position_rad == pytest.approx(wanted[:-1])


def test_all_of_them_are_deployable():
    assert {row["name"] for row in list_robots() if row["deployable"]} >= set(ARMS)
