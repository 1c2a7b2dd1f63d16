"""One suite of two tasks with five stored states each."""

from types import SimpleNamespace

import numpy as np


class Suite:
    """LIBERO's interface to a suite."""

    def get_task(self, number):
        """Return a task."""
        return SimpleNamespace(problem_folder="p", bddl_file=f"{number}.bddl", language=f"move {number}")

    def get_task_init_states(self, number):
        """Return states that differ by task and number."""
        return np.arange(5.0)[:, None] / 10 + number


def get_benchmark_dict():
    """Return the suites by name."""
    return {"libero_spatial": Suite}
