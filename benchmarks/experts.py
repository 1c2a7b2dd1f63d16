"""Every scripted expert and the random policy beside it; the full run also writes docs/experts.md.

`--quick` takes 16 episodes of the own tasks.
"""

from pathlib import Path

from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from robolearn.api import make_env
from robolearn.benchmark import Row, finish, parse_options
from robolearn.envs.exact.experts import EXPERTS
from robolearn.envs.suite import TASKS
from robolearn.intervals import wilson
from robolearn.rollout import ExpertController, Outcome, RandomController, rollout

SEED = 20_000
ROWS = 32
NAMES = (
    *(task if task.startswith("pick_place") else f"robolearn/{task}" for task in TASKS),
    "aloha/insertion",
    "aloha/transfer_cube",
    "gym/gym_hil/PandaPickCubeBase-v0",
    *(f"robosuite/{task}" for task in EXPERTS),
    *(f"metaworld/{task}" for task in ALL_V3_ENVIRONMENTS),
)
DOCUMENT = Path(__file__).parents[1] / "docs" / "experts.md"
HEAD = """# Scripted experts

Written by `python benchmarks/experts.py`. Success over 200 episodes, 100 of `metaworld/*` (95 % Wilson interval), mean
length of successful ones in control steps (50 ms; 20 ms for `aloha/*`, 12.5 ms for `metaworld/*`), and the success of
uniformly random actions within the bounds over half as many episodes. Meta-World's experts are its own scripts;
`robosuite/*` are the exact tasks.

| task | instruction (example) | expert | interval | mean length | random |
|---|---|---|---|---|---|
"""


def run(name: str, episodes: int) -> tuple[list[Outcome], list[Outcome], str]:
    """Return the outcomes of the expert and of random actions, and one instruction."""
    script = EXPERTS.get(name.removeprefix("robosuite/"))
    env = make_env(name, min(ROWS, episodes), {"max_steps": script.max_steps} if script else {})
    obs, _ = env.reset(seed=list(range(env.num_envs)))
    demonstrator = getattr(env, "expert")()  # noqa: B009 - beyond the contract of an environment
    expert = rollout(env, ExpertController(demonstrator, SEED), range(episodes), SEED)
    chance = rollout(env, RandomController(env, SEED), range((episodes + 1) // 2), SEED)
    env.close()
    return expert, chance, str(obs["task"][0]) if "task" in obs else ""


def main() -> None:
    options = parse_options(__doc__ or "")
    rows, lines = [], []
    for name in NAMES:
        of_peer = name.startswith("metaworld")
        if options.quick and of_peer:
            continue
        episodes = 16 if options.quick else 100 if of_peer else 200
        task = name.replace("/", "_").removeprefix("robolearn_")
        expert, chance, instruction = run(name, episodes)
        good = [outcome for outcome in expert if outcome.success]
        rate, lucky = len(good) / episodes, sum(outcome.success for outcome in chance) / len(chance)
        interval = wilson(len(good), episodes)
        length = sum(outcome.length for outcome in good) / max(len(good), 1)
        rows.append(Row(f"{task}_success", "share", rate, note=f"{episodes} episodes"))
        rows.append(Row(f"{task}_random", "share", lucky, note=f"uniform random actions, {len(chance)} episodes"))
        lines.append(
            f"| `{name}` | {instruction} | {100 * rate:.1f} % | {100 * interval.low:.1f} – {100 * interval.high:.1f} % "
            f"| {length:.0f} | {100 * lucky:.1f} % |\n"
        )
    if not options.quick:
        DOCUMENT.write_text(HEAD + "".join(lines))
    finish(rows, options)


if __name__ == "__main__":
    main()
