"""Two local processes compute what one does with the same batch."""

from pathlib import Path

import pytest
import torch

from robolearn import checkpoint
from robolearn.distributed import Processes
from robolearn.errors import ConfigError
from robolearn.metrics import read_metrics

OPTIONS = {"steps": 8, "accumulate": 2, "validate_every": 4, "data": {"validation_fraction": 0.2}}


@pytest.fixture(scope="module")
def alone(forks, plain_run_factory):
    return _finish(forks.run("train", config=plain_run_factory("alone", **OPTIONS)), plain_run_factory("alone"))


def _finish(answer: dict, config: dict) -> tuple[list, checkpoint.Checkpoint, checkpoint.TrainingState]:
    assert answer["status"] == 0, answer
    assert set(answer.get("statuses", [0])) == {0}, answer
    lines = read_metrics(Path(config["out"]))
    losses = [[line[key] for key in ("loss", "grad_norm", "validation_loss") if key in line] for line in lines]
    return losses, checkpoint.load(config["out"]), checkpoint.load_training_state(config["out"])


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_are_one(forks, plain_run_factory, alone, shard):
    config = plain_run_factory(f"shard_{shard}", **{**OPTIONS, "shard": shard})
    losses, found, state = _finish(forks.run("train_group", config=config, count=2), config)
    for ours, wanted in zip(losses, alone[0], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-4)
    for name, value in alone[1].weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-3, atol=1e-5)
    for name, value in alone[2].optimizer.items():
        torch.testing.assert_close(state.optimizer[name], value, rtol=1e-3, atol=1e-5)


def test_a_sharded_run_resumes_alone(forks, plain_run_factory, alone):
    config = plain_run_factory("resumed", **{**OPTIONS, "shard": True, "steps": 4, "schedule": "constant"})
    _finish(forks.run("train_group", config=config, count=2), config)
    whole = plain_run_factory("resumed", **{**OPTIONS, "shard": True, "schedule": "constant"})
    _, found, _ = _finish(forks.run("train", config=whole), whole)
    straight = plain_run_factory("straight", **{**OPTIONS, "schedule": "constant"})
    _, wanted, _ = _finish(forks.run("train", config=straight), straight)
    for name, value in wanted.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-3, atol=1e-5)


def test_slices_must_go_round():
    assert list(Processes(1, 2).slices(6)) == [1, 3, 5]
    with pytest.raises(ConfigError, match="multiple of 2"):
        Processes(0, 2).slices(3)
