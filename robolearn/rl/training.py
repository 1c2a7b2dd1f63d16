"""The one loop of reinforcement learning: collect and learn, evaluate on selection seeds, keep the best, save.

A round runs a fixed list of episodes to their ends, so no episode is in flight when a checkpoint is
written, and a resumed run continues bit for bit (CPU). Checkpoints publish the best policy so far; the
learner's own state lies beside it.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import checkpoint
from robolearn.actor import load, make_actor
from robolearn.api import open_dataset
from robolearn.checkpoint import Checkpoint, TrainingState
from robolearn.config import config_hash, parse, to_dict
from robolearn.contracts import EpisodeSource, VectorEnv
from robolearn.errors import CheckpointError, ConfigError, EnvError, suggest
from robolearn.evaluation import EvalConfig, EvalResult, evaluate
from robolearn.files import plain_json, write_file
from robolearn.intervals import mcnemar, paired_difference
from robolearn.metrics import MetricsLog
from robolearn.provenance import provenance
from robolearn.registry import configure, resolve
from robolearn.rl.algorithm import Algorithm, Problem
from robolearn.rl.collect import REWARDS, GroupedStarts, Reward, Trajectories, Trajectory, demonstrations
from robolearn.rl.rewards import LEARNED, LearnedReward
from robolearn.rollout import steps
from robolearn.seeding import derive_seed
from robolearn.spec import Spec, require
from robolearn.training import stop_signals

__all__ = [
    "DemonstrationConfig",
    "LoopConfig",
    "RLConfig",
    "RLResult",
    "compare",
    "curriculum_levels",
    "env_options",
    "finetune",
    "parse_rl",
]

Advance = Callable[[int, str], None]

_FREE = {"steps", "enough", "save_every", "keep", "resume"}  # what may differ between a run and its continuation


@dataclass(frozen=True)
class DemonstrationConfig:
    """Recorded episodes that learning starts from, in any format; the first `episodes`, or all."""

    path: str
    kind: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    episodes: int | None = None


@dataclass(frozen=True)
class LoopConfig:
    """How long, how wide, and how the best policy is chosen. Selection steps are not counted as `steps`."""

    steps: int = 50_000  # of the environment, over all rows
    rows: int = 16
    round_episodes: int = 32
    group: int = 1  # episodes in a row that start alike, for advantages within a group
    curriculum: bool = False  # collection meets `env.perturb` level by level, in equal parts of the steps
    reward: str = "sparse"
    select_every: int = 5_000
    select_episodes: int = 100
    select_seed: int = 50_000  # neither collection's seeds nor the final evaluation's
    enough: float | None = None  # success on the selection seeds that ends the run early
    save_every: int = 20_000
    keep: int = 1
    resume: str | None = None

    def __post_init__(self):
        counts = ("steps", "rows", "round_episodes", "group", "select_every", "select_episodes", "save_every", "keep")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"rl.{name} is too small.", found=getattr(self, name), expected="1 or more")
        if self.round_episodes % self.group:
            found = f"{self.round_episodes} episodes in groups of {self.group}"
            raise ConfigError("A round holds whole groups.", found=found, do="make rl.round_episodes a multiple")
        if self.reward not in (*REWARDS, *LEARNED):
            expected = suggest(self.reward, (*REWARDS, *LEARNED))
            raise ConfigError(f"Unknown reward '{self.reward}'.", expected=expected)


@dataclass(frozen=True)
class RLConfig:
    """Everything a run depends on. `algo` is the frozen config of a registered algorithm."""

    algo: Any
    ckpt: str
    env: Mapping[str, Any]
    demos: DemonstrationConfig | None = None
    rl: LoopConfig = field(default_factory=LoopConfig)
    eval: EvalConfig = field(default_factory=lambda: EvalConfig(episodes=500))
    seed: int = 0
    out: str | None = None


@dataclass(frozen=True)
class RLResult:
    """How a run ended; `best` is the success on the selection seeds of what the checkpoint publishes."""

    checkpoint: Path
    steps: int
    episodes: int
    best: float
    best_step: int
    minutes: float
    collect_s: float
    learn_s: float
    select_s: float
    demonstrations: int
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"checkpoint": str(self.checkpoint)}


def parse_rl(plain: Mapping[str, Any]) -> RLConfig:
    """Build an `RLConfig` from plain data; names are looked up in the registry, unknown keys are errors."""
    algo = plain.get("algo")
    if not isinstance(algo, Mapping) or not isinstance(algo.get("name"), str):
        raise ConfigError("A run needs an algorithm.", found=repr(algo), expected="algo: {name: residual, …}")
    config = configure("algo", algo, "algo")
    return parse(RLConfig, {**plain, "algo": config}, where="config")


def finetune(config: RLConfig, advance: Advance | None = None) -> RLResult:
    """Improve the clone `config.ckpt` in `config.env` into the folder `config.out`.

    Raises before the first step when clone, environment, demonstrations and algorithm do not fit.
    SIGTERM, SIGINT and SIGHUP end the run after the present round, with a checkpoint.
    """
    out = Path(config.out or ".")
    former = checkpoint.load(config.rl.resume) if config.rl.resume else None
    if former:
        _require_same_run(former, config)
    if config.rl.curriculum and not config.env.get("perturb"):
        found, do = "no axis in env.perturb", "set env.perturb={AXIS: LEVEL}"
        raise ConfigError("A curriculum needs something to lead to.", found=found, do=do)
    env = _build(config)
    run = None
    try:
        problem = _problem(config, env.spec)
        algorithm = config.algo.build(problem)
        run = _Run(config, out, env, problem, algorithm)
        if config.rl.resume and former:
            run.restore(former, checkpoint.load_training_state(config.rl.resume))
        else:
            run.start()
        with stop_signals() as stopped:
            return run.finish(stopped, advance or (lambda done, note: None))
    finally:
        if run is not None:
            run.close()
        env.close()


def compare(before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """Return the paired comparison of two evaluations on the same episodes."""
    first, second = ([outcome.success for outcome in result.outcomes] for result in (before, after))
    difference = paired_difference([float(x) for x in first], [float(x) for x in second])
    return {
        "before": before.success._asdict(),
        "after": after.success._asdict(),
        "difference": difference._asdict(),
        "mcnemar_p": mcnemar(first, second),
        "episodes": len(first),
    }


def env_options(config: RLConfig) -> dict[str, Any]:
    """Return the environment's options; the dense reward is asked for where its config can give one."""
    options = dict(config.env)
    if config.rl.reward == "dense":
        known = {field.name for field in dataclasses.fields(resolve("env", options["name"]))}
        options |= {"reward": "dense"} if "reward" in known else {}
    return options


