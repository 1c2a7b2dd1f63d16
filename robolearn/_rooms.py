"""Guard of the linked rooms: each has one import name, `robolearn.<room>`."""


def guard(module: str) -> None:
    """Refuse an import of a room under any name but `robolearn.<room>`."""
    if not module.startswith("robolearn."):
        raise ImportError(f"'{module}' would be a second copy of these modules; import robolearn.{module}")
