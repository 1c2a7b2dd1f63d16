"""Vision-language-action policies: training speed, and the time of one chunk by views, caches and depth.

Every row is of random weights, for time does not depend on them. On a GPU (bf16) the configurations are those of
SmolVLA (0.5 B) and π0 (3 B) with pictures of 224 px; without one the 50 M model of the same structure stands in, in
float32 on one thread and in processor time, which other processes change little. `--quick` takes few repeats of the
smallest model and fewer views.

decision     one policy call: pictures and prompt to a chunk, the prefix encoded once
uncached     the same chunk with the prefix encoded again in each of the ten solver steps (peer of `decision`)
cached       the chunk from a prefix that is already encoded: what a further draw of noise costs
exit         `decision` after half of the layers of the backbone and of the expert (peer: after all)
prompt       tokens of an instruction seen for the first time (peer) and of one seen before
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.benchmark import compare as compare_seconds
from robolearn.config import parse
from robolearn.policies.samplers import integrate
from robolearn.policies.vla import VLAConfig, VLAPolicy
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec

Batch = dict[str, torch.Tensor]
Work = Callable[[], object]

SIDE_PX, STATE, ACTION = 224, 8, 7
WORDS = 48  # tokens of the prompt
STEPS = 10  # of the solver
# Dense bf16, from the data sheets; elsewhere a large matrix product on the spot is the peak.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}


@dataclass(frozen=True)
class Model:
    """One configuration: the first `layers` of a family's size, under an expert."""

    family: str
    size: str
    options: Mapping[str, Any]
    expert: Mapping[str, Any]
    chunk: int
    layers: int
    batch: int


_SMALL_VISION = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
_SMALL_TEXT = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
MODELS = {
    "50m": Model(
        "smolvlm",
        "",
        {
            "vision_config": {**_SMALL_VISION, "image_size": SIDE_PX, "patch_size": 16},
            "text_config": {**_SMALL_TEXT, "model_type": "llama", "num_key_value_heads": 4, "vocab_size": 1024},
            "scale_factor": 2,
        },
        {"width": 256, "feed": 768},
        chunk=16,
        layers=8,
        batch=8,
    ),
    # SmolVLA: the first 16 of 32 layers, an expert of 0.75 of their width; 49 tokens for each view.
    "500m": Model(
        "smolvlm", "500m", {"scale_factor": 2}, {"width": 720, "feed": 2048, "cross_every": 2}, 50, layers=16, batch=32
    ),
    # π0: 256 tokens for each view, an expert of 0.3 B.
    "3b": Model("paligemma", "3b", {}, {"width": 1024, "feed": 4096, "activation": "gelu"}, 50, layers=18, batch=8),
}


