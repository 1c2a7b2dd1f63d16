"""A ROS 2 node that runs a checkpoint on an arm; the executor inside is the one of every other command.

    python -m robolearn.hardware.node --ros-args -p checkpoint:=DIR -p robot:=FILE

or `ros2 launch …/hardware/policy.launch.yaml checkpoint:=DIR robot:=FILE`. FILE is YAML as in configs/robot.
Services `~/start`, `~/hold`, `~/stop`, `~/arm` and `~/disarm` (std_srvs/Trigger); the state of everything on
`/diagnostics`. Nothing moves before `~/start`, and after a hold not before it is started again.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.contracts import Actor
from robolearn.errors import ConfigError, HardwareError, MissingLibraryError
from robolearn.hardware.deploy import RobotConfig
from robolearn.hardware.safety import Mode
from robolearn.hardware.sessions import MOVING, Session, open_session
from robolearn.hardware.worker import PolicyWorker
from robolearn.plan import Execution

__all__ = ["VERBS", "NodeConfig", "PolicyNode", "Runner", "main", "read_robot"]

VERBS = ("start", "hold", "stop", "arm", "disarm")
_OK, _WARN, _ERROR = b"\0", b"\1", b"\2"  # diagnostic_msgs/DiagnosticStatus
_SILENT_S = 1.0


@dataclass(frozen=True)
class NodeConfig(Execution):
    """The node's parameters."""

    checkpoint: str = ""
    robot: str = ""  # a YAML file
    transport: Literal["rcl", "dds"] = "rcl"
    task: str = ""
    seed: int = 0


class Runner:
    """A policy on a robot that is told to start and to hold; `step` is called once per `period_s`."""

    def __init__(self, session: Session, actor: Actor, config: NodeConfig):
        self._session, self._task = session, config.task
        base_m = np.array(session.config.base_m)
        self._worker = PolicyWorker(actor, session.arm_constants, session.chunks, base_m, config, config.seed)
        self.period_s = self._worker.period_s
        self.acting, self.episodes, self.decisions, self.problem = False, 0, 0, ""

    def request(self, verb: str) -> tuple[bool, str]:
        """Do one of `VERBS`; returns whether it was done, and the mode or what is wrong."""
        self.acting = False
        try:
            if verb != "start":
                return True, self._session.request(verb)
            if self._session.mode() not in MOVING:
                self._session.request("arm")
            self._worker.begin(self.episodes)
        except HardwareError as error:
            return False, str(error)
        self.acting, self.problem, self.episodes = True, "", self.episodes + 1
        return True, "acting"

    def step(self) -> None:
        """Take one observation and decide when it is time; a policy that fails leaves an arm that holds."""
        if not self.acting:
            return
        mode = self._session.mode()
        if self._worker.decided and mode not in MOVING:
            self.acting, self.problem = False, f"the arm went to {mode}"
            return
        try:
            self.decisions += self._worker.step(self._session.reading(self._task)) is not None
        except HardwareError as error:
            self.acting, self.problem = False, str(error)
            self._session.request("hold")

    def report(self) -> tuple[bytes, str, Mapping[str, str]]:
        """Return level, summary and values for `/diagnostics`."""
        status = self._session.status()
        values = {key: str(value) for key, value in status.items()}
        values |= {"acting": str(self.acting), "episodes": str(self.episodes), "decisions": str(self.decisions)}
        if status["age_s"] > _SILENT_S:
            return _ERROR, "the executor is silent", values
        if status["mode"] == Mode.STOP:
            return _ERROR, self.problem or "stopped", values
        if self.problem or status["mode"] == Mode.HOLD:
            return _WARN, self.problem or "holding", values
        return _OK, "acting" if self.acting else str(status["mode"]), values


class PolicyNode:
    """The node: parameters in, services and diagnostics out, one timer that lets the policy act."""

    def __init__(
        self,
        load: Callable[[str], Actor],
        arguments: Sequence[str] = (),
        name: str = "policy",
        domain: int | None = None,
    ):
        try:
            self._rclpy = import_module("rclpy")
            self._trigger = import_module("std_srvs.srv").Trigger
            self._messages = import_module("diagnostic_msgs.msg")
        except ModuleNotFoundError as error:
            raise MissingLibraryError(
                "The node needs ROS 2.",
                found=f"no module '{error.name}'",
                do="source a ROS 2 installation (Jazzy or newer)",
            ) from error
        self._context = self._rclpy.Context()
        self._context.init(args=list(arguments), domain_id=domain)
        self.node = self._rclpy.create_node(name, context=self._context)
        config = self._parameters()
        robot = replace(read_robot(config.robot), transport=config.transport, twin=None)
        actor = load(config.checkpoint)
        self._session = open_session(robot, actor.spec.chunk, 1.0 / actor.spec.rate_hz, simulated=False)
        self._session.__enter__()
        self.runner = Runner(self._session, actor, config)
        for verb in VERBS:
            self.node.create_service(self._trigger, f"~/{verb}", self._answer(verb))
        self._diagnostics = self.node.create_publisher(self._messages.DiagnosticArray, "/diagnostics", 10)
        self.node.create_timer(self.runner.period_s, self.runner.step)
        self.node.create_timer(0.5, self._publish)

    def spin(self) -> None:
        """Serve until the context ends."""
        executor = import_module("rclpy.executors").SingleThreadedExecutor(context=self._context)
        executor.add_node(self.node)
        while self._context.ok():
            executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        """Come to rest, then leave the graph."""
        self._session.close()
        self.node.destroy_node()
        self._context.try_shutdown()

    def _parameters(self) -> NodeConfig:
        defaults = NodeConfig()
        given = {
            name: self.node.declare_parameter(name, getattr(defaults, name)).value
            for name in NodeConfig.__dataclass_fields__
        }
        return parse(NodeConfig, given, where="parameters")

    def _answer(self, verb: str) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            response.success, response.message = self.runner.request(verb)
            return response

        return answer

    def _publish(self) -> None:
        level, summary, values = self.runner.report()
        array, status = self._messages.DiagnosticArray(), self._messages.DiagnosticStatus()
        array.header.stamp = self.node.get_clock().now().to_msg()
        status.level, status.name, status.message = level, f"{self.node.get_name()}: executor", summary
        status.hardware_id = self._session.config.name
        status.values = [self._messages.KeyValue(key=key, value=value) for key, value in values.items()]
        array.status = [status]
        self._diagnostics.publish(array)


def read_robot(file: str) -> RobotConfig:
    """Read a robot's YAML file."""
    import yaml

    if not Path(file).is_file():
        raise ConfigError(
            "There is no such robot.", found=file, expected="a YAML file as in configs/robot", do="robot:="
        )
    return parse(RobotConfig, yaml.safe_load(Path(file).read_text()), where=file)


def main(arguments: Sequence[str]) -> None:
    """Run the node until it is interrupted."""
    from robolearn.actor import load

    node = PolicyNode(load, arguments)
    try:
        node.spin()
    finally:
        node.close()


if __name__ == "__main__":
    main(sys.argv[1:])
