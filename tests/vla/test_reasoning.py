"""Words before actions: learned after the prompt, causal, and gone to the bit when acting."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import robolearn
from robolearn.api import make_env
from robolearn.collect import CollectConfig, collect
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import open_sink
from robolearn.errors import ConfigError, DataError, EnvError
from robolearn.loading import open_training_data
from robolearn.policies.vla.reasoning import teach
from robolearn.rollout import ExpertController, RandomController
from robolearn.run import parse_run
from robolearn.training import train

FAMILIES = ("smolvlm", "paligemma", "qwen2_5_vl", "qwen3_vl", "florence2", "openvla")
TEXTS = ("the handle is left of the hand", "reach", "pull the handle", "")
REASONING = {"key": "why", "weight": 1.0, "length": 8}


class Told:
    """The bench's rows, each with a text of its own."""

    def __init__(self, bench, spec):
        self._bench, self.spec = bench, spec

    def __len__(self):
        return 4

    def gather(self, index):
        return self._bench.given(self.spec, 4, action=True) | {"why": list(TEXTS)}


@pytest.fixture
def told(bench):
    """Build a policy that reasons, a batch of four rows, of which the last has nothing to say, and observations."""

    def build(family="smolvlm", head="flow", **options):
        config = bench.config(family, head, reasoning={**REASONING, **options.pop("reasoning", {})}, **options)
        spec = replace(bench.raw, history=config.history, chunk=config.chunk)
        pipeline = robolearn.transforms.Pipeline(tuple(config.transforms(spec))).bind(spec).fit(Told(bench, spec))
        torch.manual_seed(0)
        policy = config.build(pipeline.transform_spec(spec)).train()
        return policy, pipeline.forward(Told(bench, spec).gather(range(4))), bench.obs(pipeline, spec)

    return build


def _loss(policy, batch):
    torch.manual_seed(1)  # the same noise, so that losses compare
    return policy.loss(batch)


@pytest.mark.parametrize(
    ("family", "head"), [(family, "flow") for family in FAMILIES] + [("smolvlm", h) for h in ("l1", "tokens")]
)
def test_every_backbone_learns_to_say_it(told, family, head):
    policy, batch, _ = told(family, head, reasoning={"dropout": 0.5})
    optimizer = torch.optim.AdamW([value for value in policy.parameters() if value.requires_grad], 3e-3)
    said = []
    for _ in range(20):
        loss, metrics = _loss(policy, batch)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        said.append(float(metrics["reasoning_loss"]))
    assert loss.shape == (4,)
    assert said[-1] < 0.5 * said[0], said
    untaught = [name for name, value in policy.named_parameters() if value.requires_grad and value.grad is None]
    assert untaught == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_predicted_from_the_prefix_and_the_words_before_it(told, family, monkeypatch):
    policy, batch, _ = told(family)
    states = []
    logits = type(policy.backbone).logits
    monkeypatch.setattr(type(policy.backbone), "logits", lambda self, x: states.append(x) or logits(self, x))

    def say(**changes):
        given = batch | changes
        teach(policy.backbone, policy.prefix(given), given["why"], 1.0)
        return states[-1].detach()

    usual, text = say(), batch["why"].clone()
    text[0, 2] = (text[0, 2] + 1) % 200
    other = say(why=text)
    torch.testing.assert_close(other[:, :3], usual[:, :3], rtol=0, atol=1e-6)  # the third is predicted from two
    assert (other[0, 3] - usual[0, 3]).abs().max() > 1e-5
    for key in ("observation.images.wrist", "observation.prompt", "observation.state"):
        moved = (say(**{key: batch[key].roll(1, 0)})[0, :6] - usual[0, :6]).abs().amax(-1)
        assert (moved > 1e-6).all(), key


