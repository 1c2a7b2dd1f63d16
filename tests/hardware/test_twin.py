"""The twin's control stacks, and executor → robot → topics → twin on a simulated clock."""

import numpy as np
import pytest

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.hardware import messages, personality
from robolearn.hardware.executor import Executor, ExecutorConfig
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.ring import Ring
from robolearn.hardware.ros_robot import RosRobot, RosRobotConfig
from robolearn.hardware.safety import Mode
from robolearn.hardware.transport import COMMAND, DEFAULT, Faults
from robolearn.hardware.twin import Twin, TwinConfig
from robolearn.robots.panda import PANDA

MS = 1_000_000
NAMES = ("a", "b")


class ToyScene:
    """Joints that follow their targets with 10 ms of lag."""

    joint_names, dt_s = PANDA.joints, 0.002

    def __init__(self):
        self.targets = []
        self.reset(0)

    def reset(self, seed):
        self.q, self.v, self.width = np.array(PANDA.home_rad), np.zeros(7), 0.08

    def step(self, target_rad, gripper_m):
        self.targets.append(np.array(target_rad))
        before = self.q
        self.q = self.q + 0.2 * (target_rad - self.q)
        self.v, self.width = (self.q - before) / self.dt_s, gripper_m

    def state(self):
        return RobotState(0, self.joint_names, self.q.copy(), self.v.copy(), self.width)

    def image(self, camera):
        return np.full((4, 6, 3), 7, np.uint8)


# ---------------------------------------------------------------- control stacks


def goal(positions, velocities=None, times=(0.1, 0.2), names=NAMES, stamp=0):
    velocities = np.zeros_like(positions) if velocities is None else velocities
    return messages.trajectory(names, np.array(times), np.array(positions), np.array(velocities), stamp)


def jtc():
    return personality.make("jtc", NAMES, np.zeros(2), 0.002)


REJECTED = {
    "names": goal([[0.1, 0.1], [0.2, 0.2]], names=("a", "c")),
    "size": goal([[0.1], [0.2]], names=NAMES),
    "times": goal([[0.1, 0.1], [0.2, 0.2]], times=(0.2, 0.2)),
    "end_velocity": goal([[0.1, 0.1], [0.2, 0.2]], [[0, 0], [0, 0.1]]),
    "empty": messages.trajectory(NAMES, np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2))),
    "stamp": goal([[0.1, 0.1], [0.2, 0.2]], stamp=5),
}


@pytest.mark.parametrize("reason", REJECTED)
def test_jtc_rejects(reason):
    control = jtc()
    control.receive(REJECTED[reason], 0)
    assert dict(control.rejected) == {reason: 1}
    assert control.target(10**9).tolist() == [0, 0]


def test_jtc_reorders_joints_and_ends_at_rest():
    control = jtc()
    control.receive(goal([[0.1, 0.2], [0.3, 0.4]], names=("b", "a")), 0)
    assert control.target(100 * MS) == pytest.approx([0.2, 0.1])
    assert control.target(300 * MS) == pytest.approx([0.4, 0.3])
    assert control.target(10**12) == pytest.approx([0.4, 0.3])


def test_jtc_takes_over_smoothly_from_a_running_trajectory():
    control = jtc()
    control.receive(goal([[0.1, 0.1], [0.2, 0.2]], [[1, 1], [0, 0]]), 0)
    before = [control.target(t * MS)[0] for t in range(60)]
    control.receive(goal([[0.1, 0.1], [0.2, 0.2]], [[1, 1], [0, 0]]), 59 * MS)
    after = [control.target(t * MS)[0] for t in range(59, 200)]
    steps = np.abs(np.diff(before + after[1:]))
    assert steps.max() < 3e-3


def test_jtc_does_not_check_finiteness():
    control = jtc()
    control.receive(goal([[np.nan, 0.1], [0.2, 0.2]]), 0)
    assert not control.rejected
    assert np.isnan(control.target(50 * MS)[0])


@pytest.mark.parametrize("name", ["forward", "ur", "franka"])
def test_wrong_sizes_are_errors(name):
    control = personality.make(name, NAMES, np.zeros(2), 0.002)
    control.receive(messages.float_array(np.zeros(3)), 0)
    assert control.rejected["size"] == 1


def test_forward_drops_what_is_not_finite_and_never_times_out():
    control = personality.make("forward", NAMES, np.zeros(2), 0.002)
    control.receive(messages.float_array(np.array([0.1, 0.2])), 0)
    control.receive(messages.float_array(np.array([np.nan, 0.2])), 0)
    assert control.rejected["not_finite"] == 1
    assert control.target(3600 * 10**9).tolist() == [0.1, 0.2]


def test_ur_ignores_excess_speed_then_extrapolates_and_stops():
    control = personality.make("ur", NAMES, np.zeros(2), 0.002)
    for i in range(1, 6):
        control.receive(messages.float_array(np.array([0.002 * i, 0.0])), i * 2 * MS)
    control.receive(messages.float_array(np.array([1.0, 0.0])), 12 * MS)
    assert control.rejected["speed"] == 1
    assert control.target(12 * MS)[0] == pytest.approx(0.01)
    assert control.target(72 * MS)[0] == pytest.approx(0.03)
    control.target(93 * MS)
    assert "timeout" in control.stopped
    control.receive(messages.float_array(np.zeros(2)), 94 * MS)
    assert control.rejected["stopped"] == 1


