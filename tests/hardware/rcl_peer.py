"""A real ROS 2 node that the tests talk to; runs in an environment with rclpy.

rcl_peer.py echo SECONDS     repeats /ping as /pong, and reports
rcl_peer.py arm SECONDS      publishes joint states at 250 Hz that follow /forward_position_controller/commands
rcl_peer.py codec FILE       reads and writes again the messages of FILE, as ROS itself serialises them
rcl_peer.py home DOMAIN      offers FollowJointTrajectory, and has an arm brought home by it
rcl_peer.py node FILE        runs the policy node with a scripted actor on the robot of FILE, and drives it by services
"""

import json
import sys
import threading
import time

import numpy as np

from robolearn.errors import HardwareError
from robolearn.hardware import homing, messages
from robolearn.hardware.deploy import RobotConfig
from robolearn.hardware.homing import ACTION
from robolearn.hardware.node import PolicyNode
from robolearn.hardware.personality import Trajectory
from robolearn.hardware.rcl import RclTransport
from robolearn.hardware.transport import COMMAND, DEFAULT
from robolearn.robots.panda import PANDA
from robolearn.spec import ActionSpec, Feature, Spec

FLOATS, STATE = "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/JointState"


def echo(transport, seconds):
    subscriber, publisher = transport.subscriber("/ping", STATE), transport.publisher("/pong", STATE)
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end and count < 200:
        for received in subscriber.take():
            publisher.publish(received.message)
            count += 1
        time.sleep(0.001)
    infos = transport._node.get_publishers_info_by_topic("/ping")
    return {
        "echoed": count,
        "malformed": subscriber.malformed,
        "others": transport.others("/ping"),
        "type_hash": [str(info.topic_type_hash) for info in infos],
        "reliability": [info.qos_profile.reliability.name for info in infos],
        "durability": [info.qos_profile.durability.name for info in infos],
    }


def arm(transport, seconds):
    commands = transport.subscriber("/forward_position_controller/commands", FLOATS, COMMAND)
    states = transport.publisher("/joint_states", STATE, DEFAULT)
    position, seen, start, due = np.array(PANDA.home_rad), 0, time.monotonic(), time.monotonic()
    while time.monotonic() < start + seconds:
        for received in commands.take():
            position, seen = np.asarray(received.message.data), seen + 1
        states.publish(messages.joint_state(PANDA.joints, position, np.zeros(7)))
        due += 0.004
        time.sleep(max(due - time.monotonic(), 0))
    return {"commands": seen, "last": position.tolist()}


class Wave:
    """A scripted actor: the last joint sways from where the arm is."""

    noise_shape = (0,)

    def __init__(self):
        names = (*PANDA.joints, "gripper")
        state = Feature(shape=(8,), names=names)
        self.spec = Spec({"observation.state": state}, ActionSpec(8, "joint_position", names), rate_hz=20.0, chunk=16)

    def act(self, obs, noise, prefix=None):
        chunk = np.tile(obs["observation.state"][:, -1:], (1, 16, 1)).astype(float)
        chunk[0, :, 6] += 0.01 * np.arange(16)
        return chunk


