"""`robolearn compare A B`: evaluations on the same episodes, side by side."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import say, table
from robolearn.compare import Judgement, Pair, Strength, compare_pair, rank, rank_judgements, read_result, shared
from robolearn.config import parse
from robolearn.errors import ConfigError, DataError
from robolearn.report.comparison import write_comparison

__all__ = ["main"]

_USAGE = """usage: robolearn compare A B [C ...] [judgements=FILE] [out=DIR]

Compares evaluations (folders with a result.json) on the episodes they share: McNemar's test, paired
bootstrap, how many episodes decide, a Bradley-Terry ranking. Leaves result.json and comparison.html,
where rollouts that all of them filmed can be judged; judgements=FILE ranks the verdicts saved there."""
_CLIP = re.compile(r"^(?:(?P<task>.+)_)?(?:success|failure)_(?P<episode>\d+)\.mp4$")


def main(arguments: Sequence[str]) -> None:
    """Compare the evaluations that are named."""
    given = parse_arguments(arguments, _USAGE, names=20).accept("judgements", "out")
    if len(given.names) < 2:
        found = f"{len(given.names)} results"
        raise ConfigError("compare needs two results or more.", found=found, do=_USAGE.splitlines()[0])
    folders = dict(zip(_labels(given.names), given.names, strict=True))
    episodes = shared({name: read_result(path) for name, path in folders.items()})
    job = Job("compare", out_folder("compare", given.value("out") or None), {"results": folders})
    pairs = [
        compare_pair((one, two), list(episodes[one].values()), list(episodes[two].values()))
        for one, two in combinations(episodes, 2)
    ]
    ranking = rank(episodes)
    judged = _judged(given.value("judgements"))
    page = write_comparison(job.out / "comparison.html", episodes, pairs, ranking, judged, _clips(folders))
    plain = {"pairs": [pair.to_dict() for pair in pairs], "ranking": _plain(ranking), "preferences": _plain(judged)}
    job.finish({"episodes": len(next(iter(episodes.values()))), **plain})
    _show(pairs, ranking)
    for path in (page, job.out / "result.json"):
        say(f"{path.suffix.lstrip('.')}: {path}")


def _labels(paths: Sequence[str]) -> list[str]:
    """Return short names that differ: the last parts of the paths, as many as needed."""
    parts = [Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("A result is named twice.", found=", ".join(paths))


def _show(pairs: Sequence[Pair], ranking: Sequence[Strength]) -> None:
    columns = ("A\nB", "success", "only", "B - A\n95 %", "p", "decided\nafter")
    rows = [
        (
            "\n".join(pair.names),
            "\n".join(f"{rate.value:.1%}" for rate in pair.success),
            f"{pair.lost}\n{pair.gained}",
            f"{pair.difference.value:+.1%}\n{pair.difference.low:+.1%} to {pair.difference.high:+.1%}",
            f"{pair.p_value:.2g}",
            pair.decided_after or "open",
        )
        for pair in pairs
    ]
    table("", columns, rows)
    if len(ranking) > 2:
        places = [(one.name, f"{one.strength.value:+.2f}", f"{one.wins:g} of {one.comparisons}") for one in ranking]
        table("", ("ranking", "log-strength", "won"), places)


def _plain(places: Sequence[Strength]) -> list[dict[str, Any]]:
    return [{**asdict(place), "strength": place.strength._asdict()} for place in places]


def _judged(path: str) -> list[Strength]:
    if not path:
        return []
    try:
        found = json.loads(Path(path).expanduser().read_text())["judgements"]
        keys = ("left", "right", "verdict")
        verdicts = [parse(Judgement, {key: one[key] for key in keys}, where="judgements") for one in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no verdicts.", found=repr(error), do="save them from comparison.html") from error
    if not verdicts:
        raise DataError(f"{path} holds no verdicts.", do="give some in comparison.html")
    return rank_judgements(verdicts)


def _clips(folders: dict[str, str]) -> dict[tuple[str, int], dict[str, Path]]:
    """Return the videos of episodes that more than one evaluation filmed."""
    found: dict[tuple[str, int], dict[str, Path]] = {}
    for name, folder in folders.items():
        for path in sorted(Path(folder).glob("*.mp4")) if Path(folder).is_dir() else ():
            match = _CLIP.match(path.name)
            if match:
                found.setdefault((match["task"] or "", int(match["episode"])), {})[name] = path
    return {key: clips for key, clips in found.items() if len(clips) > 1}
