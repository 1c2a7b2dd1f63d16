"""Many rows, many resets: the same bits for any threads, order and process, and memory that stays.

As a script it writes the digests of one environment, for the process that compares them.
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
    command = [sys.executable, __file__, json.dumps([name, count // 2, 4, seeds])]
    other = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout.splitlines()[-1]) == reference


def memory_mb():
    """Return the memory that this process holds [MB]."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@LONG
@pytest.mark.parametrize("name", [*NAMES, "pusht", "gym/Pendulum-v1"])
def test_ten_thousand_resets_leave_memory_as_it_was(name):
    env = make_env(name, 10)
    held = []
    for thousand in range(12):
        for first in range(100):
            env.reset(seed=[1000 * thousand + 10 * first + row for row in range(10)])
            env.step(np.zeros((10, env.spec.action.dim)))
        held.append(memory_mb())
    env.close()
    assert (held[-1] - held[1]) / 10 < 1.0, held  # MB per 1,000, after 2,000 that warm up


if __name__ == "__main__":
    sys.stdout.write(json.dumps(digests(*json.loads(sys.argv[1]))) + "\n")
