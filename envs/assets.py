"""Where model files of installed packages lie; nothing of those packages is imported."""

from importlib.util import find_spec
from pathlib import Path

from robolearn.errors import EnvError, MissingLibraryError

__all__ = ["package_file", "robosuite_asset"]


def package_file(package: str, relative: str) -> Path:
    """Return the path of a file inside an installed package without importing the package."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingLibraryError(
            f"'{relative}' belongs to the library '{package}'.",
            found="it is not installed",
            do="pip install 'robolearn[sim]'",
        )
    path = Path(found.submodule_search_locations[0], relative)
    if not path.is_file():
        raise EnvError("A model file is missing.", found=path, expected="a file", do=f"reinstall {package}")
    return path


def robosuite_asset(relative: str) -> Path:
    """Return the path of a model file below robosuite's assets, e.g. "robots/panda/robot.xml"."""
    return package_file("robosuite", f"models/assets/{relative}")
