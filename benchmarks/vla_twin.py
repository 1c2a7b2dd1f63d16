"""One vision-language-action checkpoint in direct simulation, and served over the openpi protocol to an arm's stack.

    python benchmarks/vla_twin.py [--folder DIR] [--episodes 100] [--minutes 14] [--json FILE]

Direct: the simulated language task steps with the policy's actions. Twin: wrist pictures and proprioception come from a
twin of the same scene, go through the client to the server, and the chunks that come back through the executor and the
safety filter, at 250 Hz on a simulated clock. Both start from the same states and hear the same instruction.

The checkpoint is the run of `robolearn reproduce vla_language_small data.path=DIR/dataset out=DIR/run train.steps=1800`
on demonstrations at the pace that the arm's limits allow, which the first call leaves in DIR (see `parity.py` for why);
outcomes stay there, too, and a run that ended after `--minutes` goes on.
"""

import argparse
import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from parity import SEED, STEPS, Paced, Setting, simulated, summary

import robolearn
from robolearn.benchmark import Options, finish
from robolearn.collect import CollectConfig, collect
from robolearn.contracts import Actor, Observations
from robolearn.evaluation import EvalConfig
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.registry import resolve
from robolearn.rollout import ExpertController
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.server import PolicyServer, ServerConfig

EXECUTE, TEMPERATURE, DEMONSTRATIONS, PACE_M_S = 4, 0.5, 400, 0.2
NOISE = (0.006, 0.006, 0.006, 0.036, 0.0)
PIXELS = 64
SEES = {"cameras": ["wrist"], "image_px": PIXELS, "max_steps": STEPS}


@dataclass(frozen=True)
class LanguageSetting(Setting):
    """As the setting of `parity.py`, in the language task and with the wrist's camera."""

    def robot(self) -> RobotConfig:
        """Return the twin of the task; its topics stay in memory."""
        twin = TwinOptions("pick_place_language", "forward", image_px=PIXELS)
        return replace(super().robot(), cameras=("wrist",), twin=twin)


class Served:
    """A policy behind a server, for one robot; `contracts.Actor`. The server draws the noise."""

    noise_shape: tuple[int, ...] = (0,)

    def __init__(self, actor: Actor, client: WebsocketClientPolicy):
        self.spec, self._client = actor.spec, client

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        seen = {key: np.asarray(value[0]) for key, value in obs.items()}
        newest = {key: str(value) if key == "task" else value[-1] for key, value in seen.items()}
        return self._client.infer(newest)["actions"][None]


@contextmanager
def served(actor: Actor) -> Generator[Actor]:
    """Serve `actor` from a thread and give the client's end of it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = PolicyServer(actor, ServerConfig(port=0, temperature=TEMPERATURE))
    client = WebsocketClientPolicy(port=asyncio.run_coroutine_threadsafe(server.start(), loop).result())
    yield Served(actor, client)
    client.close()
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/vla_twin"), help="of what was done so far")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no episode after these")
    parser.add_argument("--quick", action="store_true", help="of the checkpoint that lies beside, 2 episodes")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    end_s = time.monotonic() + 60 * given.minutes
    run = Path(__file__).parent / "checkpoints" / "vla_language_small" if given.quick else given.folder / "run"
    if not given.quick and not (given.folder / "dataset").is_dir():
        demonstrate(given.folder / "dataset")
    if not run.is_dir():
        raise SystemExit(f"There is no run {run}: see the head of {Path(__file__).name}.")
    actor = robolearn.load(run)
    setting = LanguageSetting(PACE_M_S, DEMONSTRATIONS, 0, 250.0, 0.0)
    outcomes = given.folder / ("quick.jsonl" if given.quick else "twin.jsonl")
    outcomes.parent.mkdir(parents=True, exist_ok=True)
    with served(actor) as client:
        twin = simulated(setting, client, 2 if given.quick else given.episodes, outcomes, end_s)
    finish(summary(evaluate(actor, len(twin)), twin, setting), Options(given.quick, given.json))


def demonstrate(folder: Path) -> None:
    """Leave the demonstrations at the pace of the arm in `folder`."""
    env = robolearn.make_env("pick_place_language", num_envs=50, options=SEES)
    sink = resolve("sink", "lerobot")(folder, env.spec, {})
    expert = Paced(ExpertController(env.expert(), 0), env.num_envs, PACE_M_S)
    collect(env, expert, sink, CollectConfig(DEMONSTRATIONS, env.num_envs, noise=NOISE))
    sink.close()


def evaluate(actor: Actor, episodes: int) -> list[bool]:
    """Return the successes in direct simulation."""
    env = robolearn.make_env("pick_place_language", num_envs=min(50, episodes), options=SEES)
    config = EvalConfig(episodes=episodes, num_envs=env.num_envs, seed=SEED, execute=EXECUTE, temperature=TEMPERATURE)
    return [outcome.success for outcome in robolearn.evaluate(actor, env, config).outcomes]


if __name__ == "__main__":
    main()