def test_franka_stops_on_lost_packets_nan_and_jumps():
    def fresh():
        control = personality.make("franka", NAMES, np.zeros(2), 0.001)
        control.receive(messages.float_array(np.zeros(2)), MS)
        return control

    control = fresh()
    control.target(20 * MS)
    assert control.stopped == ""
    control.target(22 * MS)
    assert "packets" in control.stopped
    control = fresh()
    control.receive(messages.float_array(np.array([np.nan, 0])), 2 * MS)
    assert "finite" in control.stopped
    control = fresh()
    control.receive(messages.float_array(np.array([0.1, 0])), 2 * MS)
    assert "discontinuity" in control.stopped
    assert control.target(3 * MS).tolist() == [0, 0]


def test_unknown_personalities_are_refused():
    with pytest.raises(HardwareError, match="did you mean 'forward'"):
        personality.make("foward", NAMES, np.zeros(2), 0.002)


# ---------------------------------------------------------------- the whole way


class Line:
    """Policy → ring → executor → robot → topics → twin, in lockstep; 4 ms ticks, the twin at 2 ms."""

    def __init__(self, limits, controller="jtc", personality="jtc", faults=None, **options):
        self.now = 10_000 * MS
        self.graph = MemoryGraph(lambda: self.now)
        self.scene = ToyScene()
        twin_config = TwinConfig(personality, **({"faults": faults} if faults else {}), cameras=("front",))
        self.twin = Twin(self.scene, MemoryTransport(self.graph), twin_config, lambda: self.now)
        config = RosRobotConfig(
            controller, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1", **options
        )
        self.robot = RosRobot(PANDA, MemoryTransport(self.graph), config)
        self.robot.join()
        self.chunks = Ring.create((32, 8))
        executor_config = ExecutorConfig(0.02, send_path=controller == "jtc")
        self.executor = Executor(limits, self.robot, self.chunks, executor_config)
        self.start = self.now
        self.twin_ticks(2)

    def twin_ticks(self, count):
        for _ in range(count):
            self.now += 2 * MS
            self.twin.tick(self.now)

    def reference(self, t):
        return np.append(np.array(PANDA.home_rad) + 0.15 * (1 - np.cos(0.4 * np.pi * t)), 0.04)

    def run(self, seconds, policy=True, executor=True):
        for i in range(round(seconds * 250)):
            if policy and i % 25 == 0:
                t = 1e-9 * (self.now - self.start)
                self.chunks.write(self.now, np.array([self.reference(t + 0.02 * k) for k in range(32)]))
            if executor:
                self.executor.tick(self.now)
            self.twin_ticks(2)

    def close(self):
        self.chunks.remove()


