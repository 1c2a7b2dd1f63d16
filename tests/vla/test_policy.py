"""Every backbone under every head: learns, samples, remembers."""

from dataclasses import replace

import pytest
import torch

from robolearn.errors import ConfigError
from robolearn.nets.backbones import BackboneConfig, build_backbone
from robolearn.nets.backbones.smolvlm import SmolVLM
from robolearn.transforms import ImageToFloat

FAMILIES = ("smolvlm", "paligemma", "qwen2_5_vl", "qwen3_vl", "florence2", "openvla")
HEADS = ("flow", "diffusion", "l1", "tokens")
INSULATED = {"name": "flow", "expert": {"width": 32}, "insulate": True, "cotrain": 0.5, "bins": 16}
PAIRS = [(family, head) for family in FAMILIES for head in HEADS] + [("small", head) for head in HEADS[:3]]


@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_every_head_learns_on_every_backbone(bench, family, head):
    policy, pipeline, spec = bench.build(bench.config(family, head))
    assert sum(value.numel() for value in policy.parameters()) < 5e6
    batch = bench.batch(pipeline, spec)
    optimizer = torch.optim.AdamW([value for value in policy.parameters() if value.requires_grad], 3e-3)
    losses = []
    for _ in range(20):
        torch.manual_seed(1)  # the same noise, so that the losses compare
        loss, _ = policy.loss(batch)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.mean().item())
    assert loss.shape == (4,)
    assert losses[-1] < 0.8 * losses[0], losses
    untaught = [name for name, value in policy.named_parameters() if value.requires_grad and value.grad is None]
    assert untaught == []  # data-parallel training waits for every gradient
    obs = bench.obs(pipeline, spec)
    with torch.inference_mode():
        chunk = policy.eval().sample(obs, bench.noise(policy))
        raw = pipeline.decode(chunk, pipeline.encode(bench.given(spec))[1])
    assert chunk.shape == (4, policy.spec.chunk, policy.spec.action.dim)
    assert raw.shape == (4, 4, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_memory_continues_as_if_computed_at_once(bench, family):
    """Causal attention over the whole equals the second half continued from the memory of the first."""
    policy, pipeline, spec = bench.build(bench.config(family, "tokens", attention="causal"))
    tokens = policy.eval().prefix(bench.obs(pipeline, spec))
    extra = torch.randn(4, 3, policy.backbone.width)
    with torch.no_grad():
        whole = policy.backbone.encode(tokens.append(extra, "causal"))
        first = policy.backbone.encode(tokens)
        later = tokens.append(extra, "causal")
        part = type(later)(
            extra,
            torch.ones(4, 3, dtype=torch.bool),
            torch.arange(3),
            later.positions[..., -3:],
            later.next,
            tuple(deep[:, -3:] for deep in later.deep),
        )
        continued = policy.backbone.encode(part, first)
    torch.testing.assert_close(continued.states, whole.states[:, -3:], rtol=0, atol=1e-5)
    for one, other in zip(continued.keys, whole.keys, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "small"])
