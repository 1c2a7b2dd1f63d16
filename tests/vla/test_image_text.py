"""Co-training: pairs of pictures and text teach a VLA words, and its head nothing."""

import json

import cv2
import numpy as np
import pytest
import torch

import robolearn
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.loading import open_training_data
from robolearn.members import load_member
from robolearn.run import parse_run
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.training import train

FRONT, STATE = "observation.images.front", "observation.state"
ROBOT = Spec(
    {
        STATE: Feature("signal", (3,)),
        FRONT: Feature("image", (32, 32, 3), "uint8"),
        "task": Feature("text", dtype="str"),
    },
    ActionSpec(2, "joint_position"),
    rate_hz=10.0,
)
HEADS = {
    "flow": {"name": "flow", "expert": {"width": 32}, "steps": 2},
    "cotrained": {"name": "flow", "expert": {"width": 32}, "cotrain": 0.5, "bins": 16},
    "l1": {"name": "l1"},
    "bins": {"name": "tokens", "tokenizer": {"name": "bins", "vocabulary": 16}},
    "fast": {"name": "tokens", "tokenizer": {"name": "fast", "vocabulary": 64}},
    "beast": {"name": "tokens", "tokenizer": {"name": "beast", "points": 3, "degree": 2, "vocabulary": 16}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pairs of other sizes in `pairs`; a robot's two episodes in `robot`, the second without words."""
    root = tmp_path_factory.mktemp("co")
    (root / "pairs").mkdir()
    lines = []
    for number, colour in enumerate(("red", "green", "blue", "grey")):
        cv2.imwrite(str(root / f"pairs/{number}.png"), np.full((20 + number, 30, 3), 60 * number, np.uint8))
        lines.append(json.dumps({"file_name": f"{number}.png", "prompt": "what colour", "answer": colour}))
    (root / "pairs/metadata.jsonl").write_text("\n".join(lines))
    draw = np.random.default_rng(0)
    with LeRobotWriter(root / "robot", ROBOT, WriterOptions(images="image")) as writer:
        for words in ("reach", ""):
            for _ in range(6):
                frame = {STATE: draw.normal(500, 50, 3), "action": draw.normal(300, 40, 2), "task": "open it"}
                picture = draw.integers(256, size=(32, 32, 3)).astype(np.uint8)
                writer.add_frame({**frame, FRONT: picture, "reasoning": words})
            writer.save_episode()
    return root


@pytest.fixture
def run(folder, bench, tmp_path):
    """Return a function that gives the plain config of a run on the mixture."""

    def plain(head="flow", key="reasoning", **data):
        norm = {"action_norm": "quantile"} if head in ("bins", "fast", "beast", "cotrained") else {}
        pairs = {"path": "pairs", "options": {"image_px": [32, 32]}, "weight": 1.0}
        options = {"members": {"pairs": pairs, "robot": {"path": "robot", "weight": 2.0}}}
        mixture = {"path": str(folder), "kind": "mixture", "loader": "mixture", "options": options}
        return {
            "policy": {
                "name": "vla",
                "chunk": 4,
                "backbone": {"name": "smolvlm", "options": bench.families["smolvlm"]},
                "head": HEADS[head],
                "reasoning": {"key": key, "weight": 1.0, "length": 8},
                **norm,
            },
            "data": {**mixture, "keys": [FRONT, STATE, "task"], **data},
            "train": {"steps": 2, "batch_size": 8, "warmup_steps": 1, "log_every": 1, "precision": "fp32"},
            "device": "cpu",
            "out": str(tmp_path / "run"),
        }

    return plain


def learner(config):
    """Return the policy of `config` and its whole data as one batch."""
    data = open_training_data(config)
    torch.manual_seed(0)
    policy = config.policy.build(data.pipeline.transform_spec(data.spec)).train()
    return policy, data.pipeline.forward(data.windows.gather(np.arange(len(data.windows))))


@pytest.mark.parametrize("transforms", [[], [{"name": "normalize_each"}]], ids=["normalize", "normalize_each"])
@pytest.mark.parametrize("head", HEADS)
def test_pairs_teach_words_and_the_head_nothing(run, head, transforms):
    policy, batch = learner(parse_run(run(head, transforms=transforms)))
    rows = torch.where(batch["dataset_index"] == 0)[0]
    pairs = {key: value[rows] for key, value in batch.items()}
    loss, metrics = policy.loss(pairs)
    loss.mean().backward()
    assert torch.isfinite(loss).all()
    assert float(metrics["reasoning_loss"]) > 0
    torch.testing.assert_close(loss.detach().mean(), metrics["reasoning_loss"], rtol=0, atol=1e-6)  # and nothing else
    own = [value.grad for value in policy.head.parameters() if value.grad is not None]
    assert own
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in own)
    shared = [value.grad for value in policy.backbone.parameters() if value.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in shared)
    assert sum(float(grad.abs().sum()) for grad in shared) > 0
    # Of the robot's rows the same head learns; those without words teach actions alone.
    policy.zero_grad()
    silent = torch.where((batch["reasoning"] < 0).all(1))[0]
    assert (batch["dataset_index"][silent] == 1).all()
    loss, metrics = policy.loss({key: value[silent] for key, value in batch.items()})
    loss.mean().backward()
    assert float(metrics["reasoning_loss"]) == 0
    assert float(loss.detach().min()) > 0
    assert any(float(grad.abs().sum()) > 0 for grad in (v.grad for v in policy.head.parameters()) if grad is not None)


def test_a_vla_learns_from_both_and_acts_as_the_robot(run):
    plain = run(transforms=[{"name": "normalize_each"}], validation_fraction=0.3)
    plain["train"]["validate_every"] = 1
    trained = train(parse_run(plain))
    assert np.isfinite([trained.loss, trained.validation_loss]).all()
    actor, member = robolearn.load(trained.checkpoint), load_member(trained.checkpoint, "robot")
    assert set(actor.spec.observations) == {FRONT, STATE, "task"}
    assert actor.spec.action.dim == 2
    draw = np.random.default_rng(1)
    obs = {
        FRONT: draw.integers(256, size=(1, 1, 32, 32, 3)).astype(np.uint8),
        STATE: draw.normal(500, 50, (1, 1, 3)).astype(np.float32),
        "task": np.array([["open it"]]),
    }
    noise = np.zeros((1, *actor.noise_shape), np.float32)
    chunk = actor.act(obs, noise)
    assert np.array_equal(chunk, member.act(obs, noise))
    assert 100 < chunk.mean() < 500  # the robot's units, whose actions are about 300


def test_a_policy_without_words_is_told_what_pairs_need(run):
    with pytest.raises(robolearn.errors.DataError, match=r"policy\.reasoning\.key"):
        train(parse_run(run(key="")))
