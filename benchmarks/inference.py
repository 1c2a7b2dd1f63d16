"""Milliseconds for one action chunk at batch 1 on the CPU, by policy and number of steps; LeRobot beside.

Weights are random: latency does not depend on them. Every row is the median of interleaved calls of
`policy.sample` (encoder included, normalisation not), with the 99th percentile in the note.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.config import parse
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec

STATE = Spec({"observation.state": Feature("signal", (22,))}, ActionSpec(5), 20.0)
LIFT = Spec({"observation.state": Feature("signal", (53,))}, ActionSpec(7), 20.0)
PUSHT = Spec(
    {"observation.state": Feature("signal", (2,)), "observation.image": Feature("image", (3, 96, 96))},
    ActionSpec(2),
    10.0,
)
CHANNELS = (128, 256, 512)
WIDE = {"name": "mlp", "width": 768}  # of the rows on Lift in docs/methods.md

Call = Callable[[], Tensor]


def main(options: Options) -> None:
    """Run all rows and print them."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second thread costs more than it gives at batch 1
    rows = small_rows(rounds=100 if options.quick else 1000, many=10 if options.quick else 60)
    rows += peer_rows(rounds=2 if options.quick else 15)
    finish(rows, options)


def small_rows(rounds: int, many: int) -> list[Row]:
    """The MLP on state: one step to a hundred; one step against ten on Lift, with its wider network."""
    ddim, ddpm = {"name": "ddim", "steps": 10}, {"name": "ddpm", "steps": 100}
    calls = {
        "flow1_ms": ours(STATE, {"name": "flow", "steps": 1}),
        "flow4_ms": ours(STATE, {"name": "flow", "steps": 4}),
        "flow8_ms": ours(STATE, {"name": "flow", "steps": 8}),
        "ddpm100_ms": ours(STATE, {"name": "diffusion", "sampler": ddpm}),
    }
    times = interleave({key: call for key, (call, _) in calls.items()}, rounds, slow={"ddpm100_ms": rounds // many})
    # Alone and in blocks: what is compared is one evaluation with ten, not whose weights lay in a cache.
    pair = {
        "onestep_ms": ours(LIFT, {"name": "meanflow", "steps": 1, "history": 1, "network": WIDE}),
        "ddim10_ms": ours(LIFT, {"name": "diffusion", "sampler": ddim, "history": 1, "network": WIDE}),
    }
    times |= interleave({key: call for key, (call, _) in pair.items()}, max(2, rounds // 50), {}, block=50)
    calls |= pair
    rows = [row(key, times[key], None, note=f"MLP, {calls[key][1]:,} parameters") for key in times]
    against = Row(
        "onestep_ddim10_ms",
        "ms",
        median(times["onestep_ms"]),
        median(times["ddim10_ms"]),
        median(times["ddim10_ms"]) / median(times["onestep_ms"]),
        "MeanFlow, one evaluation, against DDIM-10 of the same network (peer); success: methods.json, lift",
    )
    return [*rows, against]


def peer_rows(rounds: int) -> list[Row]:
    """Diffusion (U-Net, DDIM-10) and ACT on 96×96 images and state beside LeRobot's, equal sizes."""
    unet = {"name": "unet", "channels": list(CHANNELS), "film_scale": True}
    diffusion, size = ours(
        PUSHT,
        {"name": "diffusion", "network": unet, "sampler": {"name": "ddim", "steps": 10}, "action_norm": "min_max"},
    )
    act, act_size = ours(PUSHT, {"name": "act", "layers": {"width": 512, "heads": 8, "feed_width": 3200}})
    lerobot_diffusion, peer_size = lerobot("diffusion")
    lerobot_act, peer_act_size = lerobot("act")
    times = interleave(
        {"unet": diffusion, "unet_peer": lerobot_diffusion, "act": act, "act_peer": lerobot_act}, rounds, slow={}
    )
    note = f"ResNet-18 and U-Net, DDIM-10, {size:,} parameters; LeRobot {peer_size:,}"
    act_note = f"ResNet-18 and transformer, {act_size:,} parameters; LeRobot {peer_act_size:,}"
    return [
        row("diffusion_unet_ddim10_ms", times["unet"], times["unet_peer"], note),
        row("act_ms", times["act"], times["act_peer"], act_note),
    ]


def ours(spec: Spec, options: Mapping[str, Any]) -> tuple[Call, int]:
    """Return one decision of a policy, and its parameters."""
    config = parse(resolve("policy", options["name"]), options)
    policy = config.build(spec).eval()
    obs = {key: torch.rand(1, config.history, *feature.shape) for key, feature in spec.observations.items()}
    noise = torch.randn(1, *policy.noise_shape)
    return lambda: policy.sample(obs, noise), sum(p.numel() for p in policy.parameters())


def lerobot(name: str) -> tuple[Call, int]:
    """Return one decision of LeRobot's policy of that name, and its parameters."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config

    sizes = {
        "diffusion": {"horizon": 16, "down_dims": CHANNELS, "crop_shape": (84, 84), "num_inference_steps": 10}
        | {"noise_scheduler_type": "DDIM"},
        "act": {},
    }
    options = make_policy_config(
        name,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
        pretrained_backbone_weights=None,
        **sizes[name],
    )
    policy: Any = get_policy_class(name)(options).eval()
    history = (1, 2) if name == "diffusion" else (1,)
    image = torch.rand(*history, 3, 96, 96)
    batch = {"observation.state": torch.rand(*history, 2)}
    if name == "diffusion":
        batch["observation.images"] = image[:, :, None]
        return lambda: policy.diffusion.generate_actions(batch), sum(p.numel() for p in policy.parameters())
    batch["observation.image"] = image
    return lambda: policy.predict_action_chunk(batch), sum(p.numel() for p in policy.parameters())


def interleave(
    calls: Mapping[str, Call], rounds: int, slow: Mapping[str, int], block: int = 1
) -> dict[str, np.ndarray]:
    """Return milliseconds [n] per call, the calls taking turns of `block`; `slow` ones run less often."""
    times: dict[str, list[float]] = {key: [] for key in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()
        for number in range(rounds):
            for key, call in calls.items():
                if number % max(1, rounds // slow.get(key, rounds)):
                    continue
                for _ in range(block):
                    start_s = time.perf_counter()
                    call()
                    times[key].append((time.perf_counter() - start_s) * 1e3)
    return {key: np.array(values) for key, values in times.items()}


def median(values_ms: np.ndarray) -> float:
    """Return the median."""
    return float(np.median(values_ms))


def row(name: str, ours_ms: np.ndarray, peer_ms: np.ndarray | None, note: str) -> Row:
    """Return one row; the ratio is peer over ours."""
    peer = None if peer_ms is None else median(peer_ms)
    ratio = None if peer is None else peer / median(ours_ms)
    return Row(name, "ms", median(ours_ms), peer, ratio, f"{note}; p99 {np.percentile(ours_ms, 99):.3g} ms")


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
