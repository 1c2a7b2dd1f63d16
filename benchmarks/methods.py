"""Every method on one task: success with its interval beside flow at equal training, and the time of a decision.

Training is not part of it. The full run reads what these commands left (TASK is pick_place, lift or pusht),

    robolearn collect …                                      # the demonstrations: see configs/methods/TASK.yaml
    robolearn reproduce methods_TASK_METHOD out=outputs/methods_TASK_METHOD      # one per row, flow first

and evaluates further samplers, rankings and compositions of their weights on the same episodes; what it evaluated is
kept beside the runs, so an interrupted run goes on. It writes docs/methods.md and docs/images/methods.svg.
`--quick` evaluates the small checkpoint that lies beside, on few episodes, and writes neither. ROBOLEARN_RUNS names
another folder than `outputs`. A latency is the median processor time of one decision (batch 1, one thread,
transforms included), which other processes on the machine do not change much.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import torch

import robolearn
from robolearn.actor import PolicyActor, make_actor
from robolearn.benchmark import Options, Row, finish, parse_options, runs_folder
from robolearn.config import parse
from robolearn.errors import RobolearnError
from robolearn.evaluation import EvalConfig, evaluate, summarise, write_json
from robolearn.files import read_json
from robolearn.intervals import Interval, mcnemar, paired_difference, wilson
from robolearn.policies.compose import Composition
from robolearn.policies.ranked import RankedConfig, RankedPolicy
from robolearn.rollout import Outcome

ROOT = Path(__file__).resolve().parent.parent
SMALL = Path(__file__).parent / "checkpoints" / "pusht_flow"
TASKS = {
    "pick_place": "Cube into a bin, 200 scripted demonstrations",
    "lift": "robosuite's Lift, exact, 200 scripted demonstrations",
    "pusht": "Push-T, 206 human demonstrations",
}

# run → what it is; the order of the table
METHODS = {
    "flow": "flow matching, 4 steps",
    "diffusion": "diffusion, DDIM-10",
    "beso": "score-based (BESO), 3 steps",
    "meanflow": "MeanFlow, 1 evaluation",
    "meanflow_wide": "MeanFlow, 1 evaluation, wider network",
    "diffusion_wide": "diffusion, DDIM-10, wider network",
    "consistency_wide": "consistency distilled from that, 1 step",
    "meanflow_logit": "MeanFlow, 1 evaluation, times of its paper",
    "consistency": "consistency distilled from flow, 1 step",
    "streaming": "streaming, 2 evaluations",
    "flow_spline": "flow over B-splines (BEAST, continuous)",
    "tokens_beast": "BEAST tokens, parallel",
    "tokens_fast": "FAST tokens, autoregressive",
    "act": "ACT",
    "oft": "L1, parallel decoding (OFT)",
    "regression": "L1 regression, MLP",
    "ptp": "past-token prediction, 16 observations",
    "flow_history16": "flow, 16 observations",
    "flow_short": "flow matching, 4 steps, a quarter of the training",
    "diffusion_short": "diffusion, DDIM-10, a quarter of the training",
}

# (task, row) → why it is below 0.8 of flow
NOTES = {
    ("pick_place", "regression"): "A deterministic policy predicts the median action, and at poses that the "
    "demonstrations leave within a step or two that is to stay; after an eighth of this training it never closed its "
    "gripper. Samples of the other methods get out of it.",
    ("pick_place", "oft"): "As `regression`: within a millimetre of the cube it predicts to stay.",
    ("pick_place", "tokens_beast"): "0.15 M parameters do not fit this budget (2.2 nats a token at its end), and "
    "tokens decoded all at once do not know of each other.",
    ("pick_place", "tokens_fast"): "0.27 M parameters do not fit this budget either (1.8 nats a token at its end, "
    "still falling); tokens that know of each other still do better than `tokens_beast`.",
    ("pick_place", "flow1"): "One Euler step from noise ends at the mean of all chunks, which is nearly to stay.",
    ("pick_place", "warm"): "Four of six failures that were looked at wait within a millimetre of the cube and never "
    "close: the old chunk's way to stay open survives the noise that is added. On Lift it costs nothing.",
}


@dataclass(frozen=True)
class Variant:
    """Another way to act with trained weights: options of the policy, of the evaluation, or a wrapper."""

    label: str
    run: str
    policy: Mapping[str, Any] | None = None
    execution: Mapping[str, Any] | None = None
    around: Callable[["Variant", Path], PolicyActor] | None = None
    episodes: int = 200
    beside: str = ""  # the other run of a composition

    @property
    def plain(self) -> bool:
        """Whether the run itself was evaluated in this way."""
        return not (self.policy or self.execution or self.around)

    def actor(self, runs: Path, task: str) -> PolicyActor:
        folder = runs / f"methods_{task}_{self.run}"
        return self.around(self, folder) if self.around else robolearn.load(folder, policy=self.policy)


@dataclass(frozen=True)
class Cell:
    """One row of the table; `outcomes` are of the episodes 0, 1, 2, …"""

    name: str
    label: str
    outcomes: tuple[bool, ...]
    score: Interval
    latency_ms: float
    parameters: int
    trained: str

    @property
    def success(self) -> Interval:
        return wilson(sum(self.outcomes), len(self.outcomes))


def ranked(variant: Variant, folder: Path) -> PolicyActor:
    """Return the flow policy that draws eight chunks and keeps the one that agrees best with the chunk before."""
    inner = robolearn.load(folder)
    config = parse(RankedConfig, {"policy": {"name": "flow"}, "samples": 8, "frozen": 0})
    return make_actor(RankedPolicy(config, inner.policy), inner.pipeline, inner.spec)


def composed(variant: Variant, folder: Path) -> PolicyActor:
    """Return the mixture of two policies' velocities, half and half."""
    other = folder.with_name(folder.name.removesuffix(variant.run) + variant.beside)
    first, second = robolearn.load(folder), robolearn.load(other)
    return make_actor(Composition([first.policy, second.policy], [0.5, 0.5], steps=8), first.pipeline, first.spec)


