"""A small stand-in for LIBERO: the same names, a point that moves instead of a robot."""


def get_libero_path(name):
    """Return a folder that nothing is read from."""
    return f"/nowhere/{name}"
