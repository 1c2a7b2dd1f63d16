"""Policies made of policies: distilled, composed, ranked; and the configs that name them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from robolearn import checkpoint
from robolearn.config import parse
from robolearn.errors import ConfigError, SpecError
from robolearn.past import with_past
from robolearn.policies.compose import Composition, search_weights, weight_grid
from robolearn.registry import names, resolve
from robolearn.transforms import Normalize, Pipeline

CONFIGS = Path(__file__).parents[2] / "configs" / "policy"
NETWORK = {"name": "mlp", "width": 64, "depth": 2}
PRIOR = {"chunk": 4, "history": 1, "network": NETWORK}


def _two_modes(size=256):
    """The action is +m or -m for the observed m."""
    state = torch.rand(size, 1, 3) * 0.5 + 0.5
    sign = torch.randint(0, 2, (size, 1, 1)) * 2.0 - 1
    return {"observation.state": state, "action": (sign * state[..., :2]).expand(-1, 4, -1)}


@pytest.fixture(scope="module")
def parts(bench):
    """A flow and a diffusion policy trained on both modes."""
    policies = [bench.policy(name, **PRIOR) for name in ("flow", "diffusion")]
    torch.manual_seed(0)
    return [bench.train(policy, _two_modes, 350).requires_grad_(False) for policy in policies]


def _miss(policy, bench):
    batch = _two_modes(300)
    with torch.no_grad():
        chunk = policy.sample(batch, bench.noise(policy, 300))
    assert 0.3 < (chunk.mean((1, 2)) > 0).float().mean() < 0.7
    return float((chunk.abs() - batch["observation.state"][..., :2]).abs().median())


@pytest.mark.parametrize("teacher", [0, 1])
def test_a_student_does_in_one_step_what_its_teacher_does_in_many(bench, parts, teacher):
    student = bench.config("consistency", **PRIOR).build(bench.state)
    with pytest.raises(ConfigError, match="teacher"):
        student.loss(_two_modes())
    student.teach(parts[teacher])
    assert not any(parameter is other for parameter in student.parameters() for other in parts[teacher].parameters())
    bench.train(student, lambda: _two_modes(128), 400)
    assert _miss(student, bench) < 0.3  # between the modes it would be 0.75


def test_a_teacher_must_have_a_path_and_fit(bench, parts):
    student = bench.config("consistency", **PRIOR).build(bench.state)
    with pytest.raises(ConfigError, match="probability-flow"):
        student.teach(bench.policy("regression", **PRIOR))
    with pytest.raises(ConfigError, match="differ"):
        student.teach(bench.policy("flow"))


def test_flow_and_diffusion_compose(bench, parts):
    assert _miss(Composition(parts, [0.5, 0.5], steps=16), bench) < 0.2
    alone = Composition(parts, [1.0, 0.0], steps=4)
    batch, noise = _two_modes(20), bench.noise(alone, 20)
    with torch.no_grad():
        torch.testing.assert_close(alone.sample(batch, noise), parts[0].sample(batch, noise))
    with pytest.raises(ConfigError, match="sum to one"):
        Composition(parts, [0.9, 0.9])
    with pytest.raises(ConfigError, match="velocity"):
        Composition([bench.policy("regression", **PRIOR)], [1.0])


def test_the_weight_search_finds_the_best_mixture(parts):
    assert len(weight_grid(3, 4)) == 15
    weights, best = search_weights(parts, lambda mixture: -abs(mixture._parts[0][0] - 0.3), divisions=10)
    assert weights == (0.3, 0.7)
    assert best == 0.0


def test_ranking_keeps_the_mode_of_the_prefix(bench, parts):
    ranked = parse(resolve("policy", "ranked"), {"policy": {"name": "flow", **PRIOR}, "samples": 12})
    policy = ranked.build(bench.state)
    policy.policy.load_state_dict(parts[0].state_dict())
    batch = _two_modes(100)
    prefix = batch["observation.state"][..., :2].expand(-1, 2, -1)
    with torch.no_grad():
        chunk = policy.eval().sample(batch, bench.noise(policy, 100), prefix)
        policy.config = replace(policy.config, frozen=0)
        free = policy.sample(batch, bench.noise(policy, 100), prefix)
    assert (chunk[:, 2:].mean((1, 2)) > 0).float().mean() > 0.97
    torch.testing.assert_close(chunk[:, :2], prefix)
    torch.testing.assert_close(free[:, 2:], chunk[:, 2:])  # the same sample, of which nothing is replaced
    assert not torch.equal(free[:, :2], prefix)


def test_a_student_is_given_the_numbers_of_its_teacher(bench, parts, tmp_path):
    """Diffusion acts in [-1, 1]; a student of unit variance would distil something else."""
    policy = {"name": "diffusion", "observation_norm": "identity", **PRIOR}
    pipeline = Pipeline((Normalize({"*": "identity", "action": "identity"}),)).bind(replace(bench.state, chunk=4))
    checkpoint.save(
        tmp_path / "teacher",
        checkpoint.Checkpoint({"policy": policy}, replace(bench.state, chunk=4), pipeline, parts[1].state_dict()),
    )
    options = {"observation_norm": "identity", "teacher": str(tmp_path / "teacher"), **PRIOR}
    with pytest.raises(ConfigError, match="action_norm mean_std"):
        bench.config("consistency", **options).build(bench.state).loss(_two_modes())
    student = bench.config("consistency", action_norm="min_max", **options).build(bench.state)
    assert student.loss(_two_modes())[0].isfinite().all()


def test_ranking_reads_the_past_and_the_weights_that_its_policy_reads(bench):
    inner = {"name": "ptp", "policy": {"name": "flow", **PRIOR, "history": 2}, "past": 2}
    ranked = parse(resolve("policy", "ranked"), {"policy": inner, "samples": 3})
    assert ranked.past_actions
    assert not bench.config("ranked").past_actions
    policy, read = ranked.build(with_past(bench.state)), []
    batch = bench.batch(policy)
    assert policy.sample(batch, bench.noise(policy)).shape == (4, 4, 2)
    policy.load_pretrained()  # nothing to read
    policy.policy.load_pretrained = lambda: read.append(True)
    policy.load_pretrained()
    assert read == [True]


def test_ranking_refuses_what_it_cannot_rank(bench):
    with pytest.raises(ConfigError, match="all the same"):
        parse(resolve("policy", "ranked"), {"policy": {"name": "regression"}}).build(bench.state)
    with pytest.raises(ConfigError, match="cannot score"):
        parse(resolve("policy", "ranked"), {"policy": {"name": "flow"}, "by": "score"}).build(bench.state)
    with pytest.raises(ConfigError, match="stepz"):
        parse(resolve("policy", "ranked"), {"policy": {"name": "flow", "stepz": 1}})
    policy = bench.policy("ranked")
    with pytest.raises(SpecError, match="prefix"):
        policy.sample(bench.batch(policy), bench.noise(policy), torch.zeros(4, 99, 2))


@pytest.mark.parametrize(
    "path", sorted(p for p in CONFIGS.glob("*.yaml") if "vla" not in p.stem), ids=lambda path: path.stem
)
def test_every_config_is_one_of_its_policy(path):
    options = yaml.safe_load(path.read_text())
    assert options["name"] in names("policy")
    parse(resolve("policy", options["name"]), options)
