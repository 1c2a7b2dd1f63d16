"""Where tensors live."""

import torch

from robolearn.errors import ConfigError

__all__ = ["pick_device"]


def pick_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`; "auto" is a GPU where there is one. Raises `ConfigError` without it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"Unknown device '{name}'.", expected="auto, cpu, cuda, cuda:0, …") from error
    if device.type == "cuda" and (device.index or 0) >= (gpus := torch.cuda.device_count()):  # loads the driver
        raise ConfigError(
            f"There is no device '{name}'.", found=f"{gpus} GPUs", do="device=cpu, or see robolearn doctor"
        )
    return device
