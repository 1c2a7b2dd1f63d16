"""What tests of all areas share."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="session")
def script():
    """Return a function that loads the script at a path as a module of its own name."""

    def load(path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # dataclasses and other processes look their module up
        spec.loader.exec_module(module)
        return module

    return load
