"""Any combination of options trains and acts, or is refused with one error of ours: never with another's."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from robolearn.config import parse
from robolearn.errors import RobolearnError
from robolearn.past import with_past
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

SPEC = Spec(
    {
        "observation.images.top": Feature("image", (9, 6, 3), "uint8"),
        "observation.points": Feature("points", (4, 3)),
        "observation.state": Feature("signal", (3,)),
        "observation.vector": Feature("signal", (2,)),
    },
    ActionSpec(2),
    10.0,
)
NAMES = ("act", "beso", "diffusion", "flow", "meanflow", "ptp", "ranked", "regression", "streaming", "tokens")
NORMS = ("identity", "mean_std", "min_max", "quantile")
# option → values that can be built, alone at least
NETWORKS = (
    {
        "name": ("mlp",),
        "width": (1, 8),
        "depth": (1, 2),
        "time_width": (2, 8),
        "dropout": (0.0, 0.5),
        "film": (True, False),
    },
    {"name": ("unet",), "channels": ([8], [8, 16]), "kernel": (1, 3), "groups": (1, 4), "time_width": (2, 8)},
    {
        "name": ("transformer",),
        "width": (4, 8),
        "heads": (1, 2),
        "depth": (1,),
        "conditioning": ("adaln", "cross_attention"),
    },
)
IMAGE = {
    "name": ("conv",),
    "stages": ([4], [4, 8]),
    "kept": (1, 2),
    "width": (1, 4),
    "crop": (0.1, 1.0),
    "share": (True, False),
}
ENCODER = {"signal_width": (0, 4), "points_width": (1, 4), "image": IMAGE}
CHUNK = {"history": (1, 2, 3), "chunk": (2, 4, 8), "observation_norm": NORMS, "action_norm": NORMS}
GOALS = {"keys": ([], [], ["observation.state"]), "drop": (0.0, 0.5), "guidance": (0.0, 1.0, 1.0, 1.0, 2.0)}
PREFIX = {"name": ("guided", "hard", "warm"), "frozen": (None, 0, 1, 9)}
SAMPLER = {"name": ("ddim", "ddpm", "dpm_solver"), "steps": (1, 2, 5)}
OWN = {
    "act": {"layers": {"width": (8,), "heads": (1, 2), "feed_width": (4,)}, "latent": (1, 4), "depths": ([1, 1, 1],)},
    "beso": {
        "steps": (1, 2),
        "solver": ("dpm_solver", "euler", "heun"),
        "schedule": ("exponential", "karras"),
        "goals": GOALS,
    },
    "diffusion": {
        "prediction": ("epsilon", "sample", "v"),
        "clip": (False, True),
        "train_steps": (10,),
        "sampler": SAMPLER,
    },
    "flow": {
        "steps": (1, 2),
        "solver": ("euler", "heun", "midpoint"),
        "repeat": (1, 2),
        "prefix": PREFIX,
        "goals": GOALS,
    },
    "meanflow": {"steps": (1, 2), "spans": (0.01, 1.0), "dispersive": (0.0, 0.5), "goals": GOALS},
    "regression": {},
    "streaming": {"steps": (1, 2), "stride": (1, 2, 4)},
    "tokens": {
        "decoding": ("autoregressive", "parallel"),
        "temperature": (0.0, 1.0),
        "network": {"width": (8,), "depth": (1,), "heads": (1, 2)},
    },
}
TOKENIZERS = (
    {"name": ("fast",), "scale": (2.0, 4.0), "vocabulary": (64,)},
    {"name": ("beast",), "points": (2, 4), "degree": (0, 1, 3), "vocabulary": (2, 16)},
)
SPLINE = {"points": (2, 4), "degree": (0, 1, 3)}
# option → a value that cannot be
WRONG = {
    "channels": [], "chunk": 0, "depth": 0, "drop": 2.0, "frozen": -1, "groups": 0, "heads": 0, "history": 0,
    "kernel": 2, "keys": ["observation.stat"], "latent": 0, "name": "mpl", "past": 9, "points_width": 0,
    "samples": 0, "scale": 500.0, "signal_width": -1, "solver": "rk4", "spans": 0.0, "stages": [], "steps": 0,
    "stride": 3, "time_width": 3, "width": 0,
}  # fmt: skip


def _draw(one: random.Random, values: dict) -> dict:
    return {key: _draw(one, some) if isinstance(some, dict) else one.choice(some) for key, some in values.items()}


def _options(one: random.Random, name: str) -> dict:
    """Return options of a policy as a user might write them down."""
    if name in ("ptp", "ranked"):
        others = [other for other in NAMES if other != name and (name == "ranked" or other not in ("tokens", "ranked"))]
        own = {"past": (1, 1, 2)} if name == "ptp" else {"frozen": (None, 0, 1)}
        return {"name": name, "policy": _options(one, one.choice(others)), **_draw(one, own | {"samples": (1, 3)})}
    options = {"name": name, **_draw(one, CHUNK | OWN[name])}
    if name == "act":
        return options
    options["encoder"] = _draw(one, ENCODER)
    if name == "tokens":
        return options | {"tokenizer": _draw(one, one.choice(TOKENIZERS))}
    options["network"] = _draw(one, one.choice(NETWORKS))
    return options | ({"spline": _draw(one, SPLINE)} if one.random() < 0.2 else {})


def _spoil(one: random.Random, options: dict) -> None:
    """Give one option a value that cannot be."""
    places = [options, *(inner for inner in options.values() if isinstance(inner, dict))]
    place = one.choice([place for place in places if place.keys() & WRONG])
    key = one.choice(sorted(place.keys() & WRONG))
    place[key] = WRONG[key]


class _Windows:
    """Random windows of a spec with history and chunk."""

    def __init__(self, spec: Spec, size: int = 6):
        self.batch = {key: torch.rand(size, spec.history, *f.shape) for key, f in spec.observations.items()}
        for key, feature in spec.observations.items():
            if feature.kind == "image":
                self.batch[key] = (self.batch[key] * 255).to(torch.uint8)
        self.batch["action"] = torch.rand(size, spec.chunk, spec.action.dim)
        self.batch["action_is_pad"] = torch.arange(spec.chunk).expand(size, -1) >= torch.arange(size)[:, None] + 1

    def __len__(self):
        return len(self.batch["action"])

    def gather(self, index):
        return {key: value[index] for key, value in self.batch.items()}


def _train_and_act(options: dict, spec: Spec) -> None:
    config = parse(resolve("policy", options["name"]), options)
    spec = with_past(spec) if getattr(config, "past_actions", False) else spec
    windows = _Windows(replace(spec, history=config.history, chunk=config.chunk))
    spec = replace(spec, history=config.history, chunk=config.chunk)
    pipeline = Pipeline(tuple(config.transforms(spec))).bind(spec).fit(windows)
    policy = config.build(pipeline.transform_spec(spec))
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    loss, _ = policy.loss(pipeline.forward(windows.batch))
    assert loss.shape == (6,)
    loss.mean().backward()
    optimizer.step()
    obs = {key: value for key, value in windows.batch.items() if not key.startswith("action")}
    encoded, trace = pipeline.encode(obs)
    with torch.inference_mode():
        chunk = pipeline.decode(policy.eval().sample(encoded, torch.randn(6, *policy.noise_shape)), trace)
    assert chunk.shape == (6, spec.chunk, 2)
    assert chunk.isfinite().all()


def _end(options: dict, keys: list[str]) -> str:
    """Return how it ends: trained, refused, or refused in a way that helps nobody."""
    try:
        _train_and_act(options, SPEC.select(tuple(keys)))
    except RobolearnError as error:
        return "refused" if error.expected is not None or error.do else f"refused without help: {error}"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {options} of {keys}") from error
    return "trained"


@pytest.mark.parametrize("name", NAMES)
def test_options_train_and_act_or_are_refused(name):
    one, ends = random.Random(name), Counter()
    for number in range(40):
        torch.manual_seed(number)
        options = _options(one, name)
        if number % 4 == 0:
            _spoil(one, options)
        keys = one.sample(list(SPEC.observations), one.choice((1, 2, 3)))
        keys = ["observation.state"] if "'act'" in repr(options) else keys  # its ResNet would take most of the time
        ends[_end(options, keys)] += 1
    assert set(ends) == {"trained", "refused"}
    assert min(ends.values()) >= 3, ends
