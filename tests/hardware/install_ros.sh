#!/usr/bin/env bash
# Installs rclpy as a test peer into an environment of its own: tests/hardware/install_ros.sh [kilted|jazzy] [FOLDER]
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
distro=${1:-kilted}
case $distro in
  kilted) rclpy=9.1.2 messages='>=5.5,<5.6' folder=${2:-$root/.ros} ;;
  jazzy) rclpy=7.1.6 messages='>=5.3,<5.4' folder=${2:-$root/.ros-jazzy} ;;
  *) echo "unknown distribution '$distro': kilted or jazzy" >&2; exit 2 ;;
esac
uv=$(command -v uv || echo "$root/.tools/bin/uv")  # where ./run setup leaves one, beside its Python
"$uv" venv --quiet --python "$(realpath "$root/.venv/bin/python")" "$folder"
"$uv" pip install --quiet --python "$folder/bin/python" "ros-rclpy[fastrtps]==$rclpy" rosbags numpy \
  "ros-std-msgs$messages" "ros-std-srvs$messages" "ros-sensor-msgs$messages" "ros-trajectory-msgs$messages" \
  "ros-diagnostic-msgs$messages"
"$folder/bin/python" "$root/tests/hardware/make_control_msgs.py" >/dev/null
echo "rclpy of $distro is in $folder"
