"""Checkpoints: whole or refused, the last good one always loads, nothing in them executes."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import robolearn
from robolearn import checkpoint
from robolearn.errors import CheckpointError
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Normalize, Pipeline, RelativeAction

FIXTURES = Path(__file__).parent.parent / "fixtures"
SPEC = Spec({"observation.state": Feature(shape=(3,))}, ActionSpec(dim=2), rate_hz=10.0, history=2, chunk=4)
POLICY = {"name": "flow", "history": 2, "chunk": 4, "network": {"name": "mlp", "width": 8, "depth": 1}}


@pytest.fixture(scope="session")
def content():
    """A small policy with fitted transforms."""
    generator = torch.Generator().manual_seed(0)
    windows = {
        "observation.state": torch.randn(64, 2, 3, generator=generator),
        "action": torch.randn(64, 4, 2, generator=generator),
    }
    pipeline = Pipeline((RelativeAction(((0, 1),)), Normalize({"*": "mean_std"}))).bind(SPEC)
    relative = pipeline.transforms[0].forward(windows)
    pipeline = Pipeline((pipeline.transforms[0], pipeline.transforms[1].fit([relative])))
    unfilled = checkpoint.Checkpoint({"policy": POLICY, "seed": 0}, SPEC, pipeline, {}, 7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = unfilled.policy_config().build(pipeline.transform_spec(SPEC)).state_dict()
    return replace(unfilled, weights=weights)


@pytest.fixture(scope="session")
def state(content):
    moments = {f"{kind}/{name}": torch.ones(value.shape) for name, value in content.weights.items() for kind in "ab"}
    counters = {"windows": 64, "sums": {}, "count": 0, "ema_updates": 3}
    return checkpoint.TrainingState(7, content.weights, moments, content.weights, counters)


@pytest.fixture
def saved(content, state, tmp_path):
    """A run folder with the checkpoints of steps 5 and 7."""
    for step in (5, 7):
        folder = tmp_path / "run" / "checkpoints" / f"step_{step:09d}"
        checkpoint.save(folder, replace(content, step=step), replace(state, step=step))
    return tmp_path / "run"


def test_what_is_saved_comes_back(saved, content, state):
    found = checkpoint.load(saved)
    assert found.step == 7
    assert found.spec == content.spec
    assert found.pipeline == content.pipeline
    assert found.config == content.config
    assert all(torch.equal(found.weights[name], value) for name, value in content.weights.items())
    again = checkpoint.load_training_state(saved)
    assert again.counters == state.counters
    assert all(torch.equal(again.optimizer[name], value) for name, value in state.optimizer.items())
    actor = robolearn.load(saved)
    assert actor.act({"observation.state": np.zeros((5, 2, 3))}, np.zeros((5, 4, 2))).shape == (5, 4, 2)


def test_tied_weights_are_kept(content, tmp_path):
    shared = torch.randn(3, 3)
    both = replace(content, weights={"a": shared, "b": shared.T})
    checkpoint.save(tmp_path / "step_000000001", both)
    assert torch.equal(checkpoint.load(tmp_path / "step_000000001").weights["b"], shared.T)


def test_large_weights_are_cut_into_files_with_an_index(content, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 600)
    checkpoint.save(tmp_path / "cut", content)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2
    assert set(index) == set(content.weights)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    found = checkpoint.load(tmp_path / "cut")
    assert all(torch.equal(found.weights[name], value) for name, value in content.weights.items())
    (tmp_path / "cut" / sorted(index.values())[1]).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        checkpoint.load(tmp_path / "cut")


def test_schema_1_loads_for_ever():
    actor = robolearn.load(FIXTURES / "checkpoint_schema_1")
    wanted = np.load(FIXTURES / "checkpoint_schema_1" / "expected_chunk.npy")
    obs = {"observation.state": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 2, 3)}
    noise = np.linspace(1, -1, 8, dtype=np.float32).reshape(1, 4, 2)
    np.testing.assert_allclose(actor.act(obs, noise), wanted, atol=1e-5)


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_every_flipped_byte_is_found(saved, count):
    newest = saved / "checkpoints" / "step_000000007"
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    draw = random.Random(count)
    for trial in range(count):
        path = files[trial % len(files)]
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        flipped = bytes([whole[place] ^ (1 << draw.randrange(8))])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        with pytest.raises(CheckpointError):
            checkpoint.verify(newest)
        assert checkpoint.latest_valid(saved).name == "step_000000005"
        path.write_bytes(whole)
    assert checkpoint.latest_valid(saved) == newest


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.long)])
def test_a_kill_inside_save_leaves_a_checkpoint_that_loads(saved, forks, tmp_path, count):
    source = tmp_path / "source"
    shutil.copytree(saved / "checkpoints" / "step_000000007", source)
    draw = random.Random(count)
    for trial in range(count):
        log = tmp_path / f"saves_{trial}"
        kill = (log, 1, draw.uniform(0, 0.1))
        arguments = {"source": str(source), "run": str(saved), "log": str(log)}
        assert forks.run("save_for_ever", kill=kill, **arguments)["status"] == -9
        done = int(log.read_text().splitlines()[-1])
        newest = checkpoint.load(saved)
        assert newest.step >= done > 7
        assert checkpoint.load_training_state(saved).step == newest.step


def test_a_replaced_folder_is_found_under_its_old_name(saved):
    newest = saved / "checkpoints" / "step_000000007"
    newest.rename(newest.with_name("step_000000007.old"))
    assert checkpoint.load(saved).step == 7
    shutil.copytree(saved / "checkpoints" / "step_000000005", newest)
    assert checkpoint.latest_valid(saved) == newest


def test_old_checkpoints_go_and_milestones_stay(saved, content):
    for step in (8, 9, 10):
        checkpoint.save(saved / "checkpoints" / f"step_{step:09d}", replace(content, step=step))
    (saved / "checkpoints" / ".tmp-1-step_000000011").mkdir()
    checkpoint.prune(saved, keep=2, milestones=(5,))
    names = sorted(path.name for path in (saved / "checkpoints").iterdir())
    assert names == ["step_000000005", "step_000000009", "step_000000010"]


def test_weights_that_are_not_finite_are_not_saved(content, state, tmp_path):
    name = next(iter(content.weights))
    for bad in (float("nan"), float("inf")):
        spoilt = {**content.weights, name: torch.full_like(content.weights[name], bad)}
        with pytest.raises(CheckpointError, match=name.split(".")[0]):
            checkpoint.save(tmp_path / "new", replace(content, weights=spoilt))
        with pytest.raises(CheckpointError, match="raw weights"):
            checkpoint.save(tmp_path / "new", content, replace(state, weights=spoilt))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_an_error_of_ours(content, tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save(tmp_path / "step_000000007", content)
    assert not (tmp_path / "step_000000007").exists()


def test_differences_between_weights_and_policy_are_named(content, tmp_path):
    name, value = next(iter(content.weights.items()))
    others = {key: item for key, item in content.weights.items() if key != name}
    cases = {
        f"missing {name}": others,
        "unexpected extra": {**content.weights, "extra": torch.zeros(1)},
        "instead of": {**content.weights, name: value.new_zeros(*value.shape, 2)},
        "float64 instead of": {**content.weights, name: value.double()},
    }
    for i, (text, weights) in enumerate(cases.items()):
        checkpoint.save(tmp_path / f"{i}", replace(content, weights=weights))
        with pytest.raises(CheckpointError, match=text):
            robolearn.load(tmp_path / f"{i}")


def test_a_width_that_the_weights_do_not_have_allocates_nothing(content, tmp_path):
    huge = {**POLICY, "network": {"name": "mlp", "width": 1 << 20, "depth": 1}}
    checkpoint.save(tmp_path / "huge", replace(content, config={"policy": huge}))
    with pytest.raises(CheckpointError, match="instead of"):
        robolearn.load(tmp_path / "huge")


def test_options_that_do_not_change_the_weights_may_be_overridden(saved):
    assert robolearn.load(saved, policy={"steps": 1}).policy.config.steps == 1
    begun = checkpoint.load(saved).with_policy({"prefix": {"name": "warm", "begin": 0.25}})
    prefix = begun.with_policy({"prefix": {"begin": 0.75}}).policy_config().prefix
    assert (prefix.name, prefix.begin) == ("warm", 0.75)  # one option within another leaves its others alone
    with pytest.raises(CheckpointError, match="do not fit"):
        robolearn.load(saved, policy={"chunk": 8})


def test_an_unknown_schema_and_an_empty_folder_say_what_to_do(saved, tmp_path):
    path = saved / "checkpoints" / "step_000000007" / "manifest.json"
    manifest = json.loads(path.read_text())
    content = {key: value for key, value in manifest.items() if key != "digest"} | {"schema_version": 99}
    path.write_bytes(checkpoint.plain_json({**content, "digest": checkpoint._digest(content)}))
    with pytest.raises(CheckpointError, match="unknown schema") as error:
        checkpoint.verify(path.parent)
    assert "update robolearn" in str(error.value)
    with pytest.raises(CheckpointError, match="No valid checkpoint"):
        checkpoint.load(tmp_path)
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        checkpoint.load(tmp_path / "nowhere")


def test_every_policy_of_the_registry_goes_through_a_checkpoint(content, tmp_path):
    for name in ("flow", "diffusion", "regression"):
        config = {**POLICY, "name": name}
        built = replace(content, config={"policy": config}).policy_config().build(content.pipeline.transform_spec(SPEC))
        checkpoint.save(tmp_path / name, replace(content, config={"policy": config}, weights=built.state_dict()))
        assert robolearn.load(tmp_path / name).noise_shape == tuple(built.noise_shape)
        assert resolve("policy", name) is not None
