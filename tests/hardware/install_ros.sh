#!/usr/bin/env bash
# Installs rclpy (Kilted) as a test peer into an environment of its own: tests/hardware/install_ros.sh [FOLDER]
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
folder=${1:-$root/.ros}
uv=$(command -v uv || echo "$root/.tools/bin/uv")  # where ./run setup leaves one, beside its Python
"$uv" venv --quiet --python "$(realpath "$root/.venv/bin/python")" "$folder"
"$uv" pip install --quiet --python "$folder/bin/python" \
  "ros-rclpy[fastrtps]" ros-std-msgs ros-std-srvs ros-sensor-msgs ros-trajectory-msgs ros-diagnostic-msgs rosbags numpy
echo "ROBOLEARN_ROS_PYTHON=$folder/bin/python"
