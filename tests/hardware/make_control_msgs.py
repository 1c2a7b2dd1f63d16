"""Makes control_msgs/action/FollowJointTrajectory for a ROS environment that lacks it, with ROS's own generators.

    .ros/bin/python tests/hardware/make_control_msgs.py     (install_ros.sh does)

The fields are those of ros-controls/control_msgs; libraries and package go into the environment that runs this.
"""

import importlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy
from rosidl_adapter.action import convert_action_to_idl
from rosidl_adapter.msg import convert_msg_to_idl

TOLERANCE = "float64 position\nfloat64 velocity\nfloat64 acceleration\n"
FILES = {
    "msg/JointTolerance.msg": "string name\n" + TOLERANCE,
    "msg/JointComponentTolerance.msg": "uint16 POSITION=1\nuint16 VELOCITY=2\nuint16 ACCELERATION=3\n"
    "string joint_name\nuint16 component\n" + TOLERANCE,
    "action/FollowJointTrajectory.action": """trajectory_msgs/JointTrajectory trajectory
trajectory_msgs/MultiDOFJointTrajectory multi_dof_trajectory
JointTolerance[] path_tolerance
JointComponentTolerance[] component_path_tolerance
JointTolerance[] goal_tolerance
JointComponentTolerance[] component_goal_tolerance
builtin_interfaces/Duration goal_time_tolerance
---
int32 error_code
int32 SUCCESSFUL = 0
int32 INVALID_GOAL = -1
int32 INVALID_JOINTS = -2
int32 OLD_HEADER_TIMESTAMP = -3
int32 PATH_TOLERANCE_VIOLATED = -4
int32 GOAL_TOLERANCE_VIOLATED = -5
string error_string
---
std_msgs/Header header
string[] joint_names
trajectory_msgs/JointTrajectoryPoint desired
trajectory_msgs/JointTrajectoryPoint actual
trajectory_msgs/JointTrajectoryPoint error
string[] multi_dof_joint_names
trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_desired
trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_actual
trajectory_msgs/MultiDOFJointTrajectoryPoint multi_dof_error
""",
}
NEEDED = (
    *("trajectory_msgs", "std_msgs", "geometry_msgs", "builtin_interfaces"),
    *("action_msgs", "service_msgs", "unique_identifier_msgs"),
)
PACKAGE = "control_msgs"
FAST, LOOKS = "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"


def generate(folder: Path, share: Path) -> None:
    """Write the package's sources into `folder`."""
    described = []
    for name, text in FILES.items():
        file = folder / "described" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        convert = convert_msg_to_idl if file.suffix == ".msg" else convert_action_to_idl
        convert(folder / "described", PACKAGE, Path(name), file.parent)
        described.append(f"{folder / 'described'}:{Path(name).with_suffix('.idl')}")
    given = PACKAGE, described, [str(share)], folder / PACKAGE
    hashes = _tool("rosidl_generator_type_description", "HashTypeDescription").generate_type_hashes(*given)
    _tool("rosidl_generator_c", "GenerateC").generate(*given, type_description_files=hashes)
    _tool("rosidl_typesupport_c", "GenerateCTypesupport", typesupport_implementations=[FAST, LOOKS]).generate(*given)
    _tool(FAST, "GenerateFastRTPSCTypesupport").generate(*given)
    _tool(LOOKS, "GenerateIntrospectionCTypesupport").generate(*given[:3], folder / LOOKS / PACKAGE)  # same file names
    only = ["rosidl_typesupport_c"]
    _tool("rosidl_generator_py", "GeneratePython", typesupport_implementations=only).generate(*given)
    (folder / PACKAGE / "__init__.py").touch()


def build(folder: Path, prefix: Path, site: Path) -> None:
    """Compile the sources into the environment."""
    sources, libraries = folder / PACKAGE, prefix / "lib"
    headers = [f"-I{each}" for each in (folder, folder / LOOKS, prefix / "include", *(prefix / "include").iterdir())]
    headers += [f"-I{sysconfig.get_path('include')}", f"-I{numpy.get_include()}"]

    def link(compiler: str, out: Path, pattern: str, *needed: str) -> None:
        files = [str(file) for file in sorted(folder.glob(pattern))]
        found = [f"-l{name}" for name in needed if (libraries / f"lib{name}.so").exists()]
        where = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-Wl,--no-as-needed"]
        subprocess.run(
            [compiler, "-O1", "-fPIC", "-shared", "-o", str(out), *headers, *files, *where, *found], check=True
        )

    def library(kind: str) -> Path:
        return libraries / f"lib{PACKAGE}__{kind}.so"

    def others(kind: str) -> list[str]:
        return [f"{name}__{kind}" for name in NEEDED]

    types, chosen, python = "rosidl_generator_c", "rosidl_typesupport_c", "rosidl_generator_py"
    link("gcc", library(types), f"{PACKAGE}/*/detail/*.c", "rosidl_runtime_c", *others(types))
    mine = f"{PACKAGE}__{types}"
    link("g++", library(FAST), f"{PACKAGE}/*/detail/*_c.cpp", FAST, "fastcdr", mine, *others(FAST))
    link("gcc", library(LOOKS), f"{LOOKS}/{PACKAGE}/*/detail/*.c", LOOKS, mine, *others(LOOKS))
    link("g++", library(chosen), f"{PACKAGE}/*/*.cpp", chosen, mine, *others(chosen))
    link("gcc", library(python), f"{PACKAGE}/*/*_s.c", mine, *others(python))
    mine = f"{PACKAGE}__{python}", f"{PACKAGE}__{chosen}", mine
    link("gcc", sources / f"{PACKAGE}_s__{chosen}.so", f"{PACKAGE}/_*.c", *mine)
    subprocess.run(["cp", "-r", str(sources), str(site)], check=True)


def _tool(module: str, name: str, **options: list[str]):
    return getattr(importlib.import_module(f"{module}.cli"), name)(module, **options)


if __name__ == "__main__":
    prefix = Path(sys.prefix)
    os.environ["AMENT_PREFIX_PATH"] = str(prefix)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), prefix / "share")
        build(Path(folder), prefix, Path(sysconfig.get_path("purelib")))
