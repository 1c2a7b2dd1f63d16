"""Every registered environment keeps the contract."""

import pytest

from robolearn.api import make_env
from robolearn.envs.suite import TASKS
from robolearn.errors import ConfigError
from robolearn.registry import names
from robolearn.testing import check_env

OWN = [f"robolearn/{task}" for task in TASKS]


@pytest.mark.parametrize("name", [*(name for name in names("env") if "*" not in name), *OWN])
def test_it_keeps_the_contract(name):
    check_env(lambda num_envs: make_env(name, num_envs))


def test_an_unknown_task_is_suggested():
    with pytest.raises(ConfigError, match="did you mean 'drawer'"):
        make_env("robolearn/drawers")
