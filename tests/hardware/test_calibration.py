"""Calibration against a scene whose truth is known: lens, hand-eye, encoder offsets; and what they are used for."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from robolearn.errors import ConfigError, HardwareError
from robolearn.hardware import commands
from robolearn.hardware.board import Board, CalibrateConfig, View, calibrate, detect, viewpoints
from robolearn.hardware.board_scene import BoardScene, open_scene
from robolearn.hardware.calibration import Calibration, read_calibration, transform, write_calibration
from robolearn.hardware.deploy import RobotConfig, TwinOptions, make_ros_robot
from robolearn.hardware.kinematics import Kinematics
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.messages import joint_state
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.robots.panda import PANDA
from robolearn.robots.ur5e import UR5E

CONFIG = CalibrateConfig(views=10)


@pytest.fixture(scope="module")
def scene():
    return open_scene("board", PANDA, 640)


@pytest.fixture(scope="module")
def views(scene):
    found = []
    for pose in viewpoints(PANDA, scene.state().position_rad, CONFIG):
        scene.step(pose, 0.08)
        found.append(View(*detect(scene.board, scene.image("wrist")), scene.state().position_rad))
    return found


def angle(a, b):
    """Return the angle between two orientations [rad]."""
    return float(np.linalg.norm(cv2.Rodrigues(a[:3, :3].T @ b[:3, :3])[0]))


def test_pictures_give_lens_hand_eye_and_offsets(scene, views):
    camera, offsets, deviations = calibrate(PANDA, views, (640, 480), "tool")
    truth = scene.truth.cameras["wrist"]
    assert np.array(camera.intrinsics) == pytest.approx(np.array(truth.intrinsics), abs=1.0)
    assert camera.rms_px < 0.2
    assert np.linalg.norm(np.array(camera.position_m) - truth.position_m) < 5e-4
    assert angle(camera.matrix, truth.matrix) < 1e-3
    assert offsets == pytest.approx(np.array(scene.truth.offsets_rad), abs=2e-4)
    assert np.abs(scene.truth.offsets_rad).max() > 0.01
    assert deviations[1:-1].max() < 1e-3
    assert np.isinf(deviations[[0, -1]]).all()  # the board and the camera could be turned instead


def test_a_camera_that_stands_still_sees_a_board_in_the_gripper():
    camera_m, board_m = transform((1.1, 0.05, 0.25), (0.5, -0.5, -0.5, 0.5)), np.eye(4)
    assert camera_m[:3, 2] == pytest.approx([-1, 0, 0])  # it looks at the arm, picture upright
    assert camera_m[:3, 1] == pytest.approx([0, 0, -1])
    _, (axes,) = Kinematics(PANDA).pose(np.array([PANDA.home_rad]))
    board_m[:3, :3] = axes.T @ camera_m[:3, :3] @ cv2.Rodrigues(np.array([0.2, -0.1, 0.3]))[0]
    board_m[:3, 3] = 0.02, -0.03, 0.05
    matrix, distortion = np.array([[600.0, 0, 320], [0, 605.0, 240], [0, 0, 1]]), np.array([-0.1, 0.02, 0, 0, 0])
    offsets = np.array([0, 0.01, -0.008, 0.006, 0.012, -0.01, 0])
    corners = Board().charuco.getChessboardCorners().astype(float)
    kinematics, found = Kinematics(PANDA), []
    for joints in viewpoints(PANDA, np.array(PANDA.home_rad), replace(CONFIG, mount="base", views=14)):
        (point,), (axes,) = kinematics.pose((joints + offsets)[None])
        tool = np.eye(4)
        tool[:3, :3], tool[:3, 3] = axes, point
        seen = np.linalg.inv(camera_m) @ tool @ board_m
        turn, _ = cv2.Rodrigues(seen[:3, :3])
        pixels, _ = cv2.projectPoints(corners, turn, seen[:3, 3], matrix, distortion)
        found.append(View(corners, pixels.reshape(-1, 2), joints))
    camera, fitted, _ = calibrate(PANDA, found, (640, 480), "base")
    assert fitted == pytest.approx(offsets, abs=1e-4)
    assert np.linalg.norm(camera.matrix[:3, 3] - camera_m[:3, 3]) < 1e-3
    assert angle(camera.matrix, camera_m) < 1e-3


def test_a_chessboard_gives_the_same_corners():
    places = {}
    for kind in ("charuco", "chessboard"):
        scene = BoardScene(PANDA, Board(kind, columns=9, rows=6), 640)
        board_m, pixels = detect(scene.board, scene.image("wrist"))
        places[kind] = {tuple(np.round(b[:2] / 0.03).astype(int)): p for b, p in zip(board_m, pixels, strict=True)}
    common = places["charuco"].keys() & places["chessboard"].keys()
    assert len(common) >= 35
    apart = [np.abs(places["charuco"][each] - places["chessboard"][each]).max() for each in common]
    assert max(apart) < 0.3


def test_a_picture_without_the_board_is_none():
    assert detect(Board(), np.zeros((480, 640, 3), np.uint8)) is None
    assert detect(Board("chessboard", 9, 6), np.zeros((480, 640, 3), np.uint8)) is None


def test_what_cannot_work_is_refused(views):
    with pytest.raises(HardwareError, match="Too few views"):
        calibrate(PANDA, views[:7], (640, 480), "tool")
    with pytest.raises(ConfigError, match="upside down"):
        Board("chessboard", 8, 6)
    with pytest.raises(ConfigError, match="not a board"):
        Board(marker_m=0.04)
    with pytest.raises(ConfigError, match="dictionary"):
        Board(dictionary="DICT_4X4_5")
    with pytest.raises(HardwareError, match="look around"):
        viewpoints(PANDA, np.array(PANDA.low_rad), CONFIG)


def test_the_command_moves_the_arm_and_finds_the_truth(tmp_path, scene):
    ros = RosRobotConfig(
        "forward", rate_hz=50.0, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1"
    )
    twin = TwinOptions("board", "forward", image_px=320)
    config = RobotConfig(ros=ros, cameras=("wrist",), twin=twin)
    with pytest.raises(HardwareError, match="no camera 'wirst'"):
        commands.calibrate(config, replace(CONFIG, camera="wirst"), simulated=True)
    found, facts = commands.calibrate(config, replace(CONFIG, views=8), simulated=True)
    assert facts["views"] == 8
    assert np.array(found.offsets_rad) == pytest.approx(np.array(scene.truth.offsets_rad), abs=1e-3)
    assert np.linalg.norm(found.cameras["wrist"].matrix[:3, 3] - scene.truth.cameras["wrist"].matrix[:3, 3]) < 2e-3

    file = tmp_path / "calibration.json"
    write_calibration(file, found)
    assert read_calibration(file, PANDA) == found
    with pytest.raises(ConfigError, match="another arm"):
        read_calibration(file, UR5E)


def test_offsets_apply_to_readings_and_to_commands(tmp_path, home):
    file, offsets = tmp_path / "calibration.json", np.linspace(-0.02, 0.02, 7)
    write_calibration(file, Calibration("panda", tuple(offsets.tolist())))
    now = [10**9]
    graph = MemoryGraph(lambda: now[0])
    arm = MemoryTransport(graph)
    states = arm.publisher("/joint_states", "sensor_msgs/msg/JointState")
    commanded = arm.subscriber("/forward_position_controller/commands", "std_msgs/msg/Float64MultiArray")
    config = RobotConfig(ros=RosRobotConfig("forward"), calibration=str(file))
    robot = make_ros_robot(config, MemoryTransport(graph))
    robot.join()
    states.publish(joint_state(PANDA.joints, home, np.zeros(7), 1))
    assert robot.read().position_rad == pytest.approx(home + offsets)
    assert robot.send(home, now[0]) == pytest.approx(home)
    assert commanded.take()[-1].message.data == pytest.approx(home - offsets)
