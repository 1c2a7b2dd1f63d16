"""Every registered policy keeps the contract, and the check finds each breach."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from robolearn.errors import ConfigError
from robolearn.past import with_past
from robolearn.policies.regression import RegressionConfig, RegressionPolicy
from robolearn.testing import check_policy

NAMES = ("act", "beso", "diffusion", "flow", "meanflow", "ptp", "ranked", "regression")


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract(bench, name):
    check_policy(bench.config(name), with_past(bench.state) if name == "ptp" else bench.state)


class _Drawing(RegressionPolicy):
    def sample(self, obs, noise, prefix=None):
        return super().sample(obs, noise, prefix) + torch.rand(())


class _Forgetful(RegressionPolicy):
    def sample(self, obs, noise, prefix=None):
        return super().sample(obs, noise)


class _Idle(RegressionPolicy):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.never = nn.Linear(2, 2)


class _Mean(RegressionPolicy):
    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return loss.mean(), metrics


class _Unsaved(RegressionPolicy):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.register_buffer("scale", torch.ones(()), persistent=False)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (_Drawing, "numbers of its own"),
        (_Forgetful, "prefix"),
        (_Idle, "does not reach"),
        (_Mean, "per sample"),
        (_Unsaved, "does not fill"),
    ],
)
def test_each_breach_is_found(kind, words):
    @dataclass(frozen=True)
    class Config(RegressionConfig):
        def build(self, spec):
            return kind(self, spec)

    with pytest.raises(ConfigError, match=words):
        check_policy(Config(history=1, chunk=4))
