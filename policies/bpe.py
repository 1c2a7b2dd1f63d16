"""Byte-pair encoding of integer sequences (arXiv 1508.07909), on flat arrays."""

import numpy as np

__all__ = ["decode_pairs", "encode_pairs", "learn_pairs"]


def learn_pairs(rows: np.ndarray, base: int, count: int) -> np.ndarray:
    """Return up to `count` merges [M,2] for rows [n,L] of symbols 0 … base-1; merge m becomes symbol base+m.

    The most frequent neighbours are merged first (the lowest symbols among equals), until none repeat.
    """
    flat, pairs = _flatten(rows), []
    for symbol in range(base, base + count):
        valid = (flat[:-1] >= 0) & (flat[1:] >= 0)
        codes, amounts = np.unique((flat[:-1] * (base + count) + flat[1:])[valid], return_counts=True)
        if not len(codes) or amounts.max() < 2:
            break
        left, right = divmod(int(codes[amounts.argmax()]), base + count)
        pairs.append((left, right))
        flat = _merge(flat, left, right, symbol)
    return np.array(pairs, np.int64).reshape(-1, 2)


def encode_pairs(rows: np.ndarray, pairs: np.ndarray, base: int) -> list[np.ndarray]:
    """Return the merged sequence of each row."""
    flat = _flatten(rows)
    for number, (left, right) in enumerate(pairs):
        flat = _merge(flat, int(left), int(right), base + number)
    ends = np.flatnonzero(flat < 0)
    return [part[part >= 0] for part in np.split(flat, ends)][: len(rows)]


def decode_pairs(tokens: np.ndarray, pairs: np.ndarray, base: int) -> np.ndarray:
    """Return the symbols 0 … base-1 that a sequence stands for."""
    symbols: list[int] = []
    waiting = [int(token) for token in tokens[::-1]]
    while waiting:
        token = waiting.pop()
        if token < base:
            symbols.append(token)
        elif token - base < len(pairs):
            left, right = pairs[token - base]
            waiting += [int(right), int(left)]
    return np.array(symbols, np.int64)


def _flatten(rows: np.ndarray) -> np.ndarray:
    """Join rows with a -1 after each, which never merges."""
    return np.pad(rows.astype(np.int64), ((0, 0), (0, 1)), constant_values=-1).ravel()


def _merge(flat: np.ndarray, left: int, right: int, symbol: int) -> np.ndarray:
    hits = np.flatnonzero((flat[:-1] == left) & (flat[1:] == right))
    if not len(hits):
        return flat
    if left == right:  # in a run, take every second pair
        starts = np.concatenate([[True], np.diff(hits) > 1])
        place = np.arange(len(hits)) - np.maximum.accumulate(np.where(starts, np.arange(len(hits)), 0))
        hits = hits[place % 2 == 0]
    merged = flat.copy()
    merged[hits] = symbol
    return np.delete(merged, hits + 1)
