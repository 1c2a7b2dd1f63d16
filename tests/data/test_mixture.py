"""Mixtures: shares by weight, padding that is marked, statistics of each, and a policy that learns from them."""

import pickle

import numpy as np
import pytest
import torch

from robolearn.actor import load
from robolearn.api import make_env
from robolearn.cli import main
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.mixture import Mixture, MixtureOptions, build_mixture_windows, open_dataset
from robolearn.data.normalize_each import NormalizeEach
from robolearn.data.synthetic import camera_spec, record
from robolearn.errors import ConfigError, SpecError
from robolearn.evaluation import EvalConfig, evaluate
from robolearn.loading import open_training_data
from robolearn.members import load_member
from robolearn.run import parse_run
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.training import train

TOP, WRIST, STATE = "observation.images.top", "observation.images.wrist", "observation.state"
ARM = Spec(
    {
        STATE: Feature("signal", (5,)),
        WRIST: Feature("image", (16, 24, 3), "uint8"),
        "task": Feature("text", dtype="str"),
    },
    ActionSpec(4, "joint_position"),
    rate_hz=20.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two datasets: 3-dim state, 2-dim action, top camera at 10 Hz; 5, 4, wrist camera at 20 Hz, values around 100."""
    root = tmp_path_factory.mktemp("mixture")
    record(root / "small", [4, 6], camera_spec(16), WriterOptions(images="image"))
    with LeRobotWriter(root / "large", ARM, WriterOptions(images="image")) as writer:
        for episode in range(5):
            for step in range(21):
                value = {STATE: np.full(5, 100 + step), "action": np.full(4, 100.0 + step), "task": "lift"}
                writer.add_frame({**value, WRIST: np.full((16, 24, 3), episode, np.uint8)})
            writer.save_episode()
    return root


def options(**more):
    return {"members": {"small": {"path": "small"}, "large": {"path": "large"}}, **more}


def test_one_spec_for_all(folder):
    mixture = open_dataset(folder, options())
    assert mixture.spec.rate_hz == 10
    assert mixture.lengths.tolist() == [4, 6] + [11] * 5
    assert set(mixture.spec.observations) == {TOP, WRIST, STATE, "task"}
    assert mixture.spec.observations[STATE].shape == (5,)
    assert mixture.spec.action.dim == 4
    small = mixture.read(1, [STATE, TOP, WRIST, "action", "task"], 2, 5)
    original = LeRobotReader(folder / "small").read(1, [STATE, TOP, "action", "task"], 2, 5)
    assert np.array_equal(small[STATE], np.pad(original[STATE], [(0, 0), (0, 2)]))
    assert np.array_equal(small[TOP], original[TOP])
    assert not small[WRIST].any()
    large = mixture.read(3, [STATE, "action"])
    assert large["action"][:, 0].tolist() == list(range(100, 121, 2))
    assert mixture.metadata(3)["dataset"] == "large"


def test_pictures_of_one_size(folder):
    with pytest.raises(SpecError, match="image_px"):
        open_dataset(folder, {"members": {"a": {"path": "small", "rename": {WRIST: TOP}}, "b": {"path": "large"}}})
    members = {"a": {"path": "small", "rename": {WRIST: TOP}}, "b": {"path": "large"}}
    mixture = open_dataset(folder, {"members": members, "image_px": [8, 8]})
    assert mixture.read(0, [WRIST])[WRIST].shape == (4, 8, 8, 3)
    assert mixture.read(2, [WRIST])[WRIST].shape == (11, 8, 8, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("loader", ["windows", "stream"])
def test_shares_and_masks(folder, share, loader):
    given = options(loader=loader)
    given["members"]["small"]["weight"], given["members"]["large"]["weight"] = share, 1 - share
    mixture = open_dataset(folder, given)
    windows = pickle.loads(pickle.dumps(build_mixture_windows(mixture, 2, 4)))
    batch = windows.gather(np.arange(len(windows)))
    number = batch["dataset_index"].numpy()
    assert (number == 0).mean() == pytest.approx(share, abs=0.02)
    seen = {int(place) for place in windows.place_of(np.arange(len(windows)))}
    assert len(seen) == 65  # nothing is left out
    assert batch["action_dim_is_pad"].tolist() == [[False, False, n == 0, n == 0] for n in number]
    assert batch[f"{TOP}_is_pad"].tolist() == (number == 1).tolist()
    assert batch[f"{WRIST}_is_pad"].tolist() == (number == 0).tolist()
    assert not batch[f"{STATE}_is_pad"].any()
    assert (batch["action"][..., 2:][number == 0] == 0).all()


def test_each_is_scaled_by_its_own_statistics(folder):
    mixture = open_dataset(folder, options())
    windows = build_mixture_windows(mixture, 1, 3)
    batch = windows.gather(np.arange(len(windows)))
    fitted = NormalizeEach(mode="mean_std", deploy="large").bind(windows.spec).fit([batch])
    scaled = fitted.forward(batch)
    for number, dims in ((0, 2), (1, 4)):
        here = batch["dataset_index"] == number
        rows = scaled["action"][here][~batch["action_is_pad"][here]][:, :dims]
        assert rows.mean(0).abs().max() < 1e-4
        assert (rows.std(0, correction=0) - 1).abs().max() < 1e-3
    assert torch.allclose(fitted.inverse(scaled["action"], batch), batch["action"], atol=1e-4)
    alone = {key: value for key, value in batch.items() if key != "dataset_index"}
    here = batch["dataset_index"] == 1
    assert torch.equal(fitted.forward(alone)["action"][here], scaled["action"][here])
    with pytest.raises(SpecError, match="did you mean 'large'"):
        NormalizeEach(deploy="larg").bind(windows.spec)


def test_a_policy_learns_from_a_mixture(folder, tmp_path):
    data = {"path": str(folder), "kind": "mixture", "loader": "mixture", "options": options(), "keys": [STATE, "task"]}
    data |= {"validation_fraction": 0.3, "transforms": [{"name": "normalize_each"}]}
    plain = {"policy": {"name": "regression", "chunk": 4, "history": 1}, "data": {**data, "keys": [STATE]}}
    plain |= {
        "train": {"steps": 3, "batch_size": 8, "validate_every": 2},
        "out": str(tmp_path / "run"),
        "device": "cpu",
    }
    config = parse_run(plain)
    opened = open_training_data(config)
    held_out = {int(e) for e in opened.validation.episode_of(np.arange(len(opened.validation)))}
    learned = {int(e) for e in opened.windows.episode_of(np.arange(len(opened.windows)))}
    assert held_out
    assert not held_out & learned
    assert np.isfinite(train(config).loss)


def test_a_policy_of_a_mixture_acts_as_one_member(folder, tmp_path):
    env = make_env("pusht", 1)
    obs, _ = env.reset(seed=[0])
    keys = [key for key, feature in env.spec.observations.items() if feature.kind == "signal"]
    with LeRobotWriter(tmp_path / "push", env.spec.select(tuple(keys))) as writer:
        for step in range(12):
            writer.add_frame({**{key: obs[key][0] + step for key in keys}, "action": np.full(2, 200.0 + step)})
        writer.save_episode()
    members = {"large": {"path": str(folder / "large")}, "push": {"path": str(tmp_path / "push")}}
    data = {"path": str(folder), "kind": "mixture", "loader": "mixture", "options": {"members": members}}
    data |= {"keys": keys, "transforms": [{"name": "normalize_each"}]}
    plain = {"policy": {"name": "regression", "chunk": 4, "history": 1}, "data": data, "device": "cpu"}
    trained = train(parse_run({**plain, "train": {"steps": 2, "batch_size": 4}, "out": str(tmp_path / "run")}))
    whole, member = load(trained.checkpoint), load_member(trained.checkpoint, "push")
    assert (whole.spec.action.dim, member.spec.action.dim) == (4, 2)
    assert set(member.spec.observations) == set(keys)
    assert member.spec.observations[STATE] == env.spec.observations[STATE]
    with pytest.raises(SpecError, match=r"shape"):
        evaluate(whole, env, EvalConfig(episodes=1))
    assert len(evaluate(member, env, EvalConfig(episodes=1, execute=4)).outcomes) == 1
    env.close()
    # What it does is what the whole does on a padded window of this member.
    mixture = open_dataset(folder, {"members": members})
    windows = build_mixture_windows(mixture, 1, 4, keys)
    batch = windows.gather(np.array([len(windows) - 3]))
    assert batch["dataset_index"].tolist() == [1]
    given = {key: batch[key].numpy() for key in whole.spec.observations}
    noise = np.zeros((1, *whole.noise_shape), np.float32)
    encoded, trace = whole.pipeline.encode({key: value for key, value in batch.items() if "action" not in key})
    wanted = whole.pipeline.decode(whole.policy.sample(encoded, torch.from_numpy(noise)), trace)
    got = member.act({key: given[key][..., : member.spec.observations[key].shape[-1]] for key in keys}, noise)
    assert np.allclose(got, wanted.detach().numpy()[..., :2], atol=1e-3)
    with pytest.raises(SpecError, match="did you mean 'push'"):
        load_member(trained.checkpoint, "puhs")


def test_the_verb(folder, capsys):
    given = ["members.small.path=small", "members.large.path=large", "members.small.weight=1", "members.large.weight=3"]
    assert main(["data", "mixture", str(folder), *given]) == 0
    shown = capsys.readouterr().out
    assert "0.25" in shown
    assert "0.75" in shown


def test_mistakes(folder):
    with pytest.raises(ConfigError, match="needs members"):
        open_dataset(folder, {})
    with pytest.raises(ConfigError, match="positive"):
        _ = Mixture(folder, MixtureOptions({"a": _member("small", -1.0)})).weights
    with pytest.raises(ConfigError, match="needs a mixture"):
        build_mixture_windows(LeRobotReader(folder / "small"))


def _member(path, weight):
    from robolearn.data.mixture import Member

    return Member(path, weight=weight)