def main(options: Options) -> None:
    """Measure what the machine can run."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    names = ["50m"] if options.quick or device.type == "cpu" else ["50m", "500m", "3b"]
    rows = [row for name in names for row in measure(name, device, options.quick)]
    finish([*rows, prompt_row()], options)


def measure(name: str, device: torch.device, quick: bool) -> Iterator[Row]:
    """Yield the rows of one model."""
    model, repeats = MODELS[name], 3 if quick or device.type == "cpu" else 30
    for views in (1, 2) if quick else (1, 2, 3):
        policy = build(model, views, device)
        yield from decision_rows(f"{name}_{views}v", policy, make_batch(policy, views, 1, device), repeats)
        if views == 2:
            size = sum(value.numel() for value in policy.parameters())
            yield Row(f"{name}_parameters", "M", size / 1e6)
            yield from training_rows(name, policy, make_batch(policy, views, 2 if quick else model.batch, device))
    early, whole = build(model, 2, device, stop=model.layers // 2), build(model, 2, device)
    batch, noise = make_batch(early, 2, 1, device), make_noise(early, device)
    ours, peer = compare(partial(decide, early, batch, noise), partial(decide, whole, batch, noise), repeats)
    note = f"after {model.layers // 2} of {model.layers} layers; peer: after all"
    yield Row(f"{name}_2v_exit_ms", "ms", 1e3 * ours, 1e3 * peer, peer / ours, note)


def compare(ours: Work, peer: Work | None, repeats: int) -> tuple[float, float]:
    """Return the median seconds of both (0 without a peer): by the wall's clock on a GPU, else by the processor's."""
    found = compare_seconds(ours, peer, repeats, time.perf_counter if torch.cuda.is_available() else time.process_time)
    return found[0], found[1] or 0.0


def build(model: Model, views: int, device: torch.device, stop: int = 0) -> VLAPolicy:
    """Return the policy with random weights, in bf16 on a GPU; it acts after layer `stop` (0: the last)."""
    base = resolve("backbone", model.family).SIZES[model.size]
    options = dict(base)
    for key, value in model.options.items():
        options[key] = {**options[key], **value} if isinstance(value, Mapping) else value
    if model.size == "500m":
        options["vision_config"] = {**options["vision_config"], "image_size": SIDE_PX}
    plain = {
        "name": "vla",
        "chunk": model.chunk,
        "backbone": {"name": model.family, "options": options, "layers": model.layers},
        "head": {"name": "flow", "steps": STEPS, "expert": model.expert},
        "state": "expert",
        "prompt": {"length": WORDS},
        "exits": [stop] if stop else [],
        "exit": stop,
    }
    pictures = {f"observation.images.{i}": Feature("image", (3, SIDE_PX, SIDE_PX)) for i in range(views)}
    rest = {"observation.state": Feature("signal", (STATE,)), "observation.prompt": Feature("text", (WORDS,), "int64")}
    spec = Spec({**pictures, **rest}, ActionSpec(ACTION), 10.0, 1, model.chunk)
    with torch.device(device):
        policy = parse(VLAConfig, plain, where="policy").build(spec)
    return policy.to(torch.bfloat16 if device.type == "cuda" else torch.float32).eval()


def make_batch(policy: VLAPolicy, views: int, size: int, device: torch.device) -> Batch:
    """Return `size` rows of noise for the policy, with chunks."""
    kind = next(policy.parameters()).dtype
    batch = {f"observation.images.{i}": torch.rand(size, 1, 3, SIDE_PX, SIDE_PX) for i in range(views)}
    batch["observation.state"] = torch.randn(size, 1, STATE)
    batch["action"] = torch.randn(size, policy.spec.chunk, ACTION)
    moved = {key: value.to(device, kind) for key, value in batch.items()}
    return moved | {"observation.prompt": torch.randint(0, 1000, (size, WORDS), device=device)}


def make_noise(policy: VLAPolicy, device: torch.device) -> torch.Tensor:
    """Return the noise of one decision."""
    return torch.randn(1, *policy.noise_shape, device=device, dtype=next(policy.parameters()).dtype)


def decision_rows(name: str, policy: VLAPolicy, batch: Batch, repeats: int) -> Iterator[Row]:
    """Yield the time of a chunk, beside encoding the prefix in each step, and from an encoded prefix."""
    noise = make_noise(policy, batch["action"].device)
    whole = partial(decide, policy, batch, noise)
    for warm in (whole, partial(decide_uncached, policy, batch, noise)):
        warm()
    ours, peer = compare(whole, partial(decide_uncached, policy, batch, noise), repeats)
    note = "peer: the prefix again in each solver step"
    yield Row(f"{name}_decision_ms", "ms", 1e3 * ours, 1e3 * peer, peer / ours, note)
    with torch.inference_mode():
        velocity = policy.flow_field(batch, 1)
    cached, _ = compare(partial(synchronised, lambda: integrate(velocity, noise, STEPS)), None, repeats)
    yield Row(f"{name}_cached_ms", "ms", 1e3 * cached, 1e3 * ours, ours / cached, "peer: the whole decision")


def decide(policy: VLAPolicy, batch: Batch, noise: torch.Tensor) -> None:
    """Make one chunk."""
    synchronised(lambda: policy.sample(batch, noise))


def decide_uncached(policy: VLAPolicy, batch: Batch, noise: torch.Tensor) -> None:
    """Make one chunk with the prefix encoded in each step."""

    def velocity(x: torch.Tensor, when: torch.Tensor) -> torch.Tensor:
        return policy.flow_field(batch, 1)(x, when)

    synchronised(lambda: integrate(velocity, noise, STEPS))


def synchronised(work: Work) -> None:
    """Run `work` without gradients to its end."""
    with torch.inference_mode():
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def training_rows(name: str, policy: VLAPolicy, batch: Batch) -> Iterator[Row]:
    """Yield samples/s, the share of the peak and memory of forward, backward and AdamW."""
    policy.train()
    optimizer = torch.optim.AdamW([value for value in policy.parameters() if value.requires_grad], 1e-5)

    def step() -> None:
        policy.loss(batch)[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds, _ = compare(step, None, 3)
    device = batch["action"].device
    peak, source = peak_flops(device)
    rows, size = f"batch {len(batch['action'])}, 2 views", len(batch["action"])
    yield Row(f"{name}_train_samples_per_s", "1/s", size / seconds, note=rows)
    share = counter.get_total_flops() / seconds / peak
    yield Row(f"{name}_train_mfu", "share", share, note=f"of {peak / 1e12:.3g} TFLOP/s, {source}")
    used = torch.cuda.max_memory_allocated() if device.type == "cuda" else getrusage(RUSAGE_SELF).ru_maxrss * 1024
    yield Row(f"{name}_train_memory_gb", "GB", used / 1e9, note="peak, of the process on a CPU")
    policy.eval()


def peak_flops(device: torch.device) -> tuple[float, str]:
    """Return the peak of the device [FLOP/s] and where it is from."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)
        if known is not None:
            return known, "data sheet"
    size = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    left = torch.randn(size, size, device=device, dtype=kind)
    seconds, _ = compare(partial(synchronised, lambda: left @ left), None, 5)
    return 2 * size**3 / seconds, "a matrix product on the spot"


def prompt_row() -> Row:
    """Return the time of the tokens of a prompt, remembered and new."""
    texts = [f"put the {colour} cube in bin {i}" for colour in ("red", "green", "blue") for i in range(100)]
    transform = resolve("transform", "tokenize_prompt")("task", length=WORDS)
    transform = transform.fit(iter([{"task": texts}]))
    transform.forward({"task": texts[:1]})
    fresh = iter(texts[1:])
    ours, peer = compare(
        lambda: transform.forward({"task": texts[:1]}), lambda: transform.forward({"task": [next(fresh)]}), 100
    )
    return Row("prompt_us", "µs", 1e6 * ours, 1e6 * peer, peer / ours, "peer: an instruction not seen")


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
