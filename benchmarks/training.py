"""Training on the CPU (or a GPU where there is one): samples per second beside LeRobot, and beside a bare loop.

Rows: train_samples_per_s (the diffusion U-Net of one size, one dataset of states, batch 64, LeRobot's own
update step and its fastest number of loader workers), train_vs_bare (the flow MLP through the whole loop,
peer: the same network, batches and optimizer in a bare loop without average, clipping and checks).

The data are the Push-T demonstrations when `ROBOLEARN_DATA` names their folder, else synthetic data of
their shapes. `--quick` takes 20 episodes and a fifth of the time.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.benchmark import Row, finish, parse_options
from robolearn.contracts import EpisodeSource
from robolearn.data.exports import write_lerobot
from robolearn.data.zarr_replay import ZarrReader
from robolearn.learner import Learner, precision
from robolearn.loading import batches, cached, open_training_data
from robolearn.run import RunConfig, parse_run
from robolearn.spec import ActionSpec, Feature, Spec

STATE, SCENE = "observation.state", "observation.environment_state"
HISTORY, CHUNK, BATCH = 2, 16, 64
CHANNELS = (128, 256)
FOR_EVER = 1 << 40


class Demonstrations:
    """Agent position and keypoints of Push-T, or noise of their shapes."""

    def __init__(self, episodes: int):
        folder = os.environ.get("ROBOLEARN_DATA")
        path = Path(folder) / "pusht_cchi_v7_replay.zarr.zip" if folder else None
        self._source: EpisodeSource | None = ZarrReader(path) if path is not None and path.exists() else None
        lengths = np.asarray(self._source.lengths) if self._source else np.full(206, 125)
        self.lengths = lengths[:episodes]
        self.what = f"{'Push-T' if self._source else 'synthetic data of Push-T shapes'}, {len(self.lengths)} episodes"
        self.spec = Spec({STATE: Feature(shape=(2,)), SCENE: Feature(shape=(18,))}, ActionSpec(2), rate_hz=10.0)

    def read(self, episode: int, keys: Any, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(episode)
        length = int(self.lengths[episode])
        columns = {
            STATE: generator.random((length, 2), np.float32),
            SCENE: generator.random((length, 18), np.float32),
            "action": generator.random((length, 2), np.float32),
        }
        if self._source is not None:
            stored = self._source.read(episode, [STATE, "action"])
            columns |= {STATE: stored[STATE], "action": stored["action"]}
        columns["task"] = np.full(length, "push")
        return {key: columns[key][start:stop] for key in keys}


def configuration(root: Path, policy: dict[str, Any], batch: int, device: str) -> RunConfig:
    """Return the config of a run that never ends."""
    train = {"steps": FOR_EVER, "batch_size": batch}
    data = {"path": str(root), "keys": [STATE, SCENE]}
    return parse_run({"policy": policy, "data": data, "train": train, "device": device})


def ours(config: RunConfig) -> tuple[Iterator[int], int]:
    """Return an iterator over training steps that gives their samples, and the number of parameters."""
    device = torch.device(config.device)
    data = open_training_data(config)
    torch.manual_seed(0)
    learner = Learner(config.policy.build(data.pipeline.transform_spec(data.spec)), config.train, 0, device)
    feed = batches(cached(data, config.train.cache_mb, device), config, [0], 0, FOR_EVER, device)

    def steps() -> Iterator[int]:
        for number, pieces in enumerate(feed):
            learner.step(number, [(0, pieces[0])], 1)
            if number % config.train.log_every == 0:
                learner.check()
            yield config.train.batch_size

    return steps(), sum(value.numel() for value in learner.policy.parameters())


def bare(config: RunConfig) -> Iterator[int]:
    """Yield the samples of each step of a loop without average, clipping and checks."""
    device = torch.device(config.device)
    data = open_training_data(config)
    everything = data.pipeline.forward(data.windows.gather(np.arange(len(data.windows))))
    tensors = {key: value.to(device) for key, value in everything.items() if torch.is_tensor(value)}
    policy = config.policy.build(data.pipeline.transform_spec(data.spec)).to(device)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, fused=True)
    size = config.train.batch_size
    bf16 = precision(config.train.precision, device) == "bf16"
    while True:
        index = torch.randint(len(data.windows), (size,), device=device)
        batch = {key: value.index_select(0, index) for key, value in tensors.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = policy.loss(batch)[0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield size


def lerobot(root: Path, workers: int, device: str) -> tuple[Iterator[int], int]:
    """Return the same for LeRobot: its dataset, processors, policy, optimizer and update step."""
    from accelerate import Accelerator
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
    from lerobot.scripts.lerobot_train import update_policy
    from lerobot.utils.logging_utils import AverageMeter, MetricsTracker

    inputs = {STATE: PolicyFeature(FeatureType.STATE, (2,)), SCENE: PolicyFeature(FeatureType.ENV, (18,))}
    config = DiffusionConfig(
        n_obs_steps=HISTORY,
        horizon=CHUNK,
        n_action_steps=8,
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        down_dims=CHANNELS,
        device=device,
    )
    stamps = {key: [i / 10 for i in (-1, 0)] for key in inputs} | {"action": [i / 10 for i in range(-1, CHUNK - 1)]}
    dataset = LeRobotDataset("robolearn/bench", root=root, delta_timestamps=stamps)
    stats: Any = dataset.meta.stats
    prepare, _ = make_diffusion_pre_post_processors(config, stats)
    policy = DiffusionPolicy(config)
    parameters = sum(value.numel() for value in policy.parameters())
    accelerator: Any = Accelerator(cpu=device == "cpu")
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    meters = {name: AverageMeter(name, ":.3f") for name in ("loss", "grad_norm", "lr", "update_s", "dataloading_s")}
    tracker = MetricsTracker(BATCH, dataset.num_frames, dataset.num_episodes, meters, accelerator=accelerator)

    def steps() -> Iterator[int]:
        while True:
            for batch in loader:
                update_policy(tracker, policy, prepare(batch), optimizer, 10.0, accelerator)
                yield BATCH

    return steps(), parameters


def in_turns(works: dict[str, Iterator[int]], seconds: float, repeats: int) -> dict[str, float]:
    """Return the median samples/s of each, measured in turns after a warm-up."""
    for steps in works.values():
        for _ in range(3):
            next(steps)
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, steps in works.items():
            samples, start_s = 0, time.perf_counter()
            while time.perf_counter() - start_s < seconds:
                samples += next(steps)
            _wait()
            rates[name].append(samples / (time.perf_counter() - start_s))
    return {name: float(np.median(values)) for name, values in rates.items()}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    options = parse_options(__doc__ or "")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds, repeats = (1.0, 11) if options.quick else (2.0, 31)  # many short turns share the machine fairly
    kind = precision("auto", torch.device(device))
    source = Demonstrations(20 if options.quick else 206)
    unet = {"name": "diffusion", "network": {"name": "unet", "channels": list(CHANNELS)}}
    mlp = {"name": "flow"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "states"
        write_lerobot(source, root)
        works: dict[str, Callable[[], tuple[Iterator[int], int]]] = {
            "ours": lambda: ours(configuration(root, unet, BATCH, device))
        }
        for workers in (0, 2) if find_spec("lerobot") and find_spec("accelerate") else ():
            works[f"LeRobot, {workers} workers"] = lambda workers=workers: lerobot(root, workers, device)
        opened = {name: make() for name, make in works.items()}
        rates = in_turns({name: steps for name, (steps, _) in opened.items()}, seconds, repeats)
        best = max((name for name in rates if name != "ours"), key=lambda name: rates[name], default=None)
        sizes = "; ".join(f"{name}: {size / 1e6:.2f} M" for name, (_, size) in opened.items() if name in ("ours", best))
        rows.append(
            Row(
                "train_samples_per_s",
                "samples/s",
                rates["ours"],
                rates[best] if best else None,
                rates["ours"] / rates[best] if best else None,
                f"{source.what}; {device}, {kind} and LeRobot's fp32; parameters {sizes}",
            )
        )
        plain = configuration(root, mlp, 256, device)
        steps, size = ours(plain)
        rates = in_turns({"ours": steps, "bare": bare(plain)}, seconds, repeats)
        note = f"flow MLP, {size / 1e6:.2f} M parameters, batch 256; peer: bare loop"
        rows.append(
            Row("train_vs_bare", "samples/s", rates["ours"], rates["bare"], rates["ours"] / rates["bare"], note)
        )
    finish(rows, options)


if __name__ == "__main__":
    main()
