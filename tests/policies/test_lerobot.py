"""Our checkpoints in LeRobot give LeRobot's actions the same numbers as ours."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.config import to_dict
from robolearn.errors import CheckpointError, SpecError
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

pytest.importorskip("lerobot")

SPEC = Spec(
    {
        "observation.environment_state": Feature("signal", (4,)),
        "observation.images.front": Feature("image", (40, 48, 3), "uint8"),
        "observation.state": Feature("signal", (3,)),
    },
    ActionSpec(2),
    10.0,
    history=1,
    chunk=8,
)
PUSHT = replace(
    SPEC,
    observations={
        "observation.environment_state": Feature("signal", (18,)),
        "observation.state": Feature("signal", (2,)),
    },
)
UNET = {"name": "unet", "channels": [8, 16]}
DIFFUSION = {"network": UNET, "sampler": {"name": "ddim", "steps": 5}}
ACT = {"backbone_norm": "frozen_batch"}


class _Windows:
    def __init__(self, spec):
        self.spec = spec

    def __len__(self):
        return 50

    def gather(self, index):
        draw = np.random.default_rng(0)
        batch = {
            key: torch.as_tensor(draw.normal(1, 2, (50, 1, *feature.shape)), dtype=torch.float32)
            for key, feature in self.spec.observations.items()
            if feature.kind == "signal"
        }
        action = torch.as_tensor(draw.uniform(-3, 1, (50, 8, 2)), dtype=torch.float32)
        return {key: value[index] for key, value in (batch | {"action": action}).items()}


def _save(bench, folder, name, spec=SPEC, **options):
    config = bench.config(name, history=1, chunk=8, **options)
    pipeline = Pipeline(tuple(config.transforms(spec))).bind(spec).fit(_Windows(spec))
    torch.manual_seed(3)
    policy = config.build(pipeline.transform_spec(spec))
    made = checkpoint.Checkpoint({"policy": to_dict(config)}, spec, pipeline, policy.state_dict())
    return checkpoint.save(folder, made)


@pytest.mark.parametrize(("name", "options"), [("diffusion", DIFFUSION), ("act", ACT)])
def test_exported_checkpoints_act_the_same_in_lerobot(bench, tmp_path, name, options):
    from robolearn.policies.lerobot import load_lerobot
    from robolearn.policies.lerobot_export import export_lerobot

    saved = _save(bench, tmp_path / "ours", name, **options)
    ours = load(saved, microbatch=3)
    theirs = load_lerobot(export_lerobot(saved, tmp_path / "theirs"), rate_hz=10.0)
    draw = np.random.default_rng(1)
    obs = {
        "observation.environment_state": draw.normal(1, 2, (3, 1, 4)).astype(np.float32),
        "observation.images.front": draw.integers(0, 255, (3, 1, 40, 48, 3), dtype=np.uint8),
        "observation.state": draw.normal(1, 2, (3, 1, 3)).astype(np.float32),
    }
    noise = draw.normal(size=(3, *ours.noise_shape)).astype(np.float32)
    expected = ours.act(obs, noise)
    given = noise[:, 0] if name == "diffusion" else draw.normal(size=(3, *theirs.noise_shape))
    np.testing.assert_allclose(theirs.act(obs, given), expected, rtol=0, atol=1e-5)
    assert theirs.spec.chunk == 8
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("flow", {}, "diffusion or act"),
        ("diffusion", {}, "unet"),
        ("act", {}, "frozen_batch"),
        ("diffusion", DIFFUSION | {"prediction": "v"}, "epsilon or sample"),
    ],
)
def test_what_lerobot_cannot_express_is_refused(bench, tmp_path, name, options, reason):
    from robolearn.policies.lerobot_export import export_lerobot

    with pytest.raises(CheckpointError, match=reason):
        export_lerobot(_save(bench, tmp_path / "ours", name, **options), tmp_path / "theirs")


def test_an_empty_folder_is_no_policy(tmp_path):
    from robolearn.policies.lerobot import load_lerobot

    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_lerobot(tmp_path, rate_hz=10.0)


def test_a_lerobot_folder_is_evaluated(bench, tmp_path):
    """A folder that LeRobot wrote takes the place of a checkpoint; its observations may go by other names."""
    from robolearn.cli import main
    from robolearn.policies.lerobot import is_lerobot, load_lerobot
    from robolearn.policies.lerobot_export import export_lerobot

    saved = _save(bench, tmp_path / "ours", "act", spec=PUSHT, **ACT)
    folder = export_lerobot(saved, tmp_path / "theirs")
    assert is_lerobot(folder)
    assert not is_lerobot(saved)
    out = tmp_path / "eval"
    given = ["env=pusht", "env.max_steps=6", "episodes=2", "eval.execute=3", "eval.videos=0", f"out={out}"]
    assert main(["eval", f"ckpt={folder}", *given]) == 0
    assert json.loads((out / "result.json").read_text())["episodes"] == 2
    renamed = load_lerobot(folder, 10.0, rename={"observation.state": "agent"})
    assert set(renamed.spec.observations) == {"agent", "observation.environment_state"}
    obs = {"agent": np.ones((1, 1, 2)), "observation.environment_state": np.ones((1, 1, 18))}
    assert renamed.act(obs, np.zeros((1, *renamed.noise_shape))).shape == (1, 8, 2)
    with pytest.raises(SpecError, match="did you mean"):
        load_lerobot(folder, 10.0, rename={"observation.stat": "agent"})
    assert main(["eval", f"ckpt={folder}", "episodes=2"]) == 2  # no environment is named