VARIANTS = {
    "flow1": Variant("flow matching, 1 step", "flow", {"steps": 1}),
    "flow8": Variant("flow matching, 8 steps", "flow", {"steps": 8}, episodes=500),
    "dpm5": Variant("diffusion, DPM-Solver++, 5 steps", "diffusion", {"sampler": {"name": "dpm_solver", "steps": 5}}),
    "ddim10": Variant("diffusion, DDIM-10", "diffusion", {}, episodes=500),
    "ddpm100": Variant("diffusion, DDPM-100", "diffusion", {"sampler": {"name": "ddpm", "steps": 100}}),
    "meanflow1": Variant("MeanFlow, 1 evaluation", "meanflow", {}, episodes=500),
    "warm": Variant("flow, warm start, 2 evaluations", "flow", {"prefix": {"name": "warm"}}, {"continuity": "rest"}),
    "act_blend": Variant("ACT, temporal ensembling", "act", {}, {"execute": 1, "continuity": "blend"}),
    "ranked": Variant("flow, of 8 samples the most coherent", "flow", None, {"continuity": "rest"}, ranked),
    "composed": Variant(
        "composition of flow and diffusion, 8 steps", "flow", around=composed, episodes=500, beside="diffusion"
    ),
    "meanflow_wide1": Variant("MeanFlow, 1 evaluation, wider network", "meanflow_wide", {}, episodes=500),
    "ddim10_wide": Variant("diffusion, DDIM-10, wider network", "diffusion_wide", {}, episodes=500),
    "flow8_short": Variant(
        "flow matching, 8 steps, a quarter of the training", "flow_short", {"steps": 8}, episodes=500
    ),
    "ddim10_short": Variant("diffusion, DDIM-10, a quarter of the training", "diffusion_short", {}, episodes=500),
    "composed_short": Variant(
        "composition of those two, 8 steps", "flow_short", around=composed, episodes=500, beside="diffusion_short"
    ),
}
PAIRS = (
    ("ddim10", "meanflow1"), ("ddim10_wide", "meanflow_wide1"), ("flow8", "composed"), ("ddim10", "composed"),
    ("flow8_short", "composed_short"), ("ddim10_short", "composed_short"),
)  # fmt: skip


def main(options: Options) -> None:
    """Print the table, and write it where the full run was asked for."""
    torch.set_num_threads(1)
    runs = runs_folder()
    if options.quick:
        finish(list(quick_rows()), options)
        return
    tables = {task: cells for task in TASKS if (cells := list(read_cells(runs, task)))}
    if not tables:
        raise SystemExit(f"There are no runs in {runs}: see the head of {Path(__file__).name}.")
    (ROOT / "docs" / "methods.md").write_text(markdown(tables))
    (ROOT / "docs" / "images" / "methods.svg").write_text(plot(next(iter(tables.values()))))
    finish([row for task, cells in tables.items() for row in rows_of(task, cells)], options)