def curriculum_levels(wanted: Mapping[str, int], share: float) -> dict[str, int]:
    """Return the levels of perturbation axes after a `share` of the steps: none at first, `wanted` in the last part.

    Every level up to the highest has an equal part; axes that need less wait at theirs.
    """
    stage = int(share * (max(wanted.values(), default=0) + 1))
    return {axis: min(level, stage) for axis, level in wanted.items()}


class _Run:
    """Counts, curves and checkpoints around one algorithm."""

    def __init__(self, config: RLConfig, out: Path, env: VectorEnv, problem: Problem, algorithm: Algorithm):
        self.config, self.out, self.env, self.problem, self.algorithm = config, out, env, problem, algorithm
        self.steps = self.episodes = self.rounds = self.demonstrations = 0
        self.best, self.best_step, self._best = -1.0, 0, {}
        self.selected = self.saved = 0  # steps at which that was last done
        self.spent = {"collect": 0.0, "learn": 0.0, "select": 0.0}  # seconds
        self.reward = _reward(config, problem)
        self._collecting = (dict(config.env.get("perturb") or {}), env)  # levels, and the environment that has them

    def start(self) -> None:
        """Take the demonstrations and measure the clone."""
        write_file(self.out / "run.json", plain_json(_description(self.config)))
        self._log = MetricsLog(self.out)
        if self.config.demos is not None:
            source, episodes = _recorded(self.config.demos, self.problem)
            explorer = self.algorithm.explorer(1, derive_seed(self.config.seed, "demonstrations"))
            dense = self.config.rl.reward == "dense"
            for trajectory in demonstrations(source, explorer, self.problem.actor.spec, episodes, dense):
                learned = isinstance(self.reward, LearnedReward)
                self.algorithm.demonstrate(self.reward.relabelled(trajectory) if learned else trajectory)
                self.demonstrations += 1
        self._select()

    def restore(self, former: Checkpoint, state: TrainingState) -> None:
        """Go on where a checkpoint was written."""
        counters = state.counters
        for name in ("steps", "episodes", "rounds", "demonstrations", "best", "best_step", "selected", "saved"):
            setattr(self, name, counters[name])
        self.spent, self._best = dict(counters["spent"]), dict(former.weights)
        self.algorithm.restore(state.weights, counters["algorithm"])
        self._log = MetricsLog(self.out, self.steps)

    def finish(self, stopped: Callable[[], bool], advance: Advance) -> RLResult:
        """Run rounds until the steps are spent or a signal came."""
        options, folder = self.config.rl, None
        try:
            while not self._over and not stopped():
                self._round(advance)
                if self.steps - self.selected >= options.select_every or self.steps >= options.steps:
                    self._select()
                if self.steps - self.saved >= options.save_every or self._over or stopped():
                    folder = self._save()
        finally:
            self._log.close()
        return RLResult(
            checkpoint=folder or self._save(),
            steps=self.steps,
            episodes=self.episodes,
            best=self.best,
            best_step=self.best_step,
            minutes=self.minutes,
            demonstrations=self.demonstrations,
            interrupted=not self._over,
            **{f"{name}_s": round(value, 1) for name, value in self.spent.items()},
        )

    @property
    def _over(self) -> bool:
        options = self.config.rl
        return self.steps >= options.steps or (options.enough is not None and self.best >= options.enough)

    @property
    def minutes(self) -> float:
        """Minutes spent so far, over all parts of a resumed run."""
        return sum(self.spent.values()) / 60

    def _round(self, advance: Advance) -> None:
        options, seed = self.config.rl, derive_seed(self.config.seed, "collect")
        collecting = self._stage()
        explorer = self.algorithm.explorer(collecting.num_envs, seed)
        trajectories = Trajectories(explorer, self.reward)
        episodes = range(self.episodes, self.episodes + options.round_episodes)
        found: list[Trajectory] = []
        metrics = _Means()
        mark_s = time.perf_counter()
        env = collecting if options.group == 1 else GroupedStarts(collecting, options.group, seed)
        for record in steps(env, explorer, episodes, seed):
            over = trajectories(record)
            for trajectory in over:
                self.algorithm.observe(trajectory)
            found += over
            self.steps += int(record.active.sum())
            mark_s = self._add("collect", mark_s)
            metrics.add(self.algorithm.update(self.steps, False))
            mark_s = self._add("learn", mark_s)
            if self.steps >= options.steps:
                break
            advance(self.steps, f"selection {self.best:.0%}  {self.minutes:.1f} min")
        metrics.add(self.algorithm.update(self.steps, True))
        self._add("learn", mark_s)
        self.episodes, self.rounds = episodes.stop, self.rounds + 1
        if found:
            success = float(np.mean([trajectory.success for trajectory in found]))
            lengths = float(np.mean([len(trajectory) for trajectory in found]))
            self._write({"collect_success": success, "length": lengths, "episodes": self.episodes, **metrics.result()})

    def _stage(self) -> VectorEnv:
        """Return what this round collects in: the environment, or an easier one of the curriculum."""
        options, wanted = self.config.rl, self.config.env.get("perturb") or {}
        if options.curriculum:
            levels = curriculum_levels(wanted, self.steps / options.steps)
            if levels != self._collecting[0]:
                self.close()
                easier = dataclasses.replace(self.config, env={**self.config.env, "perturb": levels})
                self._collecting = levels, self.env if levels == wanted else _build(easier)
        return self._collecting[1]

    def close(self) -> None:
        """Close what was built for the curriculum."""
        if self._collecting[1] is not self.env:
            self._collecting[1].close()

    def _select(self) -> None:
        """Evaluate the present policy on the selection seeds; keep it when none before was better."""
        options, start_s = self.config.rl, time.perf_counter()
        _, policy = self.algorithm.policy()
        actor = make_actor(policy, self.problem.actor.pipeline, self.problem.actor.spec)
        how = dataclasses.replace(self.config.eval, episodes=options.select_episodes, seed=options.select_seed)
        success = evaluate(actor, self.env, how).success.value
        policy.train()
        if success >= self.best:
            self.best, self.best_step = success, self.steps
            self._best = {name: value.detach().clone() for name, value in policy.state_dict().items()}
        self.selected = self.steps
        self._add("select", start_s)
        self._write({"success": success})

    def _save(self) -> Path:
        options, clone = self.config.rl, self.problem.clone
        plain, _ = self.algorithm.policy()
        tensors, counters = self.algorithm.state()
        self.saved = self.steps
        config = {**clone.config, "policy": dict(plain), "env": env_options(self.config), "rl": to_dict(self.config)}
        names = ("steps", "episodes", "rounds", "demonstrations", "best", "best_step", "selected", "saved", "spent")
        own = {name: getattr(self, name) for name in names}
        state = TrainingState(self.steps, tensors, {}, {}, {**own, "algorithm": dict(counters)})
        content = Checkpoint(config, clone.spec, clone.pipeline, self._best, self.steps)
        folder = checkpoint.save(self.out / "checkpoints" / f"step_{self.steps:09d}", content, state)
        checkpoint.prune(self.out, options.keep)
        return folder

    def _add(self, part: str, since_s: float) -> float:
        now_s = time.perf_counter()
        self.spent[part] += now_s - since_s
        return now_s

    def _write(self, values: Mapping[str, Any]) -> None:
        self._log.write(self.steps, {**values, "minutes": round(self.minutes, 3)})


