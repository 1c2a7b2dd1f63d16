"""What every policy keeps, whatever its objective and network."""

from dataclasses import replace

import pytest
import torch

from robolearn.config import parse
from robolearn.errors import ConfigError, SpecError
from robolearn.registry import names, resolve
from robolearn.spec import ActionSpec, Feature, Spec

ALONE = ("act", "ptp", "ranked", "tokens")  # policies with networks of their own, and those around another
# On top of a checkpoint or a backbone, tested beside those.
ELSEWHERE = ("chosen", "one_step", "residual", "steered", "valued", "vla")

POLICIES = [name for name in names("policy") if name not in ELSEWHERE]
MODULAR = [name for name in POLICIES if name not in ALONE]


def _readable(spec, name):
    """Return `spec` without what the policy does not read."""
    known = {key: f for key, f in spec.observations.items() if name != "act" or f.kind != "points"}
    return replace(spec, observations=known)


@pytest.mark.parametrize(
    ("name", "network"),
    [(name, network) for name in MODULAR for network in ("mlp", "unet", "transformer")]
    + [(name, "") for name in ALONE],
)
def test_every_policy_trains_and_samples_with_every_network(bench, name, network):
    options = {"network": bench.networks[network]} if network else {}
    policy = bench.policy(name, **options)
    batch = bench.batch(policy)
    loss, metrics = policy.loss(batch)
    assert loss.shape == (4,)
    assert not any(value.requires_grad for value in metrics.values())
    loss.mean().backward()
    unused = [key for key, value in policy.named_parameters() if value.requires_grad and value.grad is None]
    assert unused == []
    with torch.no_grad():
        chunk = policy.eval().sample(batch, bench.noise(policy))
    assert chunk.shape == (4, policy.spec.chunk, policy.spec.action.dim)
    assert torch.isfinite(chunk).all()


@pytest.mark.parametrize("name", [name for name in MODULAR if name != "consistency"])
def test_padded_actions_do_not_count(bench, name):
    policy = bench.policy(name).eval()
    batch = bench.batch(policy)
    batch["action_is_pad"][:, 5:] = True
    losses = []
    for fill in (0.0, 0.9):
        batch["action"][:, 5:] = fill
        network = policy.network.forward
        # The network may see padded actions; its output there must not be scored.
        policy.network.forward = lambda actions, *rest: 0.0 * actions
        torch.manual_seed(3)
        losses.append(policy.loss(batch)[0])
        policy.network.forward = network
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("name", POLICIES)
def test_sampling_is_a_function_of_the_noise(bench, name):
    policy = bench.policy(name, spec=_readable(bench.everything, name)).eval()
    batch, noise = bench.batch(policy), bench.noise(policy)
    with torch.no_grad():
        first = policy.sample(batch, noise)
        torch.manual_seed(99)
        again = policy.sample(batch, noise)
        other = policy.sample(batch, bench.noise(policy, seed=2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (policy.noise_shape == (0,))


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("streaming", "tokens")])
def test_committed_actions_stay(bench, name):
    policy = bench.policy(name).eval()
    batch = bench.batch(policy)
    prefix = torch.full((4, 3, 2), 0.25)
    with torch.no_grad():
        chunk = policy.sample(batch, bench.noise(policy), prefix)
    torch.testing.assert_close(chunk[:, :3], prefix)


@pytest.mark.parametrize("name", POLICIES)
def test_a_meta_device_build_loads_to_the_same_policy(bench, name):
    spec = _readable(bench.everything, name)
    policy = bench.policy(name, spec).eval()
    with torch.device("meta"):
        empty = bench.policy(name, spec)
    empty.load_state_dict(policy.state_dict(), assign=True)
    assert not any(value.is_meta for value in [*empty.parameters(), *empty.buffers()])
    batch, noise = bench.batch(policy), bench.noise(policy)
    with torch.no_grad():
        assert torch.equal(policy.sample(batch, noise), empty.eval().sample(batch, noise))


@pytest.mark.parametrize("name", POLICIES)
def test_capabilities_cover_all_parameters(bench, name):
    policy = bench.policy(name)
    grouped = [id(p) for group in policy.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in policy.parameters())
    assert policy.blocks()