def quick_rows() -> Iterator[Row]:
    """Yield success and latency of one small checkpoint with one and four steps, 20 episodes, a subset."""
    env = robolearn.make_env("pusht", 20)
    for steps in (1, 4):
        actor = robolearn.load(SMALL, policy={"steps": steps})
        found = evaluate(actor, env, EvalConfig(episodes=20, num_envs=20, execute=4, temperature=0.5))
        note = f"[{found.success.low:.2f}, {found.success.high:.2f}], 20 episodes"
        yield Row(f"pusht_flow{steps}_success", "rate", found.success.value, note=note)
        yield Row(f"pusht_flow{steps}_latency_ms", "ms", latency_ms(actor, 50))
    env.close()


def read_cells(runs: Path, task: str) -> Iterator[Cell]:
    """Yield the trained rows of a task, then the variants whose weights are there."""
    for method, label in METHODS.items():
        folder = runs / f"methods_{task}_{method}"
        if (folder / "result.json").is_file():
            yield cell(method, label, folder, read_json(folder / "result.json", RobolearnError))
    for name, variant in VARIANTS.items():
        needed = (variant.run, variant.beside or variant.run)
        if all((runs / f"methods_{task}_{part}" / "result.json").is_file() for part in needed):
            yield evaluated(runs, task, name, variant)


def cell(name: str, label: str, folder: Path, result: Mapping[str, Any], actor: PolicyActor | None = None) -> Cell:
    """Return the row of an evaluation's `result`, of the weights in `folder`; latency is measured once."""
    actor = actor or robolearn.load(folder)
    kept = folder / f"latency_{name}.json"
    if not kept.is_file():
        write_json(kept, {"ms": latency_ms(actor)})
    ran = read_json(folder / "result.json", RobolearnError)
    train = ran["config"]["train"]
    return Cell(
        name,
        label,
        tuple(outcome["success"] for outcome in result["outcomes"]),
        Interval(*(result["score"][key] for key in ("value", "low", "high"))),
        read_json(kept, RobolearnError)["ms"],
        sum(value.numel() for value in actor.policy.parameters()),
        f"{train['steps']:,} × {train['batch_size']}",
    )


def evaluated(runs: Path, task: str, name: str, variant: Variant) -> Cell:
    """Return the row of a variant, evaluated now unless it was before."""
    folder = runs / f"methods_{task}_{variant.run}"
    kept = folder / f"variant_{name}.json"
    actor = variant.actor(runs, task)
    if not kept.is_file():
        outcomes = outcomes_of(variant, actor, read_json(folder / "result.json", RobolearnError))
        score = summarise(outcomes, 1.0).score
        write_json(kept, {"outcomes": [asdict(outcome) for outcome in outcomes], "score": score._asdict()})
    return cell(name, variant.label, folder, read_json(kept, RobolearnError), actor)


def outcomes_of(variant: Variant, actor: PolicyActor, ran: Mapping[str, Any]) -> list[Outcome]:
    """Return the outcomes of a variant of the run whose result is `ran`, which may hold them already."""
    if variant.plain and len(ran["outcomes"]) >= variant.episodes:
        return [parse(Outcome, outcome) for outcome in ran["outcomes"][: variant.episodes]]
    options = {**ran["config"]["eval"], "episodes": variant.episodes, **(variant.execution or {})}
    config, described = parse(EvalConfig, options), dict(ran["config"]["env"])
    env = robolearn.make_env(described.pop("name"), config.num_envs, described)
    try:
        return list(evaluate(actor, env, config).outcomes)
    finally:
        env.close()


def latency_ms(actor: PolicyActor, calls: int = 100) -> float:
    """Return the median processor milliseconds of single decisions, transforms included."""
    single = PolicyActor(actor.policy, actor.pipeline, actor.spec, microbatch=1)
    obs = {
        key: np.array(["move it"]) if f.kind == "text" else np.full((1, actor.spec.history, *f.shape), 0.5, np.float32)
        for key, f in actor.spec.observations.items()
    }
    noise = np.zeros((1, *actor.noise_shape), np.float32)
    times_ms = []
    for _ in range(calls + 10):
        start_s = time.thread_time()
        single.act(obs, noise)
        times_ms.append(1e3 * (time.thread_time() - start_s))
    return float(np.median(times_ms[10:]))


def rows_of(task: str, cells: list[Cell]) -> Iterator[Row]:
    """Yield success beside flow's and latency of each cell, and the paired comparisons."""
    base = next((found for found in cells if found.name == "flow"), None)
    for found in cells:
        success = found.success
        note = (
            f"[{success.low:.3f}, {success.high:.3f}], {len(found.outcomes)} episodes; {found.label}; {found.trained}"
        )
        peer = base.success.value if base else None
        ratio = success.value / peer if peer else None
        yield Row(f"{task}_{found.name}_success", "rate", success.value, peer, ratio, note)
        yield Row(f"{task}_{found.name}_latency_ms", "ms", found.latency_ms, note=f"{found.parameters:,} parameters")
    for name, gap, note in comparisons(cells):
        yield Row(f"{task}_{name}", "rate", gap.value, note=note)


