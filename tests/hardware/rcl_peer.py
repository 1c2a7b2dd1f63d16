"""A real ROS 2 node that the tests talk to; runs in an environment with rclpy.

rcl_peer.py echo SECONDS     repeats /ping as /pong, and reports
rcl_peer.py arm SECONDS      publishes joint states at 250 Hz that follow /forward_position_controller/commands
"""

import json
import sys
import time

import numpy as np

from robolearn.hardware import messages
from robolearn.hardware.rcl import RclTransport
from robolearn.hardware.transport import COMMAND, DEFAULT
from robolearn.robots.panda import PANDA

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


def main():
    transport = RclTransport(77, "peer")
    result = {"echo": echo, "arm": arm}[sys.argv[1]](transport, float(sys.argv[2]))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    transport.close()


if __name__ == "__main__":
    main()
