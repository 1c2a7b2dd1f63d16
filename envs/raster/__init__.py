"""Pictures of MuJoCo models drawn on the CPU without any graphics library.

    picture = Rasteriser(model, "agentview", 84, 84).render(data)  # [84,84,3] uint8

The compiled code releases the interpreter lock, so environments can be drawn in the threads that step them.
"""

from importlib.util import find_spec

from robolearn.errors import MissingLibraryError

if find_spec("numba") is None:
    raise MissingLibraryError(
        "The rasteriser is compiled by numba.", found="numba is not installed", do="pip install 'robolearn[sim]'"
    )

from robolearn.envs.raster.rasteriser import FreeCamera, Rasteriser, RasterOptions, point_cloud

__all__ = ["FreeCamera", "RasterOptions", "Rasteriser", "point_cloud"]
