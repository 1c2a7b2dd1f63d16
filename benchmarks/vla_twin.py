"""One vision-language-action checkpoint in direct simulation, and served over the openpi protocol to an arm's stack.

    python benchmarks/vla_twin.py [--folder DIR] [--episodes 100] [--minutes 14] [--quick] [--json FILE]

The checkpoint of the laptop's VLA lies beside this file. Direct: the simulated language task steps with its actions.
Twin: wrist pictures and proprioception come from a twin of the same scene, go through the client to the server, and the
chunks that come back through the executor and the safety filter with its usual limits, at 250 Hz on a simulated clock.
Both start from the same states and hear the same instruction; the server draws other noise. The demonstrations keep to
the pace that the limits allow (`collect.pace_m_s`).

Outcomes stay in DIR; after `--minutes` the run ends and the next one goes on.
"""

import argparse
import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from parity import STEPS, simulated, summary, twin_of

import robolearn
from robolearn.benchmark import Options, evaluate_run, finish
from robolearn.contracts import Actor, Observations
from robolearn.hardware.deploy import TwinOptions
from robolearn.plan import Execution
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.server import PolicyServer, ServerConfig

CHECKPOINT = Path(__file__).parent / "checkpoints" / "vla_language_small"
EXECUTE, TEMPERATURE, RATE_HZ = 4, 0.5, 250.0  # as published, both; of the commands
TWIN = TwinOptions("pick_place_language", "forward", image_px=64)  # its topics stay in memory


class Served:
    """A policy behind a server, for one robot; `contracts.Actor`. The server draws the noise."""

    noise_shape: tuple[int, ...] = (0,)

    def __init__(self, actor: Actor, client: WebsocketClientPolicy):
        self.spec, self._client = actor.spec, client

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        newest = {key: np.asarray(value)[0] for key, value in obs.items()}
        newest = {key: value[-1] if value.ndim else value for key, value in newest.items()}  # of its history
        return self._client.infer(newest | {"task": str(newest["task"])})["actions"][None]


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
    parser.add_argument("--quick", action="store_true", help="two episodes")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    end_s = time.monotonic() + 60 * given.minutes
    given.folder.mkdir(parents=True, exist_ok=True)
    robot = replace(twin_of(TWIN, RATE_HZ), cameras=("wrist",))
    with served(robolearn.load(CHECKPOINT)) as client:
        episodes, file = 2 if given.quick else given.episodes, given.folder / "episodes.jsonl"
        twin = simulated(robot, client, Execution(EXECUTE), episodes, file, end_s)
    direct = evaluate_run(CHECKPOINT, len(twin), {"max_steps": STEPS}).outcomes
    rows = summary([outcome.success for outcome in direct], twin, RATE_HZ)
    finish(rows, Options(given.quick, given.json))


if __name__ == "__main__":
    main()