@pytest.fixture
def line(limits):
    made = []

    def make(**options):
        made.append(Line(limits, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


PAIRS = [("jtc", "jtc"), ("forward", "forward"), ("forward", "ur"), ("forward", "franka")]


@pytest.mark.parametrize(("controller", "stack"), PAIRS)
def test_a_policy_moves_the_twin(line, controller, stack):
    setup = line(controller=controller, personality=stack)
    setup.executor.request("arm", setup.now)
    setup.run(4.0)
    assert setup.executor.state.mode == Mode.RUN
    assert dict(setup.twin.control.rejected) == {}
    assert setup.twin.control.stopped == ""
    wanted = setup.reference(1e-9 * (setup.now - setup.start))
    assert np.abs(setup.scene.q - wanted[:7]).max() < 0.01
    assert setup.scene.width == pytest.approx(0.04)


@pytest.mark.parametrize(("controller", "stack"), PAIRS[:3])
def test_killing_the_policy_brings_the_arm_to_rest(line, controller, stack):
    setup = line(controller=controller, personality=stack)
    setup.executor.request("arm", setup.now)
    setup.run(2.0)
    setup.run(1.5, policy=False)
    assert setup.executor.state.mode == Mode.HOLD
    still = setup.scene.q.copy()
    setup.run(0.5)  # a new policy does not move it
    assert np.abs(setup.scene.q - still).max() < 1e-4


def test_killing_the_executor_lets_the_trajectory_controller_brake(line):
    setup = line()
    setup.executor.request("arm", setup.now)
    setup.run(1.2)
    assert np.abs(setup.scene.v).max() > 0.1
    count = len(setup.scene.targets)
    setup.run(1.0, executor=False)
    targets = np.array(setup.scene.targets[count - 3 :])
    speed = np.abs(np.diff(targets, axis=0)).max(axis=1) / 0.002
    assert speed[100:].max() == 0
    assert np.abs(np.diff(targets, 2, axis=0)).max() / 0.002**2 < 30


def test_dropped_delayed_and_repeated_states_are_survived(line, checker):
    setup = line(controller="forward", personality="forward", faults=Faults(0.2, 0.1, 0.2, 0.03, seed=3))
    sent = []
    publish = setup.robot._commands.publish
    setup.robot._commands.publish = lambda message: sent.append(np.array(message.data)) or publish(message)
    setup.executor.request("arm", setup.now)
    setup.run(4.0)
    assert setup.executor.state.mode == Mode.RUN
    check = checker()
    check.sent = [sent[0]] * 4 + sent
    assert check.violations() == []


def test_images_and_states_are_published(limits, line):
    setup = line()
    listener = MemoryTransport(setup.graph)
    images = listener.subscriber("/front/image_raw", "sensor_msgs/msg/Image", COMMAND)
    states = listener.subscriber("/joint_states", "sensor_msgs/msg/JointState", COMMAND)
    setup.twin_ticks(500)
    (image,) = images.take()
    assert (image.message.height, image.message.width, image.message.encoding) == (4, 6, "rgb8")
    assert (image.message.data == 7).all()
    (state,) = states.take()
    assert state.message.name == [*PANDA.joints, "finger_joint1"]


# ---------------------------------------------------------------- refusals of the robot


def joined(graph, **options):
    return RosRobot(PANDA, MemoryTransport(graph), RosRobotConfig(connect_s=0.05, **options))


def publish(graph, names, position, stamp):
    publisher = MemoryTransport(graph).publisher("/joint_states", "sensor_msgs/msg/JointState")
    publisher.publish(messages.joint_state(names, np.array(position, float), np.zeros(0), stamp))


def test_nobody_there_is_said():
    with pytest.raises(HardwareError, match="Nobody publishes /joint_states"):
        joined(MemoryGraph(lambda: 0)).connect()


def test_missing_joints_are_named():
    graph = MemoryGraph(lambda: 0)
    robot = joined(graph)
    robot.join()
    publish(graph, PANDA.joints[:6], np.zeros(6), 1)
    assert not robot.connected()
    assert "joint7" in str(robot._nobody())


def test_a_robot_without_a_controller_is_refused():
    graph = MemoryGraph(lambda: 0)
    robot = joined(graph)
    robot.join()
    publish(graph, PANDA.joints, np.zeros(7), 1)
    assert not robot.connected()
    assert "listens to /joint_trajectory_controller" in str(robot._nobody())


def test_joints_are_mapped_by_name():
    graph = MemoryGraph(lambda: 5)
    robot = joined(graph, joints=tuple(f"panda_{name}" for name in PANDA.joints))
    robot.join()
    names = [*[f"panda_{name}" for name in PANDA.joints][::-1], "other"]
    publish(graph, names, [7, 6, 5, 4, 3, 2, 1, 99], 1)
    state = robot.read()
    assert state.position_rad.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert state.names == PANDA.joints
    assert state.velocity_rad_s.tolist() == [0.0] * 7


def test_repeated_and_older_states_do_not_count_as_fresh():
    now = [0]
    graph = MemoryGraph(lambda: now[0])
    robot = joined(graph)
    robot.join()
    for now[0], stamp, fresh in ((10, 1000, 10), (20, 1000, 10), (30, 999, 10), (40, 1001, 40)):
        publish(graph, PANDA.joints, np.zeros(7), stamp)
        assert robot.read().stamp_ns == fresh


def test_a_state_of_another_size_is_not_taken():
    graph = MemoryGraph(lambda: 5)
    robot = joined(graph)
    robot.join()
    publish(graph, PANDA.joints, np.zeros(6), 1)
    with pytest.raises(HardwareError, match="not connected"):
        robot.read()


def test_a_second_commander_is_refused():
    graph = MemoryGraph(lambda: 0)
    kind = "trajectory_msgs/msg/JointTrajectory"
    MemoryTransport(graph).publisher("/joint_trajectory_controller/joint_trajectory", kind, DEFAULT)
    robot = joined(graph)
    robot.join()
    with pytest.raises(HardwareError, match="Somebody else"):
        robot.require_alone()
    joined(graph, share_command_topic=True).require_alone()


def test_velocity_forwarding_needs_a_watchdog():
    with pytest.raises(HardwareError, match="no time-out"):
        RosRobotConfig("forward_velocity")
    assert RosRobotConfig("forward_velocity", external_watchdog="PLC on the drive bus").controller


def test_bad_set_points_never_reach_a_topic():
    robot = joined(MemoryGraph(lambda: 0))
    with pytest.raises(HardwareError, match="not connected"):
        robot.send(np.zeros(7), 0)
    robot.join()
    for bad in (np.full(7, np.nan), np.zeros(6), np.zeros(8)):
        with pytest.raises(HardwareError, match="refused"):
            robot.send(bad, 0)


def test_velocity_commands_are_differences():
    graph = MemoryGraph(lambda: 0)
    robot = joined(graph, controller="forward_velocity", external_watchdog="PLC")
    robot.join()
    listener = MemoryTransport(graph).subscriber(
        "/forward_velocity_controller/commands", "std_msgs/msg/Float64MultiArray", DEFAULT
    )
    robot.send(np.zeros(7), 0)
    robot.send(np.full(7, 0.004), 0)
    assert [each.message.data[0] for each in listener.take()] == pytest.approx([0.0, 1.0])
