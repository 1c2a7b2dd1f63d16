"""Synthetic recordings: every value tells its episode and step. For tests, benchmarks and examples."""

from pathlib import Path

import numpy as np

from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["STATE_SPEC", "camera_spec", "frame", "picture", "record"]

STATE_SPEC = Spec(
    {
        "observation.state": Feature("signal", (3,), unit="rad", frame="base", names=("a", "b", "c")),
        "task": Feature("text", dtype="str"),
    },
    ActionSpec(2, "joint_position", names=("x", "y"), unit="rad", gripper="none"),
    rate_hz=10.0,
    robot="panda",
)


def camera_spec(size: int = 32) -> Spec:
    """Return a spec with one camera beside the state."""
    observations = {
        "observation.state": Feature("signal", (3,)),
        "observation.images.top": Feature("image", (size, size, 3), "uint8"),
    }
    return Spec(observations, ActionSpec(2), rate_hz=10.0)


def frame(spec: Spec, episode: int, step: int) -> dict:
    """Return a frame whose every value tells its episode and step."""
    generator = np.random.default_rng([episode, step])
    values: dict = {"action": np.array([episode, step], np.float32), "task": f"task {episode % 2}"}
    for key, feature in spec.observations.items():
        if feature.kind == "signal":
            values[key] = generator.random(feature.shape).astype(feature.dtype)
        elif feature.kind == "image":
            values[key] = picture(feature.shape, episode, step)
    return values


def picture(shape: tuple[int, ...], episode: int, step: int) -> np.ndarray:
    """Return a smooth picture with a brightness of its own."""
    rows = np.linspace(0, 60, shape[0])[:, None, None]
    return np.broadcast_to(rows + 10 * (step % 12) + 5 * episode, shape).astype(np.uint8)


def record(root: Path, lengths: list[int], spec: Spec = STATE_SPEC, options: WriterOptions | None = None) -> Path:
    """Write episodes of `lengths` and return the dataset's folder."""
    with LeRobotWriter(root, spec, options) as writer:
        first = writer.num_episodes
        for episode, length in enumerate(lengths, start=first):
            for step in range(length):
                writer.add_frame(frame(spec, episode, step))
            writer.save_episode({"seed": episode})
    return root
