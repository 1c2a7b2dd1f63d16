"""Every registered environment keeps the contract."""

import pytest

from robolearn.api import make_env
from robolearn.registry import names
from robolearn.testing import check_env


@pytest.mark.parametrize("name", [name for name in names("env") if "*" not in name])
def test_it_keeps_the_contract(name):
    check_env(lambda num_envs: make_env(name, num_envs))
