"""Images for the wire: 8 bit, and resized without distortion (openpi's names and pixel values)."""

import numpy as np

__all__ = ["convert_to_uint8", "resize_with_pad"]


def convert_to_uint8(image: np.ndarray) -> np.ndarray:
    """Return `image` as uint8; floats are taken to be in [0, 1]."""
    return (255 * image).astype(np.uint8) if np.issubdtype(image.dtype, np.floating) else image


def resize_with_pad(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return uint8 `images` (…,H,W,C) at (…,height,width,C): scaled to fit, centred on black."""
    if images.shape[-3:-1] == (height, width):
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    resized = np.stack([_resize(image, height, width) for image in flat])
    return resized.reshape(*images.shape[:-3], *resized.shape[-3:])


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    ratio = max(image.shape[1] / width, image.shape[0] / height)
    size = int(image.shape[1] / ratio), int(image.shape[0] / ratio)
    small = np.asarray(Image.fromarray(image).resize(size, resample=Image.Resampling.BILINEAR))
    padded = np.zeros((height, width, image.shape[2]), np.uint8)
    top, left = max(0, (height - size[1]) // 2), max(0, (width - size[0]) // 2)
    padded[top : top + size[1], left : left + size[0]] = small
    return padded
