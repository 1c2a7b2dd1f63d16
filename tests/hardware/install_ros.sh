#!/usr/bin/env bash
# Installs rclpy (Kilted) as a test peer into an environment of its own: tests/hardware/install_ros.sh [FOLDER]
set -euo pipefail
folder=${1:-.ros}
uv venv --quiet --python 3.12 "$folder"
uv pip install --quiet --python "$folder/bin/python" \
  "ros-rclpy[fastrtps]" ros-std-msgs ros-sensor-msgs ros-trajectory-msgs rosbags numpy
echo "ROBOLEARN_ROS_PYTHON=$(realpath "$folder")/bin/python"
