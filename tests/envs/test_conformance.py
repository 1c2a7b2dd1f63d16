"""Every registered environment keeps the contract."""

import pytest

from robolearn.api import make_env
from robolearn.envs.suite import TASKS
from robolearn.errors import RegistryError
from robolearn.registry import names
from robolearn.testing import check_env

OWN = {task if task.startswith("pick_place") else f"robolearn/{task}" for task in TASKS}


@pytest.mark.parametrize("name", [name for name in names("env") if "*" not in name])
def test_it_keeps_the_contract(name):
    check_env(lambda num_envs: make_env(name, num_envs))


def test_every_own_task_is_registered():
    assert set(names("env")) >= OWN


def test_an_unknown_task_is_suggested():
    with pytest.raises(RegistryError, match="did you mean 'robolearn/drawer'"):
        make_env("robolearn/drawers")