def test_the_prefix_cache_equals_recomputation(bench, family):
    """Flow steps on one memory give what the whole network gives when it starts from pixels at every step."""
    policy, pipeline, spec = bench.build(bench.config(family))
    obs, noise = bench.obs(pipeline, spec), bench.noise(policy)
    with torch.inference_mode():
        cached = policy.eval().sample(obs, noise)
        x = noise
        for step in range(2):
            time = torch.full((4,), step / 2)
            x = x + policy.flow_field(obs, 4)(x, time) / 2
    torch.testing.assert_close(cached, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_company_change_nothing(bench, family):
    policy, pipeline, spec = bench.build(bench.config(family))
    obs, noise = bench.obs(pipeline, spec), bench.noise(policy)
    longer = {**obs, "observation.prompt": torch.nn.functional.pad(obs["observation.prompt"], (0, 5), value=-1)}
    with torch.inference_mode():
        chunk = policy.eval().sample(obs, noise)
        torch.testing.assert_close(policy.sample(longer, noise), chunk, rtol=0, atol=1e-5)
        single = policy.sample({key: value[1:2] for key, value in obs.items()}, noise[1:2])
        policy.train()  # columns that nobody uses cost nothing
        assert policy.prefix(longer).x.shape == policy.prefix(obs).x.shape
    torch.testing.assert_close(single, chunk[1:2], rtol=0, atol=1e-5)


def test_eager_attention_sees_what_fused_attention_sees():
    """The eager kernel of transformers adds masks to scores; ours say by a bool what is seen."""
    texts, pictures = torch.tensor([[3, 4, 5, 6], [7, 8, -1, -1]]), torch.rand(2, 1, 3, 96, 96)
    fused, eager = (
        build_backbone(BackboneConfig("smolvlm", SmolVLM.SIZES[""] | {"attn_implementation": kind}))
        for kind in ("sdpa", "eager")
    )
    eager.load_state_dict(fused.state_dict())
    with torch.no_grad():
        one, other = (backbone.encode(backbone.embed(pictures, texts)) for backbone in (fused, eager))
    assert eager.language.config._attn_implementation == "eager"
    torch.testing.assert_close(other.states[one.mask], one.states[one.mask], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", [*FAMILIES, "small"])
def test_pictures_words_and_state_matter(bench, family):
    policy, pipeline, spec = bench.build(bench.config(family))
    obs, noise = bench.obs(pipeline, spec), bench.noise(policy)
    with torch.inference_mode():
        chunk = policy.eval().sample(obs, noise)
        for key, value in obs.items():
            other = policy.sample({**obs, key: value.roll(1, 0)}, noise)
            assert not torch.allclose(other, chunk, atol=1e-7), key


def test_committed_actions_are_kept(bench):
    for prefix in ("hard", "guided"):
        head = {**bench.heads["flow"], "prefix": {"name": prefix}}
        policy, pipeline, spec = bench.build(bench.config(head_options=head))
        known = torch.randn(4, 2, 2)
        with torch.inference_mode():
            chunk = policy.eval().sample(bench.obs(pipeline, spec), bench.noise(policy), known)
        assert torch.equal(chunk[:, :2], known)


def test_history_gives_more_views(bench):
    for family in ("smolvlm", "qwen3_vl"):
        policy, pipeline, spec = bench.build(bench.config(family, "l1", history=2))
        single, _, _ = bench.build(bench.config(family, "l1"))
        obs = bench.obs(pipeline, spec)
        tokens = policy.prefix(obs)
        one = single.prefix({key: v[:, -1:] if v.ndim > 2 else v for key, v in obs.items()})
        assert tokens.x.shape[1] > one.x.shape[1]


def test_checkpointing_changes_no_gradient(bench):
    gradients = []
    for on in (False, True):
        policy, pipeline, spec = bench.build(bench.config("qwen3_vl", tuning={"checkpointing": on}))
        torch.manual_seed(1)
        policy.train().loss(bench.batch(pipeline, spec))[0].mean().backward()
        gradients.append({name: value.grad for name, value in policy.named_parameters() if value.grad is not None})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "learns"),
    [
        ({"tuning": {"mode": "frozen"}}, ("state.", "head.")),
        ({"tuning": {"mode": "lora", "rank": 2}}, ("state.", "head.", "lora_")),
        ({"tuning": {"vision": False}}, ("state.", "head.", "text_model", "connector")),
        ({"head_options": {"name": "flow", "insulate": True}, "state": "expert"}, ("head.",)),
        ({"head_options": INSULATED, "action_norm": "min_max"}, ("head.", "backbone.", "state.")),
    ],
)
def test_what_learns(bench, options, learns):
    policy, pipeline, spec = bench.build(bench.config(**options))
    names = [name for name, value in policy.named_parameters() if value.requires_grad]
    assert names
    assert [name for name in names if not any(part in name for part in learns)] == []
    for part in learns:
        assert any(part in name for name in names), part
    policy.loss(bench.batch(pipeline, spec))[0].mean().backward()
    assert [name for name in names if policy.get_parameter(name).grad is None] == []


@pytest.mark.parametrize("time", ["concat", "adaln"])
def test_experts_of_other_structure(bench, time):
    expert = {"width": 32, "time": time, "cross_every": 2, "causal": True, "depth": 2}
    policy, pipeline, spec = bench.build(
        bench.config(head_options={"name": "flow", "expert": expert, "repeat": 3}, state="expert")
    )
    loss, _ = policy.loss(bench.batch(pipeline, spec))
    loss.mean().backward()
    assert loss.shape == (4,)
    assert [name for name, v in policy.named_parameters() if v.requires_grad and v.grad is None] == []


