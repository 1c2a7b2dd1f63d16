"""Physics steps per second of own tasks on mujoco_warp beside MuJoCo on all cores, from the same states.

Needs a GPU to mean anything; on warp's CPU device it runs a few rows and says so in the notes. A row's peer
is `mujoco.rollout` with one thread per core. Contacts are those of an expert that has begun its work.
"""

import os
import time

import mujoco
import mujoco.rollout
import numpy as np

from robolearn.api import make_env
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.envs.batch import BatchEnv
from robolearn.envs.warp import WarpRows, gpu

TASKS = ("robolearn/lift", "pick_place", "robolearn/square", "robolearn/handover")


def main(options: Options) -> None:
    """Run all rows and print them."""
    name = gpu()
    sizes = ((64, 256) if options.quick else (1024, 4096, 8192)) if name else (8,)
    tasks = TASKS[:1] if options.quick else TASKS
    finish([row for task in tasks for row in rows(task, sizes, name)], options)


def rows(task: str, sizes: tuple[int, ...], name: str | None) -> list[Row]:
    """One row per number of environments."""
    env = make_env(task, 1)
    if not isinstance(env, BatchEnv):
        raise TypeError(task)
    env.reset(seed=[1])
    expert = env.expert()
    expert.reset(np.arange(1), [1])
    for _ in range(15):
        env.step(expert.act())
    peer, found = on_cores(env.model, env.data[0]), []
    for size in sizes:
        rate, finite = on_warp(env.model, env.data[0], size, 200 if name else 5)
        note = f"{size} rows on {name or 'the CPU device of warp: a check, not a speed'}; finite rows {finite:.1%}"
        label = f"{task.removeprefix('robolearn/')}_{size}"
        found.append(Row(label, "steps/s", rate, peer, rate / peer, note))
    return found


def on_warp(model: mujoco.MjModel, start: mujoco.MjData, size: int, steps: int) -> tuple[float, float]:
    """Return steps/s over all rows, and the share of rows that stayed finite."""
    batch = WarpRows(model, start, size)
    batch.step(2)  # compiles and records
    batch.wait()
    start_s = time.perf_counter()
    batch.step(steps)
    batch.wait()
    rate = size * steps / (time.perf_counter() - start_s)
    return rate, float(np.isfinite(batch.qpos).all(1).mean())


def on_cores(model: mujoco.MjModel, start: mujoco.MjData, rows: int = 64, steps: int = 200) -> float:
    """Return steps/s of MuJoCo itself with one thread per core."""
    threads, kind = len(os.sched_getaffinity(0)), mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, start, state, kind)
    control = np.tile(start.ctrl, (rows, steps, 1))
    data = [mujoco.MjData(model) for _ in range(threads)]
    start_s = time.perf_counter()
    mujoco.rollout.rollout(model, data, np.tile(state, (rows, 1)), control, nstep=steps)
    return rows * steps / (time.perf_counter() - start_s)


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