class _Means:
    """Running means of metrics."""

    def __init__(self):
        self._sums: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._sums.setdefault(name, []).append(value)

    def result(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self._sums.items()}


def _build(config: RLConfig) -> VectorEnv:
    options = env_options(config)
    if not isinstance(options.get("name"), str):
        raise ConfigError("env has no name.", found=options, expected="name: …", do="pick one: env=NAME")
    env = configure("env", options, "env").build(config.rl.rows)
    _, info = env.reset(seed=[0] * env.num_envs)
    if "success" not in info:
        env.close()
        raise EnvError(
            f"'{options['name']}' does not say what success is.",
            found=f"info has {', '.join(sorted(info)) or 'nothing'}",
            expected="info['success'] [E]",
            do="use an environment that reports it",
        )
    return env


def _problem(config: RLConfig, spec: Spec) -> Problem:
    clone = checkpoint.load(config.ckpt)
    actor = load(config.ckpt)
    require(spec, actor.spec, ("environment", "policy"))
    sparse = config.rl.reward == "sparse"
    return Problem(
        clone, actor, spec, config.eval, config.rl.steps, config.seed, sparse, config.rl.group, config.demos is not None
    )


def _recorded(demos: DemonstrationConfig, problem: Problem) -> tuple[EpisodeSource, range]:
    """Return the demonstrations and the numbers of those that count."""
    source = open_dataset(demos.path, demos.kind, demos.options)
    require(source.spec, problem.actor.spec, ("demonstrations", "policy"))
    return source, range(min(len(source.lengths), demos.episodes or len(source.lengths)))


