"""Frozen protocols stay frozen, and say what they measured."""

from dataclasses import asdict

import numpy as np
import pytest

from robolearn.cli import main
from robolearn.cli.arguments import Arguments
from robolearn.cli.compose import choices, compose_config
from robolearn.cli.evaluate import build_env
from robolearn.config import parse
from robolearn.contracts import VectorEnv
from robolearn.errors import ConfigError
from robolearn.protocol import Protocol, ResetRanges, evaluate_protocol
from robolearn.registry import names
from robolearn.report import write_report
from robolearn.rollout import ExpertController, RandomController, rollout

# A protocol that changes becomes another one: give it another name and add its hash.
FROZEN = {
    "libero_10": "83046e4c3c36",
    "libero_goal": "41ac8fb72d62",
    "libero_object": "b84b63bfffc2",
    "libero_spatial": "b6d68033ea58",
    "metaworld_mt10": "e354809b4760",
    "metaworld_mt50": "cef568ab045b",
    "own": "4efd7f0e184b",
    "pusht": "85aa3d057ce7",
    "robosuite": "b21bcb80f863",
}


def load(name: str, *overrides: str) -> Protocol:
    plain = compose_config("eval", Arguments((), (f"protocol={name}", "ckpt=none", *overrides)))
    return parse(Protocol, plain["protocol"], where="protocol")


class Still:
    """An actor that asks for the middle of the action bounds."""

    def __init__(self, env: VectorEnv, chunk: int = 4):
        from dataclasses import replace

        keys = ("observation.state",)
        self.spec = replace(env.spec.select(keys), chunk=chunk)
        self.noise_shape = (0,)
        self._middle = np.mean([env.spec.action.low, env.spec.action.high], 0)

    def act(self, obs, noise, prefix=None):
        return np.tile(self._middle.astype(np.float32), (len(noise), self.spec.chunk, 1))


@pytest.mark.parametrize("name", choices("protocol"))
def test_it_is_frozen(name):
    assert load(name).definition_hash == FROZEN[name]


@pytest.mark.parametrize("name", choices("protocol"))
def test_its_tasks_exist(name):
    known = names("env")
    for task in load(name).tasks:
        assert task.env in known or f"{task.env.split('/')[0]}/*" in known


@pytest.mark.parametrize("change", ["protocol.episodes=49", "protocol.execute=4", "protocol.tasks.0.horizon=299"])
def test_every_number_is_in_the_hash(change):
    assert load("pusht", change).definition_hash != FROZEN["pusht"]


def test_a_protocol_is_run_and_told():
    protocol = load("pusht", "protocol.episodes=3", "protocol.tasks.0.horizon=12")
    env = build_env(protocol.tasks[0].config, 1)
    result = evaluate_protocol(Still(env), protocol, build_env, num_envs=2)
    content = result.to_dict()
    assert [outcome["task"] for outcome in content["outcomes"]] == ["pusht"] * 3
    assert {outcome["length"] for outcome in content["outcomes"]} == {12}
    assert content["protocol"]["executed"] == 4  # the policy's chunk is shorter than 8
    assert content["protocol"]["definition_hash"] == protocol.definition_hash
    resets = content["tasks"]["pusht"]["resets"]
    assert resets["there"] == {"agent_x": 400, "agent_y": 400}
    assert 0 < resets["here"]["agent_x"] <= 400
    again = evaluate_protocol(Still(env), protocol, build_env, num_envs=1)
    assert again.to_dict()["protocol"]["hash"] == content["protocol"]["hash"]
    assert [asdict(one) for one in again.outcomes] == content["outcomes"]


def test_the_report_prints_the_hash_and_the_peers_resets(tmp_path):
    protocol = load("pusht", "protocol.episodes=2", "protocol.tasks.0.horizon=5")
    result = evaluate_protocol(Still(build_env(protocol.tasks[0].config, 1)), protocol, build_env)
    content = result.to_dict() | {"wall_s": {}}
    page = write_report(tmp_path / "report.html", "pusht", content).read_text()
    assert content["protocol"]["hash"] in page
    assert "agent_x" in page
    assert "gym-pusht" in page


def test_a_protocol_has_no_other_options(tmp_path, capsys):
    assert main(["eval", "ckpt=benchmarks/checkpoints/pusht_flow", "protocol=pusht", "eval.execute=2"]) == 2
    assert "fixes eval.execute" in capsys.readouterr().err
    assert main(["eval", "ckpt=benchmarks/checkpoints/pusht_flow", "protocol=pusht", "env=pick_place"]) == 2
    assert "has no task 'pick_place'" in capsys.readouterr().err


def test_a_task_is_named_once():
    with pytest.raises(ConfigError, match="twice"):
        parse(Protocol, {**asdict(load("pusht")), "tasks": [{"env": "pusht", "horizon": 3}] * 2})


def test_resets_are_no_narrower_than_the_peers():
    check_resets(("robolearn/lift", "robolearn/stack"), episodes=60, share=0.9)


@pytest.mark.long
def test_resets_of_every_task_are_no_narrower_than_the_peers():
    check_resets([task.env for task in load("own").tasks if task.peer], episodes=400, share=0.97)


def check_resets(tasks, episodes, share):
    """Compare `episodes` starts; the range of a finite sample is a little less than what it is drawn from."""
    for task in load("own").tasks:
        if task.env not in tasks:
            continue
        env = build_env({**task.config, "max_steps": 1}, 20)
        ranges = ResetRanges(env)
        rollout(env, RandomController(env, 0), range(episodes), 0, ranges)
        for entry, width in task.peer.widths.items():
            assert ranges.widths()[entry] >= share * width, (task.env, entry)


def test_protocol_horizons_leave_the_experts_time():
    protocol = load("own")
    task = next(task for task in protocol.tasks if task.env == "robolearn/button")
    env = build_env(task.config, 8)
    outcomes = rollout(env, ExpertController(env.expert(), 1), range(8), 1)  # ty: ignore[unresolved-attribute]
    assert all(outcome.success for outcome in outcomes)
