"""Policies from pictures alone: success as trained, in the dark, and in pictures of another renderer.

The row is the run of `robolearn reproduce pick_place_image out=outputs/pick_place_image` (ROBOLEARN_RUNS names
another folder than `outputs`), evaluated on 200 unseen seeds: in the rasteriser's pictures, which it learned from,
with every picture black, and in OpenGL's fast mode (MuJoCo's own pictures without effects, meshes decimated).
`--quick` evaluates the checkpoint that lies beside, on a subset and without OpenGL. Finished episodes are kept
beside the run, so an interrupted evaluation goes on.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from robolearn import checkpoint
from robolearn.benchmark import Options, Row, evaluate_run, finish, parse_options, runs_folder, training_minutes

SMALL = Path(__file__).parent / "checkpoints" / "pick_place_image"
SEEN: Mapping[str, Mapping[str, Any]] = {  # options of the environment
    "raster": {},
    "blackout": {"perturb": {"blackout": 3}},
    "opengl_fast": {"renderer": "opengl_fast"},
}


def main(options: Options) -> None:
    """Print the rows of the run, or of the small checkpoint."""
    torch.set_num_threads(1)
    run = SMALL if options.quick else runs_folder() / "pick_place_image"
    if not run.is_dir():
        raise SystemExit(f"There is no run {run}: see the head of {Path(__file__).name}.")
    finish(list(rows_of(run, options.quick)), options, merge=True)


def rows_of(run: Path, quick: bool) -> Iterator[Row]:
    """Yield success in each kind of picture, and what the training took."""
    config = checkpoint.load(run).config
    trained = f"{config['train']['steps']:,} steps of {config['train']['batch_size']}"
    for name in ("raster", "blackout") if quick else SEEN:
        episodes = 24 if quick else 200
        found = evaluate_run(run, episodes, SEEN[name], None if quick else run / f"images_{name}.jsonl").success
        note = f"[{found.low:.3f}, {found.high:.3f}], {episodes} episodes; {trained}"
        yield Row(f"pick_place_{name}", "share", found.value, note=note)
    if not quick:
        yield Row("pick_place_training", "min", training_minutes(run), note=f"one thread; {trained}")


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