@pytest.mark.parametrize("head", ["flow", "l1", "tokens", "diffusion"])
def test_acting_does_without_to_the_bit(told, bench, head):
    """The policy acts, and in rows that drop their reasoning learns to act, as one that never had any."""
    policy, batch, obs = told(head=head)
    plain = bench.config("smolvlm", head).build(policy.spec).train()
    plain.load_state_dict(policy.state_dict())
    alone = {key: value for key, value in batch.items() if key != "why"}
    loss, metrics = _loss(policy, batch)
    _, said = teach(policy.backbone, policy.prefix(batch), batch["why"], 1.0)
    torch.testing.assert_close(loss - said, _loss(plain, alone)[0], rtol=0, atol=1e-5)
    assert set(metrics) - set(_loss(plain, alone)[1]) == {"reasoning_loss"}
    assert "why" not in obs
    with torch.inference_mode():
        noise = bench.noise(policy)
        assert torch.equal(policy.eval().sample(obs, noise), plain.eval().sample(obs, noise))
        torch.testing.assert_close(_loss(policy, batch)[0] - said, _loss(plain, alone)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["flow", "l1"])
def test_the_head_sees_the_words_where_they_are_not_dropped(told, head):
    policy, batch, _ = told(head=head, reasoning={"dropout": 0.0, "weight": 0.0})
    seeing = _loss(policy, batch)[0]
    other = _loss(policy, batch | {"why": batch["why"].flip(0)})[0]
    without = _loss(policy, batch | {"why": torch.full_like(batch["why"], -1)})[0]
    assert (seeing - other).abs()[[0, 3]].min() > 1e-6
    assert (seeing - without).abs()[:3].min() > 1e-6
    torch.testing.assert_close(seeing[3], without[3], rtol=0, atol=1e-5)  # it has nothing to say
    with torch.no_grad():
        batch = {key: torch.cat([value] * 8) for key, value in batch.items()}
        prefix = policy.prefix(batch)
        memory, _ = teach(policy.backbone, prefix, batch["why"], 0.5)
    seen = memory.mask[:, prefix.mask.shape[1] :]
    assert 6 <= int(seen.any(1).sum()) <= 18  # half of the 24 that have something to say
    assert torch.equal(memory.next, prefix.next + seen.sum(1))


@pytest.mark.parametrize("head", ["flow", "l1"])
def test_a_sample_without_actions_teaches_words_alone(told, head):
    policy, batch, _ = told(head=head)
    batch["action_is_pad"][:] = True
    loss, metrics = _loss(policy, batch)
    assert float(loss[3].detach()) == 0.0  # neither actions nor words
    assert float(loss[:3].detach().min()) > 0
    assert float(metrics[f"{head}_loss"]) == 0.0


def test_an_insulated_backbone_may_learn_from_words_alone(told):
    head = {"name": "flow", "expert": {"width": 32}, "insulate": True}
    policy, batch, _ = told(head_options=head, state="expert")
    _loss(policy, batch)[0].mean().backward()
    assert float(policy.backbone.language.layers[0].mlp.up_proj.weight.grad.abs().sum()) > 0


def test_words_that_do_not_fit_and_backbones_that_say_nothing(told, bench):
    with pytest.raises(DataError, match=r"reasoning does not fit(.|\n)*policy\.reasoning\.length"):
        told(reasoning={"length": 3})
    with pytest.raises(ConfigError, match="cannot say"):
        bench.config("small", reasoning=REASONING)
    for wrong in ({"dropout": 1.5}, {"weight": -1.0}, {"length": 0}):
        with pytest.raises(ConfigError, match="out of range"):
            bench.config(reasoning={**REASONING, **wrong})


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """Two demonstrations with what the expert says, and the same two without."""
    folder = tmp_path_factory.mktemp("said")
    for name, say in (("with", "why"), ("without", "")):
        env = make_env("pick_place_language", 2, {"cameras": ["wrist"], "image_px": 32})
        sink = open_sink(folder / name, env.spec, {"images": "image"})
        collect(env, ExpertController(env.expert(), 0), sink, CollectConfig(2, 2, say=say))
        sink.close()
        env.close()
    return folder


