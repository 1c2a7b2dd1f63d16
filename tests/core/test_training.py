"""The supervised loop: what it visits, how it steps, what it refuses, what it leaves behind."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import robolearn
from robolearn import checkpoint
from robolearn.errors import CheckpointError, ConfigError, DataError, NumericsError, SpecError
from robolearn.learner import Learner, learning_rate
from robolearn.loading import open_training_data, sample_index, split_episodes, validation_index
from robolearn.metrics import read_metrics
from robolearn.run import DataConfig, TrainConfig, parse_run
from robolearn.training import train


class Linear(torch.nn.Module):
    """A policy of one weight vector: loss = mean((w·x - y)²)."""

    def __init__(self, spoil_at: int | None = None):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        self.frozen = torch.nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.calls, self._spoil_at = 0, spoil_at

    def loss(self, batch):
        self.calls += 1
        error = batch["x"] @ self.w - batch["y"]
        if self.calls - 1 == self._spoil_at:
            error = error * float("nan")
        return error.square(), {"bias": error.mean().detach()}


def linear_batch(rows: int = 8) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.randn(rows, 2, generator=generator), "y": torch.randn(rows, generator=generator)}


def learner(policy=None, **options) -> Learner:
    config = TrainConfig(**{"precision": "fp32", "warmup_steps": 0, "schedule": "constant", **options})
    return Learner(policy or Linear(), config, 0, torch.device("cpu"))


def test_every_window_once_per_epoch_whatever_the_batch():
    seen = np.concatenate([sample_index(50, 3, step, 7) for step in range(50)])
    assert np.array_equal(np.sort(seen[:50]), np.arange(50))
    assert np.array_equal(np.bincount(seen), np.full(50, 7))
    assert np.array_equal(sample_index(50, 3, 11, 7), sample_index(50, 3, 11, 7))
    assert not np.array_equal(seen[:50], seen[50:100])
    tiny = sample_index(3, 0, 5, 10)
    assert len(tiny) == 10
    assert np.bincount(tiny).max() <= 4


def test_validation_covers_the_windows_evenly():
    index = np.concatenate(list(validation_index(100, 16)))
    assert np.array_equal(index, np.arange(100))
    few = list(validation_index(100_000, 16, limit=4))
    assert sum(map(len, few)) == 64
    assert few[0][0] == 0
    assert few[-1][-1] == 99_999


def test_held_out_episodes_are_not_learned_from(dataset, plain_run):
    config = parse_run(plain_run(data={"validation_fraction": 0.4}))
    data = open_training_data(config)
    assert (len(data.windows), len(data.validation)) == (60, 40)
    train_episodes = set(data.windows.episodes.tolist())
    assert train_episodes.isdisjoint(data.validation.episodes.tolist())
    source = robolearn.open_dataset(dataset)
    again = split_episodes(source, config.data, seed=0)
    assert set(again[0]) == train_episodes
    assert split_episodes(source, DataConfig("x", validation_fraction=0.01), 0)[1] != []
    with pytest.raises(DataError, match="do not exist"):
        split_episodes(source, DataConfig("x", episodes=(0, 5)), 0)


def test_the_rate_warms_up_and_follows_a_cosine():
    config = TrainConfig(steps=110, warmup_steps=10, learning_rate=1.0, final_fraction=0.1)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 60) == pytest.approx(0.1 + 0.9 * 0.5)
    assert learning_rate(config, 110) == pytest.approx(0.1)
    constant = TrainConfig(steps=110, warmup_steps=10, learning_rate=1.0, schedule="constant")
    assert learning_rate(constant, 109) == 1.0


@pytest.mark.parametrize("clip", [0.0, 0.05, 100.0])
def test_a_step_is_adamw_with_the_norm_clipped(clip):
    ours, batch = learner(clip_norm=clip, learning_rate=0.1, weight_decay=0.01), linear_batch()
    twin = Linear()
    optimizer = torch.optim.AdamW([twin.w], lr=0.1, weight_decay=0.01)
    for step in range(5):
        metrics = ours.step(step, [(0, batch)], 1)
        optimizer.zero_grad()
        twin.loss(batch)[0].mean().backward()
        norm = torch.nn.utils.clip_grad_norm_([twin.w], clip or math.inf)
        optimizer.step()
        torch.testing.assert_close(metrics["grad_norm"], norm)
        torch.testing.assert_close(ours.policy.w, twin.w, atol=1e-6, rtol=1e-5)
    assert ours.policy.frozen.item() == 5.0


def test_slices_add_up_to_the_batch():
    batch = linear_batch(8)
    whole, cut = learner(), learner()
    for step in range(3):
        first = whole.step(step, [(0, batch)], 1)
        pieces = [(i, {key: value[2 * i : 2 * i + 2] for key, value in batch.items()}) for i in range(4)]
        second = cut.step(step, pieces, 4)
        torch.testing.assert_close(first["loss"], second["loss"])
        torch.testing.assert_close(first["bias"], second["bias"])
        torch.testing.assert_close(whole.policy.w, cut.policy.w, atol=1e-6, rtol=1e-5)


def test_the_moving_average_by_hand():
    ours, batch = learner(ema_decay=0.5, ema_every=1, learning_rate=0.1), linear_batch()
    average = ours.policy.w.detach().clone()
    for step in range(4):
        ours.step(step, [(0, batch)], 1)
        decay = min(0.5, (2 + step) / (11 + step))
        average = decay * average + (1 - decay) * ours.policy.w.detach()
        torch.testing.assert_close(ours.weights()["w"], average)
    raw = ours.policy.w.detach().clone()
    ours.swap_ema()
    torch.testing.assert_close(ours.policy.w.detach(), average)
    ours.swap_ema()
    assert torch.equal(ours.policy.w.detach(), raw)
    assert torch.equal(learner(ema_decay=0.0).weights()["w"], Linear().w.detach())


def test_a_step_that_is_not_finite_raises_in_that_step_and_changes_nothing():
    ours, batch = learner(Linear(spoil_at=3)), linear_batch()
    for step in range(3):
        ours.step(step, [(0, batch)], 1)
    before = {name: value.clone() for name, value in ours.weights().items()}
    with pytest.raises(NumericsError, match="step 3"):
        ours.step(3, [(0, batch)], 1)
    assert all(torch.equal(before[name], value) for name, value in ours.weights().items())


def test_without_waiting_the_step_is_skipped_and_named_later():
    ours, batch = learner(Linear(spoil_at=2), learning_rate=0.1), linear_batch()
    ours.waits = False  # as on a GPU
    for step in range(2):
        ours.step(step, [(0, batch)], 1)
    ours.check()
    before = ours.policy.w.detach().clone()
    ours.step(2, [(0, batch)], 1)
    assert torch.equal(ours.policy.w, before)
    ours.step(3, [(0, batch)], 1)
    assert not torch.equal(ours.policy.w, before)
    with pytest.raises(NumericsError, match="step 2"):
        ours.check()


def test_a_gradient_that_is_not_finite_is_found_behind_a_finite_loss():
    class Root(Linear):
        def loss(self, batch):
            return (self.w * 0).sum().sqrt() + batch["y"].square(), {}

    with pytest.raises(NumericsError, match="gradient norm"):
        learner(Root()).step(0, [(0, linear_batch())], 1)


def test_a_run_learns_and_leaves_everything_behind(plain_run):
    notes = []
    config = parse_run(
        plain_run(
            steps=60,
            log_every=10,
            validate_every=20,
            save_every=25,
            milestones=[10],
            learning_rate=0.01,
            data={"validation_fraction": 0.2, "transforms": [{"name": "relative_action", "entries": [["x", "a"]]}]},
        )
    )
    result = train(config, lambda done, note: notes.append((done, note)))
    run = Path(config.out)
    assert result.step == 60
    assert not result.interrupted
    assert notes[-1][0] == 60
    assert "samples/s" in notes[-1][1]
    lines = read_metrics(run)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]
    assert [line["step"] for line in lines if "validation_loss" in line] == [20, 40, 60]
    assert result.validation_loss == lines[-2]["validation_loss"]
    steps = [int(folder.name[5:]) for folder in checkpoint.folders(run)]
    assert steps == [10, 50, 60]
    described = json.loads((run / "run.json").read_text())
    assert described["config"]["train"]["precision"] == "fp32"
    assert {"config_hash", "git_revision", "versions", "machine"} <= set(described)
    actor = robolearn.load(run)
    obs = {"observation.state": np.zeros((3, 2, 3))}
    assert np.isfinite(actor.act(obs, np.zeros((3, *actor.noise_shape)))).all()
    assert parse_run(checkpoint.load(run).config).policy == config.policy


def test_two_steps_then_resume_is_the_same_run(plain_run):
    whole = train(parse_run(plain_run("whole", steps=4, schedule="constant")))
    half = train(parse_run(plain_run("half", steps=2, schedule="constant")))
    rest = train(parse_run(plain_run("half", steps=4, schedule="constant", resume=str(half.checkpoint))))
    again = train(parse_run(plain_run("half", steps=4, schedule="constant", resume=str(rest.checkpoint))))
    assert (again.step, again.loss) == (4, None)  # no step was left to do
    assert rest.step == 4
    first, second = (checkpoint.load_training_state(result.checkpoint) for result in (whole, rest))
    for kind in ("weights", "ema", "optimizer"):
        one, two = getattr(first, kind), getattr(second, kind)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert [line["loss"] for line in read_metrics(Path(whole.checkpoint).parent.parent)] == [
        line["loss"] for line in read_metrics(Path(rest.checkpoint).parent.parent)
    ]


def test_a_continuation_with_other_options_is_refused(plain_run, dataset, tmp_path):
    result = train(parse_run(plain_run(steps=2)))
    resume = str(result.checkpoint)
    for change in ({"seed": 1}, {"learning_rate": 0.1}, {"policy": {"history": 1}}, {"data": {"episodes": [0]}}):
        with pytest.raises(ConfigError, match="not the run"):
            train(parse_run(plain_run(**{"steps": 4, "resume": resume, **change})))
    model_only = tmp_path / "model"
    checkpoint.save(model_only, checkpoint.load(resume))
    with pytest.raises(CheckpointError, match="no training state"):
        train(parse_run(plain_run("other", steps=4, resume=str(model_only))))


def test_a_run_from_before_an_option_existed_continues(plain_run, tmp_path):
    first = train(parse_run(plain_run(steps=2))).checkpoint
    older = checkpoint.load(first)
    plain = json.loads(json.dumps(older.config))
    del plain["train"]["accumulate"]
    old = tmp_path / "old" / "checkpoints" / first.name
    checkpoint.save(old, dataclasses.replace(older, config=plain), checkpoint.load_training_state(first))
    assert train(parse_run(plain_run("old", steps=4, resume=str(old)))).step == 4


def test_a_folder_with_a_run_is_not_overwritten(plain_run):
    train(parse_run(plain_run(steps=2)))
    with pytest.raises(ConfigError, match="holds a run already"):
        train(parse_run(plain_run(steps=2)))


def test_weights_that_run_away_end_the_run_and_are_not_saved(plain_run):
    config = parse_run(plain_run(steps=200, learning_rate=1e25, clip_norm=0.0, save_every=1, keep=300))
    with pytest.raises((NumericsError, CheckpointError)):
        train(config)
    for folder in checkpoint.folders(Path(config.out)):
        found = checkpoint.load(folder)
        assert all(torch.isfinite(value).all() for value in found.weights.values())


def test_bad_configs_say_what_to_do(plain_run):
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        parse_run(plain_run(stepz=3))
    with pytest.raises(ConfigError, match="divides"):
        parse_run(plain_run(batch_size=10, accumulate=3))
    with pytest.raises(ConfigError, match="held-out"):
        train(parse_run(plain_run("a", validate_every=5)))
    with pytest.raises(SpecError, match="observation"):
        train(parse_run(plain_run("b", data={"keys": ["observation.stat"]})))
    with pytest.raises(SpecError, match="rename"):
        train(parse_run(plain_run("c", data={"rename": {"observation.state": "observation.pose"}})))
    with pytest.raises(ConfigError, match="names no policy"):
        parse_run({"data": {"path": "x"}})


def test_renamed_observations_are_the_new_names_everywhere(plain_run):
    data = {"rename": {"observation.joints": "observation.state"}, "keys": ["observation.joints"]}
    result = train(parse_run(plain_run(steps=2, data=data)))
    assert list(robolearn.load(result.checkpoint).spec.observations) == ["observation.joints"]


def test_instructions_go_through_training_and_back(plain_run):
    result = train(parse_run(plain_run(steps=2, data={"keys": ["observation.state", "task"]})))
    actor = robolearn.load(result.checkpoint)
    obs = {"observation.state": np.zeros((2, 2, 3)), "task": np.array([["task 0"] * 2, ["task 1"] * 2])}
    chunks = actor.act(obs, np.zeros((2, *actor.noise_shape)))
    assert not np.array_equal(chunks[0], chunks[1])


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_is_close_to_the_plain_one(plain_run):
    policy = {"policy": {"name": "regression"}}  # without noise, which compiled code draws its own way
    plain = train(parse_run(plain_run("plain", steps=3, **policy)))
    compiled = train(parse_run(plain_run("compiled", steps=3, compile=True, **policy)))
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-2)


def test_bf16_learns_too(plain_run):
    result = train(parse_run(plain_run(steps=40, precision="bf16", learning_rate=0.01, log_every=10)))
    losses = [line["loss"] for line in read_metrics(Path(result.checkpoint).parent.parent)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["mlp", "unet", "transformer"])
def test_a_row_does_not_depend_on_the_rows_beside_it(name, plain_run):
    network = {"mlp": {"width": 64}, "unet": {"channels": [16, 32]}, "transformer": {"width": 32, "depth": 1}}[name]
    plain = plain_run(steps=1, policy={"chunk": 8, "network": {"name": name, **network}})
    actor = robolearn.load(train(parse_run(plain)).checkpoint)
    draw = np.random.default_rng(0)
    obs = {"observation.state": draw.normal(size=(41, 2, 3))}
    noise = draw.normal(size=(41, *actor.noise_shape)).astype(np.float32)
    together = actor.act(obs, noise)
    for rows in ([0], [7], [40], [3, 30], list(range(40, -1, -1)), [5] * 20):
        alone = actor.act({"observation.state": obs["observation.state"][rows]}, noise[rows])
        assert np.array_equal(alone, together[rows])


def test_an_actor_refuses_what_is_unlike_its_spec(plain_run):
    actor = robolearn.load(train(parse_run(plain_run(steps=1))).checkpoint)
    state, noise = np.zeros((2, 2, 3)), np.zeros((2, *actor.noise_shape), np.float32)
    with pytest.raises(DataError, match=r"No 'observation\.state'"):
        actor.act({"observation.pose": state}, noise)
    with pytest.raises(SpecError, match="wrong shape"):
        actor.act({"observation.state": state[..., :2]}, noise)
    with pytest.raises(SpecError, match="noise"):
        actor.act({"observation.state": state}, noise[..., :1])
    with pytest.raises(SpecError, match="numbers of rows"):
        actor.act({"observation.state": state}, noise[:1])
    with pytest.raises(NumericsError, match=r"observation\.state"):
        actor.act({"observation.state": state * np.nan}, noise)
