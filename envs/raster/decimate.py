"""Fewer triangles for the same look: edge collapses in order of quadric error (Garland and Heckbert, 1997)."""

import hashlib
import heapq
import os
from pathlib import Path

import numpy as np

from robolearn.envs.raster.compiled import allocating

__all__ = ["cache_folder", "decimate"]

_REVISION = 1  # raise when the result changes, so that cached files are not reused


def cache_folder() -> Path:
    """Return where derived files are kept: $ROBOLEARN_CACHE, else the user's cache directory."""
    base = os.environ.get("ROBOLEARN_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "robolearn"


def decimate(vert_m: np.ndarray, face: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (vertices [V,3], faces [F,3], source [V]) with about `target` faces, cached on disk by content.

    The mesh may hold several separate surfaces; they share the target so that the error is even.
    `source` is the number of the old vertex that a new one came from.
    """
    vert_m, face = np.ascontiguousarray(vert_m, np.float64), np.ascontiguousarray(face, np.int64)
    # A face that names a vertex twice has no area, and its edge from a vertex to itself cannot be collapsed.
    face = face[(face[:, 0] != face[:, 1]) & (face[:, 1] != face[:, 2]) & (face[:, 2] != face[:, 0])]
    digest = hashlib.sha256(vert_m.tobytes() + face.tobytes() + f"{target} {_REVISION}".encode()).hexdigest()[:32]
    path = cache_folder() / "meshes" / f"{digest}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return stored["vert"], stored["face"], stored["source"]
    sides = np.sort(face[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    result = _collapse(vert_m.copy(), face.copy(), edges, count == 1, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(scratch, vert=result[0], face=result[1], source=result[2])
    scratch.replace(path)
    return result


@allocating
def _add_plane(q, n, d, weight):
    """Add the squared distance to the plane n·x + d = 0 to a quadric [10]."""
    row = (n[0], n[1], n[2], d)
    at = 0
    for i in range(4):
        for j in range(i, 4):
            q[at] += weight * row[i] * row[j]
            at += 1


@allocating
def _error(q, p):
    x, y, z = p[0], p[1], p[2]
    return (
        q[0] * x * x + 2 * q[1] * x * y + 2 * q[2] * x * z + 2 * q[3] * x
        + q[4] * y * y + 2 * q[5] * y * z + 2 * q[6] * y
        + q[7] * z * z + 2 * q[8] * z + q[9]
    )  # fmt: skip


@allocating
def _best(quadric, vert, a, b):
    """Cheapest of the edge's ends and middle: (cost, place 0/1/2)."""
    q = quadric[a] + quadric[b]
    costs = (_error(q, vert[a]), _error(q, vert[b]), _error(q, 0.5 * (vert[a] + vert[b])))
    place = 0
    for i in range(1, 3):
        if costs[i] < costs[place]:
            place = i
    # A tiny term for the edge's length lets flat regions collapse evenly.
    return max(costs[place], 0.0) + 1e-12 * np.sum((vert[a] - vert[b]) ** 2), place


@allocating
def _normal(p, q, r):
    return np.cross(q - p, r - p)


@allocating
def _flips(vert, face, alive, head, after, v, other, to):
    """True if moving vertex v to `to` would turn a face around that survives the collapse with `other`."""
    node = head[v]
    while node >= 0:
        f = node // 3
        if alive[f] and face[f, 0] != other and face[f, 1] != other and face[f, 2] != other:
            k = node % 3
            p, q = vert[face[f, (k + 1) % 3]], vert[face[f, (k + 2) % 3]]
            old, new = _normal(vert[v], p, q), _normal(to, p, q)
            if np.sum(old * new) < 0.2 * np.sqrt(np.sum(old * old) * np.sum(new * new)):
                return True
        node = after[node]
    return False


@allocating
def _quadrics(vert, face, edges, border):
    """Area-weighted plane quadrics of every vertex [V,10]; open borders hold their line."""
    quadric = np.zeros((len(vert), 10))
    outline = {(edges[0, 0], edges[0, 1]): True}
    outline.clear()
    for e in range(len(edges)):
        if border[e]:
            outline[(edges[e, 0], edges[e, 1])] = True
    for f in range(len(face)):
        n = _normal(vert[face[f, 0]], vert[face[f, 1]], vert[face[f, 2]])
        length = np.sqrt(np.sum(n * n))
        if length <= 0.0:
            continue
        n = n / length
        for k in range(3):
            _add_plane(quadric[face[f, k]], n, -np.sum(n * vert[face[f, k]]), length / 6.0)
            a, b = face[f, k], face[f, (k + 1) % 3]
            if (min(a, b), max(a, b)) in outline:
                along = vert[b] - vert[a]
                side = np.cross(along, n)
                side = side / max(np.sqrt(np.sum(side * side)), 1e-30)
                for v in (a, b):
                    _add_plane(quadric[v], side, -np.sum(side * vert[a]), 2.0 * np.sum(along * along))
    return quadric


@allocating
def _collapse(vert, face, edges, border, target):
    """Collapse the cheapest edge until `target` faces are left; returns compact vertices and faces."""
    n_vert, n_face = len(vert), len(face)
    quadric = _quadrics(vert, face, edges, border)
    head, tail, after = np.full(n_vert, -1), np.full(n_vert, -1), np.full(3 * n_face, -1)
    for node in range(3 * n_face):
        v = face[node // 3, node % 3]
        if head[v] < 0:
            head[v] = node
        else:
            after[tail[v]] = node
        tail[v] = node
    alive, stamp, left = np.ones(n_face, np.bool_), np.zeros(n_vert, np.int64), n_face
    heap = [
        (_best(quadric, vert, edges[e, 0], edges[e, 1])[0], edges[e, 0], edges[e, 1], 0, 0) for e in range(len(edges))
    ]
    heapq.heapify(heap)
    while left > target and len(heap) > 0:
        _, a, b, stamp_a, stamp_b = heapq.heappop(heap)
        if stamp[a] != stamp_a or stamp[b] != stamp_b:
            continue
        _, place = _best(quadric, vert, a, b)
        to = vert[a].copy() if place == 0 else vert[b].copy() if place == 1 else 0.5 * (vert[a] + vert[b])
        if _flips(vert, face, alive, head, after, a, b, to) or _flips(vert, face, alive, head, after, b, a, to):
            continue
        node = head[b]
        while node >= 0:
            f = node // 3
            if alive[f]:
                if face[f, 0] == a or face[f, 1] == a or face[f, 2] == a:
                    alive[f] = False
                    left -= 1
                else:
                    face[f, node % 3] = a
            node = after[node]
        after[tail[a]], tail[a] = head[b], tail[b]
        vert[a] = to
        quadric[a] += quadric[b]
        stamp[a], stamp[b] = stamp[a] + 1, -1
        node = head[a]
        while node >= 0:
            f = node // 3
            if alive[f]:
                other = face[f, (node % 3 + 1) % 3]
                heapq.heappush(heap, (_best(quadric, vert, a, other)[0], a, other, stamp[a], stamp[other]))
            node = after[node]
    kept = face[alive]
    number = np.full(n_vert, -1)
    for v in kept.ravel():
        number[v] = 0
    used = np.flatnonzero(number == 0)
    number[used] = np.arange(len(used))
    packed = np.empty_like(kept)
    for f in range(len(kept)):
        for k in range(3):
            packed[f, k] = number[kept[f, k]]
    return vert[used], packed, used