def test_an_expert_says_what_it_sees_and_does(demonstrations):
    one, other = (LeRobotReader(demonstrations / name) for name in ("with", "without"))
    assert set(one.keys) - set(other.keys) == {"why"}
    assert one.spec == other.spec  # words are no observation
    frames = one.read(0, ["why", "task", "action", "observation.environment_state", "observation.state"])
    assert np.array_equal(frames["action"], other.read(0, ["action"])["action"])
    task, text = str(frames["task"][0]).split(), [str(value) for value in frames["why"]]
    colour = next(word for word in ("red", "green", "blue") if word in task)
    assert all(f" {colour} " in line for line in text)
    assert all((" left;" in line) == ("left" in task) for line in text)
    stages = [line.split()[2] for line in text]
    assert list(dict.fromkeys(stages)) == ["reach", "carry", "leave"]
    closed = frames["action"][:, -1] > 0
    assert np.array_equal(closed, np.array([stage == "carry" for stage in stages]))
    # Before the hand turns, the field's row tells how far ahead the cube is.
    names = one.spec.observations["observation.environment_state"].names
    away = frames["observation.environment_state"][0]
    x, y = (away[names.index(f"tool_to_{colour}_cube_{axis}")] for axis in "xy")
    yaw = frames["observation.state"][0, 3]
    ahead, left = np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x
    field = text[0].split()[0]
    assert abs(-0.08 + 0.04 * (int(field[1]) - 0.5) - ahead) <= 0.0201
    assert abs(-0.24 + 0.04 * ("abcdefghijkl".index(field[0]) + 0.5) - left) <= 0.0201


def test_who_has_nothing_to_say_is_told_so():
    env = make_env("robolearn/reach", 2, {})
    with pytest.raises(EnvError, match="nothing to say"):
        collect(env, ExpertController(env.expert(), 0), None, CollectConfig(2, 2, say="why"))
    with pytest.raises(ConfigError, match="Nobody says"):
        collect(env, RandomController(env, 0), None, CollectConfig(2, 2, say="why"))
    env.close()


def test_demonstrations_that_say_why_train_a_policy_that_acts_without(demonstrations, bench, tmp_path):
    def run(name, **reasoning):
        backbone = {"name": "smolvlm", "options": bench.families["smolvlm"]}
        return parse_run(
            {
                "policy": {
                    "name": "vla",
                    "chunk": 4,
                    "backbone": backbone,
                    "head": bench.heads["flow"],
                    "reasoning": {"key": "why", "length": 24, "dropout": 0.5, **reasoning},
                },
                "data": {
                    "path": str(demonstrations / name),
                    "kind": "lerobot",
                    "keys": ["observation.images.wrist", "observation.state", "task"],
                },
                "train": {"steps": 2, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "precision": "fp32"},
                "device": "cpu",
                "out": str(tmp_path / "run"),
            }
        )

    with pytest.raises(DataError, match=r"no text 'why'(.|\n)*collect"):
        train(run("without"))
    renamed = run("with")
    renamed = replace(
        renamed, data=replace(renamed.data, rename={"observation.images.hand": "observation.images.wrist"})
    )
    keys = ("observation.images.hand", "observation.state", "task")
    data = open_training_data(replace(renamed, data=replace(renamed.data, keys=keys)))
    assert "why" in data.pipeline.forward(data.windows.gather(np.arange(2)))
    actor = robolearn.load(train(run("with")).checkpoint)
    assert set(actor.spec.observations) == {"observation.images.wrist", "observation.state", "task"}
    obs = {
        "observation.images.wrist": np.zeros((1, 1, 32, 32, 3), np.uint8),
        "observation.state": np.zeros((1, 1, *actor.spec.observations["observation.state"].shape), np.float32),
        "task": np.array([["put the red cube in the left bin"]]),
    }
    assert np.isfinite(actor.act(obs, np.zeros((1, *actor.noise_shape), np.float32))).all()