def test_shared_and_separate_image_encoders(bench):
    sizes = []
    for share in (True, False):
        policy = bench.policy("flow", spec=bench.everything, encoder={"image": {"name": "resnet", "share": share}})
        sizes.append(sum(p.numel() for p in policy.encoder.image.parameters()))
        policy.loss(bench.batch(policy))[0].sum().backward()
    assert sizes[1] == 2 * sizes[0]


def test_small_convolutions_tell_where_things_are(bench):
    policy = bench.policy("flow", spec=bench.everything, encoder={"image": {"name": "conv", "stages": [4, 8]}}).eval()
    encoder = policy.encoder.image[0]
    pictures = torch.zeros(2, 3, 32, 40)
    pictures[0, :, :8, :8] = pictures[1, :, -8:, -8:] = 1.0
    here, there = encoder(pictures)
    assert not torch.allclose(here, there)
    policy.loss(bench.batch(policy))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_flow_draws_several_noises_for_one_observation(bench, monkeypatch):
    once, often = (bench.policy("flow", repeat=repeat) for repeat in (1, 3))
    often.load_state_dict(once.state_dict())
    batch = bench.batch(once)
    draw = torch.randn_like
    size = len(batch["action"])
    monkeypatch.setattr(torch, "randn_like", lambda x: draw(x[:size]).repeat(len(x) // size, 1, 1))
    monkeypatch.setattr("robolearn.policies.flow.sample_times", lambda kind, count, device: torch.full((count,), 0.3))
    losses = []
    for policy in (once, often):
        torch.manual_seed(0)
        losses.append(policy.loss(batch)[0])
    assert torch.allclose(*losses)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flow", {"steps": 0}),
        ("flow", {"repeat": 0}),
        ("flow", {"encoder": {"image": {"name": "conv", "stages": []}}}),
        ("flow", {"solver": "rk45"}),
        ("flow", {"stepps": 4}),
        ("flow", {"history": 0}),
        ("flow", {"network": {"name": "mlpp"}}),
        ("flow", {"network": {"name": "transformer", "width": 30, "heads": 4}}),
        ("flow", {"network": {"name": "unet", "channels": [10]}}),
        ("flow", {"encoder": {"image": {"name": "resnet", "crop": 0.0}}}),
        ("diffusion", {"action_norm": "mean_std"}),
        ("diffusion", {"sampler": {"name": "ddpm", "steps": 101}}),
        ("diffusion", {"sampler": {"name": "dddim"}}),
        ("diffusion", {"prediction": "noise"}),
        ("diffusion", {"spline": {"points": 4}}),
        ("diffusion", {"sampler": {"name": "ddim", "steps": 1}}),
        ("flow", {"network": {"name": "mlp", "time_width": 3}}),
        ("flow", {"network": {"name": "unet", "groups": 0}}),
        ("flow", {"network": {"name": "unet", "time_width": 7}}),
        ("act", {"layers": {"heads": 0}}),
        ("act", {"layers": {"width": 0}}),
        ("beso", {"noise": {"sigma_max": float("inf")}}),
        ("ranked", {"policy": {"history": 2}}),
    ],
)
def test_bad_options_are_config_errors(name, options):
    with pytest.raises(ConfigError, match="expected"):
        parse(resolve("policy", name), {"name": name, **options})


def test_pictures_of_one_cell_have_no_keypoints(bench):
    spec = replace(bench.state, observations={"observation.images.top": Feature("image", (3, 32, 32))})
    with pytest.raises(SpecError, match="too small for keypoints"):
        bench.policy("flow", spec)
    bench.policy("flow", spec, encoder={"image": {"name": "resnet", "pool": "average"}})


def test_a_chunk_that_no_unet_holds_is_refused(bench):
    with pytest.raises(ConfigError, match="multiple of 2"):
        bench.policy("flow", chunk=7, network=bench.networks["unet"])


def test_wrong_observations_are_spec_errors(bench):
    policy = bench.policy("flow")
    batch = bench.batch(policy)
    batch["observation.stat"] = batch.pop("observation.state")
    with pytest.raises(SpecError, match="did you mean"):
        policy.loss(batch)
    deep = Spec({"depth": Feature("depth", (4, 4))}, ActionSpec(2), 20.0)
    with pytest.raises(SpecError, match="depth"):
        bench.policy("flow", spec=deep)
    with pytest.raises(SpecError, match="prefix"):
        policy.sample(bench.batch(policy), bench.noise(policy), torch.zeros(4, 9, 2))
