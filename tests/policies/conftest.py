"""Tiny specs and batches for the policy tests."""

from dataclasses import replace

import pytest
import torch

from robolearn.config import parse, to_dict
from robolearn.past import with_past
from robolearn.policies.tokens import TokenPolicy
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec

SMALL = {
    "mlp": {"name": "mlp", "width": 32, "depth": 1},
    "unet": {"name": "unet", "channels": [8, 16], "time_width": 16},
    "transformer": {"name": "transformer", "width": 16, "depth": 1, "heads": 2},
}

ALONE = {  # policies with networks of their own
    "act": {"layers": {"width": 16, "heads": 2, "feed_width": 16, "dropout": 0.0}, "depths": [1, 1, 1], "latent": 4},
    "tokens": {
        "tokenizer": {"name": "beast", "points": 4, "vocabulary": 16},
        "network": {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0},
    },
}

WRAPPERS = {"ptp": {"past": 2}, "ranked": {}}  # policies around another


class Workbench:
    """Builds small policies and the batches they read."""

    networks = SMALL
    state = Spec({"observation.state": Feature("signal", (3,))}, ActionSpec(2), 20.0)
    everything = replace(
        state,
        observations={
            "observation.state": Feature("signal", (3,)),
            "observation.images.front": Feature("image", (3, 32, 40)),
            "observation.images.wrist": Feature("image", (3, 32, 40)),
            "observation.language": Feature("text", (12,)),
            "observation.points": Feature("points", (9, 3)),
        },
    )

    def config(self, name, **options):
        if name in WRAPPERS:
            inner = to_dict(self.config("flow", **options))
            return parse(resolve("policy", name), {"policy": inner, "samples": 3, **WRAPPERS[name]})
        small = ALONE.get(name, {"network": SMALL["mlp"]})
        return parse(resolve("policy", name), {"name": name, "history": 2, "chunk": 8, **small, **options})

    def policy(self, name, spec=None, **options):
        torch.manual_seed(0)
        spec = spec or self.state
        if name == "ptp":
            spec = with_past(spec)
        if name == "tokens":
            spec = replace(spec, action=ActionSpec(1), chunk=8)
        policy = self.config(name, **options).build(spec)
        if name == "consistency":
            policy.teach(self.policy("flow", spec, **options).eval())
        return policy

    def batch(self, policy, size=4, seed=0):
        draw = torch.Generator().manual_seed(seed)
        spec, batch = policy.spec, {}
        for key, feature in spec.observations.items():
            leading = (size,) if feature.kind == "text" else (size, spec.history)
            batch[key] = torch.rand(*leading, *feature.shape, generator=draw)
        batch["action"] = torch.rand(size, spec.chunk, spec.action.dim, generator=draw) * 2 - 1
        if isinstance(policy, TokenPolicy):
            batch["action"] = torch.randint(16, batch["action"].shape, generator=draw).float()
        batch["action_is_pad"] = torch.zeros(size, spec.chunk, dtype=torch.bool)
        return batch

    def noise(self, policy, size=4, seed=1):
        return torch.randn(size, *policy.noise_shape, generator=torch.Generator().manual_seed(seed))

    def train(self, policy, make_batch, steps, rate=3e-3):
        optimizer = torch.optim.AdamW(policy.parameters(), rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        policy.train()
        for _ in range(steps):
            loss, _ = policy.loss(make_batch())
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            schedule.step()
        return policy.eval()


@pytest.fixture(scope="session")
def bench():
    torch.set_num_threads(1)
    return Workbench()