def comparisons(cells: list[Cell]) -> Iterator[tuple[str, Interval, str]]:
    """Yield name, difference and a sentence of each of `PAIRS` that is there."""
    named = {found.name: found for found in cells}
    for one, other in PAIRS:
        if one in named and other in named:
            gap, chance, count = paired(named[one], named[other])
            numbers = f"[{gap.low:+.3f}, {gap.high:+.3f}], {count} paired episodes, McNemar p {chance:.2g}"
            yield f"{other}_over_{one}", gap, f"{other} - {one}: {numbers}"


def paired(one: Cell, other: Cell) -> tuple[Interval, float, int]:
    """Return the difference other - one over their common episodes, its p-value, and their number."""
    count = min(len(one.outcomes), len(other.outcomes))
    first, second = one.outcomes[:count], other.outcomes[:count]
    return paired_difference(first, second), mcnemar(first, second), count


def markdown(tables: Mapping[str, list[Cell]]) -> str:
    """Return the page with one table per task."""
    lines = [
        "# Methods",
        "",
        "Written by `python benchmarks/methods.py`: success over unseen seeds that no choice used (95 % Wilson",
        "interval), beside `flow` after equal training (optimizer steps × batch), and the processor time of one",
        "decision at batch 1. Only rows whose runs were there are in it.",
        "",
        "![Success over latency](images/methods.svg)",
    ]
    for task, cells in tables.items():
        base = next((found for found in cells if found.name == "flow"), cells[0])
        lines += [
            *("", f"## {TASKS[task]}", ""),
            "| method | row | success | episodes | of flow | paired difference | score | ms | parameters | trained |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for found in cells:
            success, gap = found.success, paired(base, found)[0]
            lines.append(
                f"| {found.label} | `{found.name}` | {success.value:.1%} [{success.low:.1%}, {success.high:.1%}] "
                f"| {len(found.outcomes)} | {success.value / max(base.success.value, 1e-9):.2f} "
                f"| {gap.value:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}] | {found.score.value:.3f} "
                f"| {found.latency_ms:.2f} | {found.parameters / 1e6:.2f} M | {found.trained} |"
            )
        lines += [f"\n`{name}`: {gap.value:+.3f}, {note}" for name, gap, note in comparisons(cells)]
        notes = [f"`{found.name}`: {NOTES[task, found.name]}" for found in cells if (task, found.name) in NOTES]
        lines += [line for note in notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def plot(cells: list[Cell], width: int = 860, height: int = 480) -> str:
    """Return an SVG of success (with intervals) over the latency on a logarithmic axis."""
    times = [log10(found.latency_ms) for found in cells]
    low, high = min(times) - 0.15, max(times) + 0.45
    left, right, top, bottom = 60, width - 20, 20, height - 50

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 1)

    def y(rate: float) -> float:
        return round(bottom - rate * (bottom - top), 1)

    drawn = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for rate in (0, 0.2, 0.4, 0.6, 0.8, 1):
        drawn.append(f'<line x1="{left}" x2="{right}" y1="{y(rate)}" y2="{y(rate)}" stroke="#ddd"/>')
        drawn.append(f'<text x="{left - 8}" y="{y(rate) + 4}" text-anchor="end">{rate:.0%}</text>')
    marks = [mark for mark in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low < log10(mark) < high]
    drawn += [f'<text x="{x(log10(mark))}" y="{bottom + 18}" text-anchor="middle">{mark:g}</text>' for mark in marks]
    drawn.append(f'<text x="{(left + right) / 2}" y="{height - 12}" text-anchor="middle">ms per decision</text>')
    for number, (found, place) in enumerate(sorted(zip(cells, times, strict=True), key=lambda pair: pair[1])):
        success = found.success
        at, rate = x(place), y(success.value)
        drawn.append(f'<line x1="{at}" x2="{at}" y1="{y(success.low)}" y2="{y(success.high)}" stroke="#8ab"/>')
        drawn.append(f'<circle cx="{at}" cy="{rate}" r="4" fill="#257"><title>{found.label}</title></circle>')
        lift = 14 + 13 * (number % 4)
        drawn.append(f'<text x="{at + 5}" y="{rate + lift}" font-size="11" fill="#444">{found.name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">{"".join(drawn)}</svg>\n'
    )


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
