"""Environment steps per second: this library's engine beside robosuite and Meta-World, interleaved.

Every round runs each side once, one after the other, from the same kind of states under random
actions; a row is the median over rounds. Ours: 64 rows, one thread per core. robosuite: gymnasium's
AsyncVectorEnv with two processes, the fastest way to run it here. Meta-World: two plain processes.
Pictures are two cameras of 84 pixels: ours by the CPU rasteriser and by OpenGL's fast mode (effects off, meshes of
20,000 triangles), robosuite's as it makes them; every process that draws by OpenGL has one thread for it.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from statistics import geometric_mean, median
from typing import Any

import gymnasium
import numpy as np

from robolearn.api import make_env
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.envs.opengl import choose_backend

TASKS = {"lift": "Lift", "can": "PickPlaceCan", "square": "NutAssemblySquare"}
MT10 = (
    "reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3", "drawer-close-v3",
    "button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "window-close-v3",
)  # fmt: skip
ROWS, PROCESSES = 64, 2
CAMERAS, SIZE_PX = ("agentview", "robot0_eye_in_hand"), 84


class PlainRobosuite(gymnasium.Env):
    """robosuite's task as its users wrap it: state in one vector, and the pictures of `cameras`."""

    def __init__(self, task: str, cameras: tuple[str, ...] = ()):
        from robolearn.envs.exact.export import open_peer

        self._env, self._cameras = open_peer(task, "Panda", cameras=cameras, image_px=SIZE_PX), cameras
        self._env.reward_shaping = False
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self._env.action_dim,), np.float32)
        box, first = gymnasium.spaces.Box, self._observe(self._env.reset())
        pictures = {camera: box(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8) for camera in cameras}
        state = box(-np.inf, np.inf, first["state"].shape, np.float64)
        self.observation_space = gymnasium.spaces.Dict({"state": state, **pictures})

    def _observe(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        state = np.concatenate([given["robot0_proprio-state"], given["object-state"]])
        return {"state": state} | {camera: given[f"{camera}_image"] for camera in self._cameras}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        np.random.seed(seed)  # noqa: NPY002 - robosuite draws from the global generator
        return self._observe(self._env.reset()), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        given, reward, _, _ = self._env.step(action)
        success = bool(self._env._check_success())
        return self._observe(given), float(reward), False, False, {"success": success}


class PlainMetaWorld(gymnasium.Env):
    """Meta-World's task, its constructor's seed, without the limit that ends it."""

    def __init__(self, task: str):
        import metaworld

        bench = metaworld.MT1(task, seed=0)
        self._env = bench.train_classes[task]()
        self._env.set_task(bench.train_tasks[0])
        self._env.max_path_length = 10**9
        self.action_space, self.observation_space = self._env.action_space, self._env.observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._env.reset()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        given, reward, _, _, _ = self._env.step(action)
        return given, float(reward), False, False, {}


def main(options: Options) -> None:
    """Run all rows and print them."""
    rows: list[Row] = []
    for name, task in TASKS.items():
        rows += robosuite_rows(name, task, rounds=3 if options.quick else 15, steps=2 if options.quick else 8)
    rows += image_rows("Lift", rounds=2 if options.quick else 9)
    rows.append(metaworld_row(MT10[:3] if options.quick else MT10, rounds=3 if options.quick else 9))
    finish(rows, options)


def robosuite_rows(name: str, task: str, rounds: int, steps: int) -> list[Row]:
    """Exact, its limit and (for Lift) lean beside robosuite itself."""
    options = {"stop_on_success": False, "max_steps": 10**9}
    exact: Any = make_env(f"robosuite/{task}", ROWS, options)
    lean: Any = make_env(f"robosuite/{task}", ROWS, {**options, "fidelity": "lean"})
    peer = gymnasium.vector.AsyncVectorEnv([partial(PlainRobosuite, task)] * PROCESSES, context="spawn")
    peer.reset(seed=0)
    draw = np.random.default_rng(0)
    rates: dict[str, list[float]] = {"exact": [], "bare": [], "lean": [], "peer": []}
    for round_ in range(rounds + 1):  # the first warms up
        exact.reset(seed=1000 * round_)
        lean.reset(seed=1000 * round_)
        stepped, bare = exact_and_limit(exact, draw, steps)
        fast = _seconds(partial(_advance, lean, draw, steps))
        plain = _seconds(partial(_advance, peer, draw, steps * 8))
        if round_:
            rates["exact"].append(ROWS * steps / stepped)
            rates["bare"].append(ROWS * steps / bare)
            rates["lean"].append(ROWS * steps / fast)
            rates["peer"].append(PROCESSES * steps * 8 / plain)
    peer.close()
    exact.close()
    lean.close()
    peer_rate, note = median(rates["peer"]), f"{task}, {ROWS} rows, against AsyncVectorEnv({PROCESSES})"
    limit = f"{task}, against bare mj_step, all threads; that also clears marks for viewers"
    figures = {key: median(values) for key, values in rates.items()}
    return [
        _row(f"{name}_exact_state", figures["exact"], peer_rate, note),
        _row(f"{name}_exact_limit", figures["exact"], figures["bare"], limit),
        _row(f"{name}_lean_state", figures["lean"], peer_rate, note),
    ]


def image_rows(task: str, rounds: int) -> list[Row]:
    """Exact with pictures by either renderer, beside robosuite with its own."""
    backend = choose_backend()
    os.environ.update(MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend, LP_NUM_THREADS="0")  # of robosuite's processes
    options = {"stop_on_success": False, "max_steps": 10**9, "cameras": CAMERAS, "image_px": SIZE_PX}
    raster: Any = make_env(f"robosuite/{task}", ROWS, {**options, "renderer": "raster"})
    fast: Any = make_env(f"robosuite/{task}", ROWS, {**options, "renderer": "opengl_fast"})
    plain = [partial(PlainRobosuite, task, CAMERAS)] * PROCESSES
    peer = gymnasium.vector.AsyncVectorEnv(plain, context="spawn")
    draw, rates = np.random.default_rng(0), {"raster": [], "fast": [], "peer": []}
    for env in (raster, fast, peer):
        env.reset(seed=0)
    for round_ in range(rounds + 1):  # the first warms up
        for name, env, steps, count in (
            ("raster", raster, 4, ROWS),
            ("fast", fast, 2, ROWS),
            ("peer", peer, 6, PROCESSES),
        ):
            rate = count * steps / _seconds(partial(_advance, env, draw, steps))
            rates[name] += [rate] if round_ else []
    for env in (raster, fast, peer):
        env.close()
    figures = {key: median(values) for key, values in rates.items()}
    note = (
        f"{task}, {ROWS} rows, 2 cameras of {SIZE_PX} px, against AsyncVectorEnv({PROCESSES}) with its own by {backend}"
    )
    return [
        _row(
            f"{task.lower()}_exact_raster",
            figures["raster"],
            figures["peer"],
            f"{note}; one sample a pixel, no shadows",
        ),
        _row(f"{task.lower()}_exact_glfast", figures["fast"], figures["peer"], note),
    ]


def exact_and_limit(env: Any, draw: np.random.Generator, steps: int) -> tuple[float, float]:
    """Return seconds of `steps` control steps, and of bare physics steps from the same states."""
    engine, every = env.engine, np.arange(ROWS)
    _advance(env, draw, 2)
    stepped, states = 0.0, []
    for _ in range(steps):
        states.append([engine.get_state(row) for row in every])
        actions = draw.uniform(-1, 1, (ROWS, env.export.action_dim))
        stepped += _seconds(partial(env.step, actions))
    bare = 0.0
    for before in states:
        for row in every:
            engine.set_state(row, before[row])
        bare += _seconds(partial(engine.bare_steps, every, engine.substeps))
    return stepped, bare


def metaworld_row(tasks: tuple[str, ...], rounds: int) -> Row:
    """The geometric mean of the speed-ups over `tasks`."""
    ratios, ours, theirs = {}, [], []
    for task in tasks:
        fast: Any = make_env(f"metaworld/{task}", ROWS, {"stop_on_success": False, "max_steps": 10**9})
        fast.reset(seed=0)
        plain = gymnasium.vector.AsyncVectorEnv([partial(_Bunch, task)] * PROCESSES, context="spawn")
        plain.reset(seed=0)
        draw = np.random.default_rng(0)
        here, there = [], []
        for round_ in range(rounds + 1):
            mine = ROWS * 10 / _seconds(partial(_advance, fast, draw, 10))
            other = PROCESSES * _Bunch.SIZE / _seconds(partial(plain.step, plain.action_space.sample()))
            if round_:
                here.append(mine)
                there.append(other)
        plain.close()
        fast.close()
        ratios[task] = median(here) / median(there)
        ours.append(median(here))
        theirs.append(median(there))
    detail = ", ".join(f"{task} ×{ratio:.1f}" for task, ratio in ratios.items())
    return Row(
        "metaworld10_state",
        "steps/s",
        geometric_mean(ours),
        geometric_mean(theirs),
        geometric_mean(ratios.values()),
        f"{len(tasks)} tasks, {detail}",
    )


class _Bunch(PlainMetaWorld):
    """Takes many steps per call, so that messages between processes cost a plain process nothing."""

    SIZE = 200

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        draw = np.random.default_rng(0).uniform(-1, 1, (self.SIZE, len(action))).astype(np.float32)
        given, reward = np.empty(0), 0.0
        for one in draw:
            given, reward, *_ = super().step(one)
        return given, reward, False, False, {}


def _advance(env: Any, draw: np.random.Generator, steps: int) -> None:
    for _ in range(steps):
        env.step(draw.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32))


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def _row(name: str, ours: float, peer: float, note: str) -> Row:
    return Row(name, "steps/s", ours, peer, ours / peer, note)


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