def node(file):
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from std_srvs.srv import Trigger

    arguments = ["--ros-args", "-p", f"robot:={file}", "-p", "checkpoint:=scripted", "-p", "execute:=4"]
    made = PolicyNode(lambda path: Wave(), arguments, domain=77)
    spinning = threading.Thread(target=made.spin, daemon=True)
    spinning.start()
    context = rclpy.Context()
    context.init(domain_id=77)
    client = rclpy.create_node("operator", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(client)
    seen = []
    client.create_subscription(DiagnosticArray, "/diagnostics", lambda array: seen.append(array.status[0]), 10)

    def call(verb):
        service = client.create_client(Trigger, f"/policy/{verb}")
        if not service.wait_for_service(timeout_sec=30):
            return [False, "no service"]
        future = service.call_async(Trigger.Request())
        executor.spin_until_future_complete(future, timeout_sec=30)
        return [future.result().success, future.result().message]

    def watch(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end or (not seen and time.monotonic() < end + 30):
            executor.spin_once(timeout_sec=0.1)
        return seen[-1].message, {each.key: each.value for each in seen[-1].values}

    before = watch(1.5)
    answers = {"disarm_idle": call("disarm"), "start": call("start")}
    acting = watch(3.0)
    answers["hold"] = call("hold")
    held = watch(2.0)
    answers["again"] = call("start")
    again = watch(2.0)
    answers["stop"] = call("stop")
    watch(1.0)
    answers["refused"] = call("start")
    made._context.try_shutdown()
    spinning.join(10)
    made.close()
    return {"answers": answers, "before": before, "acting": acting, "held": held, "again": again}


class Controller:
    """A trajectory controller with its action, and the arm that does what it says."""

    def __init__(self, domain, start):
        import rclpy
        from control_msgs.action import FollowJointTrajectory
        from rclpy.action import ActionServer, GoalResponse

        self.control, self.code, self.seen = Trajectory(PANDA.joints, start, 0.01), 0, []
        self._open = True
        self._kind, self._answers = FollowJointTrajectory, GoalResponse
        self._context = rclpy.Context()
        self._context.init(domain_id=domain)
        self._node = rclpy.create_node("controller", context=self._context)
        self._server = ActionServer(self._node, self._kind, ACTION, self._follow, goal_callback=self._answer)
        self._executor = rclpy.executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._transport = RclTransport(domain, "arm")
        self._listens = self._transport.subscriber(self.control.topic, self.control.kind, COMMAND)
        self._states = self._transport.publisher("/joint_states", STATE, DEFAULT)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve, self._move)]
        for thread in self._threads:
            thread.start()

    def _read(self, goal):
        points = goal.trajectory.points  # `serialize_message` leaves bytes behind a message, 8 for every empty list
        times = np.array([point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec for point in points])
        position, velocity = (
            np.array([getattr(each, name) for each in points]) for name in ("positions", "velocities")
        )
        return messages.trajectory(goal.trajectory.joint_names, times, position, velocity)

    def _answer(self, goal):
        return self._answers.REJECT if self.control._problem(self._read(goal)) else self._answers.ACCEPT

    def _follow(self, handle):
        message = self._read(handle.request)
        end = message.points[-1].time_from_start
        self.control.receive(message, time.monotonic_ns())
        time.sleep(end.sec + 1e-9 * end.nanosec + 0.1)
        (handle.abort if self.code else handle.succeed)()
        return self._kind.Result(error_code=self.code, error_string="too far off" if self.code else "")

    def _serve(self):
        while self._open:
            self._executor.spin_once(timeout_sec=0.1)

    def _move(self):
        while self._open:
            now = time.monotonic_ns()
            self.seen.append((now, self.control.target(now).copy()))
            self._states.publish(messages.joint_state(PANDA.joints, self.seen[-1][1], np.zeros(7)))
            time.sleep(0.01)

    def close(self):
        self._open = False
        for thread in self._threads:
            thread.join(5)
        self._context.try_shutdown()
        self._transport.close()


def home(domain):
    domain = int(domain)
    start = np.array(PANDA.home_rad) + 0.4
    controller = Controller(domain, start)
    config = RobotConfig("ros2/panda", transport="rcl", domain=domain)
    found = {"arrived": homing.home(config), "at": controller.control.target(time.monotonic_ns()).tolist()}
    times, seen = (
        1e-9 * np.array([each[0] for each in controller.seen]),
        np.array([each[1] for each in controller.seen]),
    )
    found["speeds"] = (np.abs(np.diff(seen, axis=0)) / np.diff(times)[:, None]).max(0).tolist()
    transport = RclTransport(domain, "other")
    still = np.tile(seen[-1], (2, 1)), np.zeros((2, 7))
    wrong = messages.trajectory([f"other{i}" for i in range(7)], np.array([1.0, 2.0]), *still)
    controller.code = -5
    right = messages.trajectory(PANDA.joints, np.array([0.2, 0.4]), *still)
    cases = {"refused": (homing.ACTION, wrong), "aborted": (homing.ACTION, right), "nobody": ("/none/follow", right)}
    for name, (action, message) in cases.items():
        try:
            homing.follow(transport, action, message, 10.0)
        except HardwareError as error:
            found[name] = str(error)
    transport.close()
    controller.close()
    return found


def codec(file):
    from importlib import import_module

    from rclpy.serialization import deserialize_message, serialize_message

    again, missing = {}, []
    with open(file) as given:
        messages_by_kind = json.load(given)
    for kind, samples in messages_by_kind.items():
        package, _, name = kind.split("/")
        try:
            form = getattr(import_module(f"{package}.msg"), name)
        except (ModuleNotFoundError, AttributeError):
            missing.append(kind)
            continue
        again[kind] = [serialize_message(deserialize_message(bytes.fromhex(text), form)).hex() for text in samples]
    return {"again": again, "missing": missing}


def main():
    if sys.argv[1] in ("node", "codec", "home"):
        result = {"node": node, "codec": codec, "home": home}[sys.argv[1]](sys.argv[2])
        sys.stdout.write("\n" + json.dumps(result) + "\n")
        return
    transport = RclTransport(77, "peer")
    result = {"echo": echo, "arm": arm}[sys.argv[1]](transport, float(sys.argv[2]))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    transport.close()


if __name__ == "__main__":
    main()
