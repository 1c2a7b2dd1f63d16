"""Reinforcement learning from a cloned policy: `robolearn rl algo=residual ckpt=RUN env=NAME`.

`training.finetune` is the one loop: collect a round of episodes, learning after every step; evaluate
on selection seeds; keep the best; save. An algorithm is one file and one line in the group `algo`: a
frozen config with `build(problem) -> Algorithm` (both in `algorithm.py`). It offers

- `explorer(rows, seed)`: a controller (`begin`, `act`) that drives `problem.controller(...)` or replaces
  its `noise`; `notes()` is what to remember of the last `act`, `outlook()` the same for last observations;
- `demonstrate(trajectory)`, `observe(trajectory)`: whole episodes (`collect.Trajectory`: notes, actions,
  rewards, what ended it). Demonstrations come through the same explorer, watching;
- `update(steps, round_over)`: the learning due by now; `policy()`: a registered policy's options and module;
- `state()`, `restore()`: exact tensors and counters. Rounds end with no episode in flight.

Shared by the chunk: `chunks` (decisions, windows), `chains` (denoising steps with a likelihood), `values`
(learning from recorded episodes alone). `rewards` are learned from demonstrations.

Shared: `replay` (rings, n-step transitions, symmetric sampling), `advantages` (GAE, n-step, by decision,
groups), `critics` (ensembles, HL-Gauss), `learning` (modules with optimizers, TD critics), `networks`.
A per-step policy deploys through `correct(obs, action)` (`contracts.Corrector`), anything else through `sample`.
"""
