"""Exported graphs give the policy's actions; what is no static graph is refused."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from robolearn.actor import PolicyActor
from robolearn.cli import main
from robolearn.errors import ConfigError, MissingLibraryError
from robolearn.export import export
from robolearn.registry import names
from robolearn.transforms import Pipeline

SMALL = Path(__file__).parents[2] / "benchmarks" / "checkpoints" / "pusht_flow"
QUICK = ("diffusion", "flow", "ranked", "tokens")
EXPORTED = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.long)
    for name in names("policy")
    if name not in ("chosen", "one_step", "residual", "steered", "valued", "vla")
]


def _actor(bench, name, **options):
    policy = bench.policy(name, **options).eval()
    return PolicyActor(policy, Pipeline(), policy.spec)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_method_is_one_graph(bench, name, tmp_path):
    made = export(_actor(bench, name), tmp_path, batch=2)
    assert made.difference <= 1e-5
    facts = json.loads((tmp_path / "graph.json").read_text())
    assert facts["inputs"]["observation.state"] == [2, 2, 3]
    assert (tmp_path / "policy.pt2").stat().st_size > 1000


def test_a_graph_reads_every_kind_of_observation(bench, tmp_path):
    made = export(_actor(bench, "flow", spec=bench.everything), tmp_path)
    assert made.difference <= 1e-4


def test_what_is_no_static_graph_is_refused(bench, tmp_path):
    actor = _actor(bench, "flow")

    def sample(obs, noise, prefix=None):  # as many steps as the observation says
        return noise * sum(1 for _ in range(int(obs["observation.state"].abs().sum() * 10)))

    actor.policy.sample = sample
    with pytest.raises(ConfigError, match="static graph"):
        export(actor, tmp_path)
    drawn = iter(range(99))
    actor.policy.sample = lambda obs, noise, prefix=None: noise + next(drawn)  # remembers: no function of its inputs
    with pytest.raises(ConfigError, match="other actions"):
        export(actor, tmp_path)
    assert not (tmp_path / "policy.pt2").exists()


@pytest.mark.skipif(find_spec("onnxscript") is not None, reason="ONNX is installed")
def test_onnx_says_what_is_missing(bench, tmp_path):
    with pytest.raises(MissingLibraryError, match="pip install onnx"):
        export(_actor(bench, "flow"), tmp_path, to="onnx")


@pytest.mark.parametrize("name", ["flow", "diffusion", "act"])
def test_onnx_gives_the_same(bench, tmp_path, name):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    made = export(_actor(bench, name), tmp_path, to="onnx")
    assert made.difference <= 1e-5


def test_the_verb_exports_a_checkpoint(tmp_path):
    out = tmp_path / "graph"
    assert main(["export", f"ckpt={SMALL}", "policy.steps=2", f"out={out}"]) == 0
    facts = json.loads((out / "graph.json").read_text())
    assert facts["difference"] <= 1e-5
    assert set(facts["inputs"]) == {"noise", "observation.environment_state", "observation.state"}
    assert {"policy.pt2", "spec.json", "transforms.json", "stats.safetensors", "result.json"} <= {
        path.name for path in out.iterdir()
    }
    assert main(["export", f"ckpt={SMALL}", "batch=0", f"out={tmp_path / 'none'}"]) == 2
    assert not (tmp_path / "none").exists()