@pytest.mark.parametrize(
    "tokenizer", [{"name": "fast", "vocabulary": 64}, {"name": "beast", "points": 4, "vocabulary": 32}]
)
def test_other_action_tokens(bench, tokenizer):
    decoding = "parallel" if tokenizer["name"] == "beast" else "autoregressive"
    head = {"name": "tokens", "tokenizer": tokenizer, "decoding": decoding}
    policy, pipeline, spec = bench.build(bench.config(head="tokens", head_options=head))
    policy.loss(bench.batch(pipeline, spec))[0].mean().backward()
    with torch.inference_mode():
        chunk = policy.eval().sample(bench.obs(pipeline, spec), bench.noise(policy))
        assert pipeline.decode(chunk, pipeline.encode(bench.given(spec))[1]).shape == (4, 4, 2)


def test_tokens_decode_to_what_they_were_made_from(bench):
    _, pipeline, spec = bench.build(bench.config(head="tokens", head_options={"name": "tokens"}, prompt={"length": 24}))
    given = bench.given(spec, action=True)
    encoded, trace = pipeline.encode(given)
    torch.testing.assert_close(pipeline.decode(encoded["action"], trace), given["action"], rtol=0, atol=0.01)


@pytest.mark.parametrize("head", ["flow", "l1"])
def test_early_exits_are_trained_and_taken(bench, head):
    config = bench.config("smolvlm", head, exits=[1])
    policy, pipeline, spec = bench.build(config)
    loss, metrics = policy.loss(bench.batch(pipeline, spec))
    loss.mean().backward()
    assert loss.shape == (4,)
    assert "early_loss" in metrics
    assert [name for name, v in policy.named_parameters() if v.requires_grad and v.grad is None] == []
    if head == "flow":  # its exits read the whole's keys and values, and nothing is computed twice
        batch = bench.batch(pipeline, spec)
        tokens, state = policy.prefix(batch), policy._state(batch)
        losses = []
        for memory in (policy.backbone.encode(tokens).upto(1), policy.backbone.encode(tokens, layers=1)):
            torch.manual_seed(1)
            losses.append(policy.head.loss(memory, state, batch))
        torch.testing.assert_close(*losses, rtol=0, atol=1e-6)
    early = replace(config, exit=1).build(policy.spec)
    early.load_state_dict(policy.state_dict())
    obs, noise = bench.obs(pipeline, spec), bench.noise(policy)
    with torch.inference_mode():
        assert len(early.eval().remember(obs).keys) == 1
        assert not torch.equal(early.sample(obs, noise), policy.eval().sample(obs, noise))
    with pytest.raises(ConfigError, match="trained to act"):
        replace(config, exit=2)


def test_an_insulated_backbone_learns_from_tokens_alone(bench):
    policy, pipeline, spec = bench.build(bench.config(head_options=INSULATED, action_norm="min_max"))
    batch = bench.batch(pipeline, spec)
    policy.loss(batch)[0].mean().backward()
    taught = {name: value.grad.clone() for name, value in policy.backbone.named_parameters() if value.grad is not None}
    policy.zero_grad()
    memory = policy.backbone.encode(policy.head.extend(policy.prefix(batch), batch))
    (0.5 * policy.head.tokens.loss(memory, None, policy.head.codec.forward(batch))).mean().backward()
    for name, value in taught.items():
        torch.testing.assert_close(policy.backbone.get_parameter(name).grad, value, rtol=1e-4, atol=1e-7)
    obs, noise = bench.obs(pipeline, spec), bench.noise(policy)
    with torch.inference_mode():  # acting needs no action tokens, and the expert never saw them
        shown = policy.eval().head.sample(memory.without(8), None, noise, None)
        torch.testing.assert_close(policy.sample(obs, noise), shown, rtol=0, atol=1e-5)


def test_padding_keeps_proportions():
    picture = torch.full((1, 1, 20, 40, 3), 255, dtype=torch.uint8)
    shown = ImageToFloat(("x",), (32, 32), pad=True).forward({"x": picture})["x"][0, 0]
    assert shown.shape == (3, 32, 32)
    assert (shown[:, 8:24] > 0.99).all()
    assert (shown[:, :8] == 0).all()
    assert (shown[:, 24:] == 0).all()
