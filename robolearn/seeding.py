"""Stateless randomness: every draw is a pure function of a seed and of what it is for."""

import hashlib

import numpy as np

__all__ = ["derive_seed", "generator", "policy_noise", "shuffled_index"]


def derive_seed(*key: int | str) -> int:
    """Return a 63-bit seed that depends on every part of `key` and on nothing else."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> np.random.Generator:
    """Return a numpy generator for `key`, e.g. `generator(seed, "reset", episode)`."""
    return np.random.Generator(np.random.Philox(derive_seed(*key)))


def policy_noise(seed: int, episode: int, decision: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float32 standard normal noise of one decision of one episode.

    It depends on (seed, episode, decision) only, so an episode's outcome does not depend on how
    many environments run beside it.
    """
    return generator(seed, "noise", episode, decision).standard_normal(shape, dtype=np.float32)


def shuffled_index(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of `range(size)` that training visits in `epoch`."""
    return generator(seed, "epoch", epoch).permutation(size)