def _reward(config: RLConfig, problem: Problem) -> Reward:
    name = config.rl.reward
    if name in REWARDS:
        return REWARDS[name]
    if config.demos is None:
        raise ConfigError(f"The reward '{name}' is learned.", found="no demonstrations", do="set demos.path=DATASET")
    return LearnedReward(name, problem, *_recorded(config.demos, problem))


def _description(config: RLConfig) -> dict[str, Any]:
    return {"config": to_dict(config), "config_hash": config_hash(config), **provenance()}


def _require_same_run(former: Checkpoint, config: RLConfig) -> None:
    """Raise unless `config` continues the run of `former`."""
    before, now = former.config.get("rl"), to_dict(config)
    if not isinstance(before, Mapping):
        raise CheckpointError("This checkpoint is not of an rl run.", do="name one in rl.resume")
    before, now = ({**plain, "rl": _fixed(plain["rl"])} for plain in (before, now))
    differences = [
        f"{key}: {before.get(key)!r} then, {now[key]!r} now"
        for key in now
        if key != "out" and before.get(key) != now[key]
    ]
    if differences:
        raise ConfigError(
            "This is not the run that the checkpoint belongs to.",
            found="; ".join(differences),
            expected=f"the same config but for out and {', '.join(f'rl.{name}' for name in sorted(_FREE))}",
        )


def _fixed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _FREE}
