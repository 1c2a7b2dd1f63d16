"""Evaluation on Ray: episodes are shared out over its workers, here or on other machines.

An episode's outcome is a function of (seed, episode), so who runs it does not matter. A worker that dies
loses its share, which Ray runs again elsewhere. Checkpoint and libraries must be where the workers are.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from robolearn.config import parse, to_dict
from robolearn.errors import MissingLibraryError, RobolearnError
from robolearn.evaluation import EvalConfig, EvalResult, summarise
from robolearn.rollout import Outcome

__all__ = ["evaluate_on_ray", "run_share"]

_RETRIES = 3  # of a share whose worker died


def run_share(
    ckpt: str, policy: Mapping[str, Any] | None, env: Mapping[str, Any], config: Mapping[str, Any], share: Sequence[int]
) -> list[dict[str, Any]]:
    """Run the episodes `share` in this process and return their outcomes as plain data."""
    from robolearn.actor import load
    from robolearn.api import make_env
    from robolearn.evaluation import evaluate

    settings = parse(EvalConfig, config, where="eval")
    rows = make_env(str(env["name"]), min(settings.num_envs, len(share)), env)
    try:
        result = evaluate(load(ckpt, policy=policy), rows, settings, episodes=share)
    finally:
        rows.close()
    return [asdict(outcome) for outcome in result.outcomes]


def evaluate_on_ray(
    ckpt: str | Path,
    env: Mapping[str, Any],
    config: EvalConfig,
    *,
    workers: int = 2,
    policy: Mapping[str, Any] | None = None,
) -> EvalResult:
    """Evaluate a checkpoint with `workers` Ray tasks at a time and return what one process would.

    Uses the Ray cluster that $RAY_ADDRESS names, else starts one on this machine.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            "eval.backend=ray needs Ray.", do="pip install 'robolearn[scale]', or eval.backend=local"
        ) from error
    start_s = time.perf_counter()
    ours = not ray.is_initialized()
    if ours:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(run_share)
        shares = [list(range(config.episodes))[first :: 2 * workers] for first in range(2 * workers)]
        arguments = (str(Path(ckpt).resolve()), policy, dict(env), to_dict(config))
        found = ray.get([task.remote(*arguments, share) for share in shares if share])
    except RayTaskError as error:
        raise RobolearnError("An evaluation failed in a Ray worker.", found=error.cause) from error
    finally:
        if ours:
            ray.shutdown()
    outcomes = [Outcome(**plain) for share in found for plain in share]
    result = summarise(sorted(outcomes, key=lambda one: one.episode), time.perf_counter() - start_s)
    return replace(result, facts={"backend": "ray", "workers": workers})
