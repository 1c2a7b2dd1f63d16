"""Configurations of 3 and 7 billion parameters without memory, and shards over two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robolearn.config import parse
from robolearn.policies.vla import VLAConfig
from robolearn.spec import ActionSpec, Feature, Spec


def _spec(side):
    observations = {
        "observation.images.front": Feature("image", (3, side, side)),
        "observation.prompt": Feature("text", (48,), "int64"),
        "observation.state": Feature("signal", (8,)),
    }
    return Spec(observations, ActionSpec(7), 10.0, chunk=16)


@pytest.mark.parametrize(
    ("name", "head", "billions"),
    [
        ("paligemma/3b", {"name": "flow", "expert": {"width": 1024, "feed": 4096, "activation": "gelu"}}, (2.7, 3.4)),
        ("openvla/7b", {"name": "l1", "per_dimension": True}, (7.3, 8.0)),
        ("smolvlm/500m", {"name": "flow", "expert": {"width": 720, "feed": 2048}}, (0.45, 0.7)),
    ],
)
def test_large_configurations_build_without_memory(name, head, billions):
    config = parse(VLAConfig, {"name": "vla", "chunk": 16, "backbone": name, "head": head, "state": "none"})
    with torch.device("meta"):
        policy = config.build(_spec(512 if "500m" in name else 224))
    assert all(value.is_meta for value in policy.parameters())
    count = sum(value.numel() for value in policy.parameters()) / 1e9
    assert billions[0] < count < billions[1]
    assert len(policy.blocks()) >= 18


CASES = ("paligemma-full", "openvla-lora")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    script = str(Path(__file__).parent / "shards.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, str(folder), *CASES], env=environment, check=True, timeout=500)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_shards_step_as_one(shards, case):
    alone, both = (torch.load(shards / f"{case}-{name}.pt", weights_only=True) for name in ("alone", "shards"))
    assert set(alone) == set(both)
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=1e-5)
