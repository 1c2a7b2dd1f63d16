"""Codecs hold what they are given, and refuse what they cannot hold."""

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.interpolate import BSpline

from robolearn.errors import ConfigError, SpecError
from robolearn.policies.bpe import decode_pairs, encode_pairs, learn_pairs
from robolearn.policies.codecs import BEASTTokens, BSplineCodec, FASTTokens, dct_matrix, spline_matrix
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

SPEC = Spec({"observation.state": Feature("signal", (3,))}, ActionSpec(2), 20.0, chunk=16)


def _smooth(rows, seed=0):
    """Chunks [rows,16,2] of slow sines within [-1, 1], as a batch."""
    draw = np.random.default_rng(seed)
    time = np.linspace(0, 1, 16)[None, :, None]
    phase, speed = draw.uniform(0, 6, (rows, 1, 2)), draw.uniform(0.5, 4, (rows, 1, 2))
    action = torch.as_tensor(np.sin(phase + speed * time), dtype=torch.float32)
    return {"action": action, "action_is_pad": torch.zeros(rows, 16, dtype=torch.bool)}


def test_splines_equal_scipy():
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, 6), np.ones(3)])
    expected = BSpline.design_matrix(np.linspace(0, 1, 20), knots, 3).toarray()
    np.testing.assert_allclose(spline_matrix(20, 8, 3).numpy(), expected, atol=1e-6)
    x = np.random.default_rng(0).normal(size=(16, 2))
    np.testing.assert_allclose(dct_matrix(16).numpy() @ x, dct(x, axis=0, norm="ortho"), atol=1e-6)


@pytest.mark.parametrize(
    ("codec", "error"), [(BSplineCodec(8, 3), 0.005), (BEASTTokens(8, 3, 256), 0.02), (FASTTokens(20.0, 256), 0.08)]
)
def test_codecs_hold_smooth_chunks(codec, error):
    codec = codec.bind(SPEC)
    if hasattr(codec, "fit"):
        codec = codec.fit([_smooth(300)])
    batch = _smooth(50, seed=1)
    encoded = codec.forward(batch)
    spec = codec.transform_spec(SPEC)
    assert encoded["action"].shape == (50, spec.chunk, spec.action.dim)
    assert encoded["action_is_pad"].shape == encoded["action"].shape[:2]
    decoded = codec.inverse(encoded["action"], batch)
    assert (decoded - batch["action"]).abs().max() < error


def test_a_spline_point_is_padding_when_all_it_touches_is():
    codec, batch = BSplineCodec(8, 3).bind(SPEC), _smooth(1)
    batch["action_is_pad"][:, 8:] = True
    pad = codec.forward(batch)["action_is_pad"][0]
    assert not pad[:4].any()
    assert pad[-2:].all()


def test_byte_pairs_shorten_and_return():
    rows = np.random.default_rng(0).integers(0, 3, (200, 12))
    rows[:, :6] = [0, 0, 0, 1, 2, 1]
    pairs = learn_pairs(rows, 3, 20)
    sequences = encode_pairs(rows, pairs, 3)
    assert len(sequences) == 200
    assert np.mean([len(sequence) for sequence in sequences]) < 8
    for row, sequence in zip(rows, sequences, strict=True):
        np.testing.assert_array_equal(decode_pairs(sequence, pairs, 3), row)


def test_fast_survives_a_checkpoint():
    pipeline = Pipeline((FASTTokens(20.0, 256).bind(SPEC).fit([_smooth(300)]),))
    again = Pipeline.from_plain(*pipeline.to_plain())
    batch = _smooth(5, seed=2)
    assert torch.equal(pipeline.forward(batch)["action"], again.forward(batch)["action"])
    assert again.transform_spec(SPEC) == pipeline.transform_spec(SPEC)


def test_what_codecs_refuse(bench):
    with pytest.raises(ConfigError, match="points <= chunk"):
        BSplineCodec(20, 3).bind(SPEC)
    with pytest.raises(ConfigError, match="vocabulary cannot hold"):
        FASTTokens(100.0, 64).bind(SPEC).fit([_smooth(20)])
    with pytest.raises(SpecError, match="cannot hold these actions"):
        BEASTTokens().bind(SPEC).forward({"action": torch.full((1, 16, 2), 3.0)})
    with pytest.raises(SpecError, match="whole chunks"):
        BSplineCodec().bind(SPEC).forward({"action": torch.zeros(1, 4, 2)})
    with pytest.raises(ConfigError, match="parallel"):
        bench.config("tokens", tokenizer={"name": "fast"}, decoding="parallel")
    with pytest.raises(ConfigError, match="range"):
        bench.config("tokens", action_norm="mean_std")
    with pytest.raises(SpecError, match="token chunks"):
        bench.config("tokens").build(SPEC)


class _Windows:
    """One batch as a source of windows."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["action"])

    def gather(self, index):
        return {key: value[index] for key, value in self.batch.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"name": "tokens", "tokenizer": {"name": "fast", "scale": 4.0, "vocabulary": 128}, "temperature": 1.0},
        {"name": "tokens", "tokenizer": {"name": "beast", "points": 4, "vocabulary": 32}, "temperature": 1.0},
        {"name": "tokens", "tokenizer": {"name": "beast", "points": 4, "vocabulary": 64}, "decoding": "parallel"},
        {"name": "flow", "spline": {"points": 4}, "steps": 6},
        {"name": "regression", "spline": {"points": 4}},
    ],
)
def test_policies_learn_behind_codecs(bench, options):
    """A ramp whose slope is observed, and whose side is not: only generative policies learn both."""
    parallel = options.get("decoding") == "parallel" or options["name"] == "regression"
    ramp = torch.linspace(0.2, 1, 16)[:, None]

    def make_batch(size=64):
        state = torch.rand(size, 1, 3) * 0.5 + 0.5
        side = torch.ones(size, 1, 1) if parallel else torch.randint(0, 2, (size, 1, 1)) * 2.0 - 1
        return {"observation.state": state, "action": side * state[..., :2] * ramp}

    network = {"width": 32, "depth": 1, "heads": 2, "dropout": 0.0}
    network = network if options["name"] == "tokens" else {"name": "mlp", "width": 64, "depth": 2}
    options = {"network": network, "chunk": 16, "history": 1, "action_norm": "min_max"} | options
    config = bench.config(options.pop("name"), **options)
    torch.manual_seed(0)
    pipeline = Pipeline(tuple(config.transforms(SPEC))).bind(SPEC).fit(_Windows(make_batch(1000)))
    policy = config.build(pipeline.transform_spec(SPEC))
    bench.train(policy, lambda: pipeline.forward(make_batch()), 250)
    batch = make_batch(200)
    observations, trace = pipeline.encode({"observation.state": batch["observation.state"]})
    with torch.no_grad():
        chunk = pipeline.decode(policy.sample(observations, bench.noise(policy, 200)), trace)
    error = (chunk.abs() - batch["action"].abs()).abs().median()
    assert error < 0.12
    if not parallel:
        assert 0.3 < (chunk.mean((1, 2)) > 0).float().mean() < 0.7
