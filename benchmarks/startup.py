"""How long a fresh process takes to answer --help and to import the library, beside LeRobot."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

from robolearn.benchmark import Row, compare, finish, parse_options


def fresh(*arguments: str) -> Callable[[], object]:
    """Return a function that runs `python ARGUMENTS` in a new process."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    options = parse_options(__doc__ or "")
    peer = find_spec("lerobot") is not None
    works = {
        "help_s": (
            fresh("-m", "robolearn.cli", "--help"),
            fresh("-m", "lerobot.scripts.lerobot_train", "--help") if peer else None,
            "robolearn --help / lerobot-train --help",
        ),
        "import_s": (
            fresh("-c", "import robolearn"),
            fresh("-c", "import lerobot.datasets.lerobot_dataset") if peer else None,
            "import robolearn / import LeRobotDataset",
        ),
    }
    rows = []
    for name, (ours, theirs, note) in works.items():
        own_s, peer_s = compare(ours, theirs, repeats=1 if options.quick else 5)
        rows.append(Row(name, "s", own_s, peer_s, peer_s / own_s if peer_s else None, note))
    finish(rows, options)


if __name__ == "__main__":
    main()
