"""Many rows, many resets: the same bits for any threads, order and process, and memory that stays.

As a script it writes the digests of one environment, or what it holds, for the process that compares them.
"""

import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.seeding import generator

NAMES = ("pick_place", "robosuite/Lift", "robosuite/PickPlaceCan", "metaworld/assembly-v3", "aloha/transfer_cube")
LONG = pytest.mark.long


def digests(name, rows, threads, seeds, steps=30):
    """Return, by seed, a hash of all that an episode under random actions shows."""
    env = make_env(name, rows, {"threads": threads})
    env.reset(seed=list(range(rows)))
    low, high = np.array(env.spec.action.low), np.array(env.spec.action.high)
    found = {}
    for part in np.reshape(seeds, (-1, rows)).tolist():
        draws, hashes = [generator(seed, "actions") for seed in part], [hashlib.sha256() for _ in part]
        obs, _ = env.reset(seed=part)
        for _ in range(steps):
            obs, reward, *_ = env.step(np.stack([draw.uniform(low, high) for draw in draws]))
            for row, seen in enumerate(hashes):
                for key in sorted(set(obs) - {"task"}):
                    seen.update(obs[key][row].tobytes())
                seen.update(reward[row].tobytes())
        found |= {str(seed): seen.hexdigest() for seed, seen in zip(part, hashes, strict=True)}
    env.close()
    return found


@pytest.mark.parametrize(
    ("name", "count"), [("pick_place", 8), *(pytest.param(name, 64, marks=LONG) for name in NAMES)]
)
def test_the_same_bits_for_any_threads_order_and_process(name, count):
    seeds = list(range(count))
    reference = digests(name, count, 1, seeds)
    assert len(set(reference.values())) == count
    for threads in (2, 4):
        assert digests(name, count, threads, seeds) == reference
    assert digests(name, count // 4, 2, seeds[::-1]) == reference
    assert elsewhere("digests", name, count // 2, 4, seeds) == reference


def elsewhere(work, *arguments):
    """Return what a function of this file returns in a process of its own."""
    command = [sys.executable, __file__, work, json.dumps(arguments)]
    other = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return json.loads(other.stdout.splitlines()[-1])


def memory(name, thousands):
    """Return the memory that the process holds [MB] after every thousand resets."""
    env = make_env(name, 10)
    held = []
    for thousand in range(thousands):
        for first in range(100):
            env.reset(seed=[1000 * thousand + 10 * first + row for row in range(10)])
            env.step(np.zeros((10, env.spec.action.dim)))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held.append(pages * resource.getpagesize() / 1e6)
    env.close()
    return held


@LONG
@pytest.mark.parametrize("name", [*NAMES, "pusht", "gym/Pendulum-v1"])
def test_ten_thousand_resets_leave_memory_as_it_was(name):
    held = elsewhere("memory", name, 12)
    assert (held[-1] - held[1]) / 10 < 1.0, held  # MB per 1,000, after 2,000 that warm up


if __name__ == "__main__":
    found = {"digests": digests, "memory": memory}[sys.argv[1]](*json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(found) + "\n")
