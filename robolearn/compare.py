"""Two or more evaluations on the same episodes: paired tests, how many episodes decide, a ranking."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.errors import ConfigError, DataError
from robolearn.intervals import Interval, mcnemar, paired_difference, wilson
from robolearn.seeding import generator

__all__ = [
    "Episode",
    "Judgement",
    "Pair",
    "Strength",
    "bradley_terry",
    "compare_pair",
    "rank",
    "rank_judgements",
    "read_result",
    "shared",
]

Verdict = Literal["left", "right", "tie"]
_DECIDED = 20.0  # evidence against "equally good" that a fair coin exceeds with probability 1/20 at most, ever


@dataclass(frozen=True)
class Episode:
    """What one evaluation reached in one episode."""

    success: bool
    score: float  # best reward
    seed: int
    length: int


@dataclass(frozen=True)
class Pair:
    """Two evaluations, A and B, on the same episodes; differences are B minus A."""

    names: tuple[str, str]
    episodes: int
    success: tuple[Interval, Interval]  # Wilson
    difference: Interval  # of success, paired bootstrap
    score_difference: Interval  # of the best reward, paired bootstrap
    gained: int  # episodes that only B solves
    lost: int  # episodes that only A solves
    p_value: float  # McNemar's exact test
    decided_after: int | None  # episodes in order until a test that may be read at any time decides

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        intervals = {"difference": self.difference._asdict(), "score_difference": self.score_difference._asdict()}
        return {
            **self.__dict__,
            "names": list(self.names),
            "success": [rate._asdict() for rate in self.success],
            **intervals,
        }


@dataclass(frozen=True)
class Strength:
    """A place in a ranking: log-strength with mean 0; 1 apart means 73 % of the decided comparisons."""

    name: str
    strength: Interval
    wins: float  # ties count half
    comparisons: int


@dataclass(frozen=True)
class Judgement:
    """Somebody's verdict on two rollouts of one episode."""

    left: str
    right: str
    verdict: Verdict


def read_result(path: str | Path) -> dict[str, Any]:
    """Read the `result.json` of a run folder (or the file itself) and check what is compared.

    Raises `DataError` for a file that is not the result of an evaluation.
    """
    file = Path(path).expanduser()
    file = file / "result.json" if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"There is no {file}.", expected="a folder that robolearn eval left, or its result.json")
    try:
        content = json.loads(file.read_text())
        outcomes = content["outcomes"]
        _episodes(content)
        _protocol(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not the result of an evaluation.", found=repr(error)) from error
    if not outcomes:
        raise DataError(f"{file} holds no outcomes.", expected="one per episode")
    return content


def shared(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[tuple[str, int], Episode]]:
    """Return the episodes that all results have, by (task, number).

    Raises `ConfigError` for results under different protocols, or whose episodes started differently.
    """
    protocols = {name: _protocol(content) for name, content in results.items()}
    if len(set(protocols.values())) > 1:
        found = ", ".join(f"{name}: {value}" for name, value in protocols.items())
        raise ConfigError("These results were measured under different protocols.", found=found, expected="one hash")
    episodes = {name: _episodes(content) for name, content in results.items()}
    common = set.intersection(*(set(found) for found in episodes.values()))
    if not common:
        raise ConfigError("These results have no episode in common.", do="evaluate on the same task and seed")
    for key in common:
        if len({found[key].seed for found in episodes.values()}) > 1:
            raise ConfigError(
                f"Episode {key[1]} did not start from the same seed.",
                found=", ".join(f"{name}: {found[key].seed}" for name, found in episodes.items()),
                do="evaluate with the same eval.seed",
            )
    return {name: {key: found[key] for key in sorted(common)} for name, found in episodes.items()}


def compare_pair(names: tuple[str, str], first: Sequence[Episode], second: Sequence[Episode]) -> Pair:
    """Return the paired statistics of two lists of the same episodes."""
    one, two = [episode.success for episode in first], [episode.success for episode in second]
    return Pair(
        names=names,
        episodes=len(one),
        success=(wilson(sum(one), len(one)), wilson(sum(two), len(two))),
        difference=paired_difference(one, two),
        score_difference=paired_difference([e.score for e in first], [e.score for e in second]),
        gained=sum(b and not a for a, b in zip(one, two, strict=True)),
        lost=sum(a and not b for a, b in zip(one, two, strict=True)),
        p_value=mcnemar(one, two),
        decided_after=_decided_after(one, two),
    )


def rank(episodes: Mapping[str, Mapping[tuple[str, int], Episode]], draws: int = 200) -> list[Strength]:
    """Return the Bradley–Terry ranking by who does better in each shared episode, intervals by resampling episodes.

    The better of two is who succeeds; where both or neither do, who has the better score.
    """
    names, keys = list(episodes), list(next(iter(episodes.values())))
    better = np.zeros((len(keys), len(names), len(names)))
    for i, j in combinations(range(len(names)), 2):
        for number, key in enumerate(keys):
            one, two = episodes[names[i]][key], episodes[names[j]][key]
            share = _share((one.success, one.score), (two.success, two.score))
            better[number, i, j], better[number, j, i] = share, 1.0 - share
    return _ranking(names, better, draws)


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Return log-strengths [n] with mean 0 from wins[i, j], how often i beat j (ties count half).

    Bradley and Terry 1952, by the iteration of Hunter 2004 (MM algorithms, eq. 3). Everybody also has half
    a win and half a loss against an average player, so that nobody's strength is infinite.
    """
    games, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(2000):
        share = games / (strength[:, None] + strength[None])
        np.fill_diagonal(share, 0.0)
        new = (wins.sum(1) + 0.5) / (share.sum(1) + 1.0 / (strength + 1.0))
        if np.abs(np.log(new / strength)).max() < 1e-9:
            break
        strength = new
    found = np.log(strength)
    return found - found.mean()


def rank_judgements(judgements: Sequence[Judgement], draws: int = 200) -> list[Strength]:
    """Return the Bradley–Terry ranking of what people preferred."""
    names = sorted({name for judgement in judgements for name in (judgement.left, judgement.right)})
    better = np.zeros((len(judgements), len(names), len(names)))
    for number, judgement in enumerate(judgements):
        i, j = names.index(judgement.left), names.index(judgement.right)
        share = {"left": 1.0, "right": 0.0, "tie": 0.5}[judgement.verdict]
        better[number, i, j], better[number, j, i] = share, 1.0 - share
    return _ranking(names, better, draws)


def _ranking(names: Sequence[str], better: np.ndarray, draws: int) -> list[Strength]:
    total = better.sum(0)
    middle = bradley_terry(total)
    index = generator("ranking", len(better)).integers(0, len(better), (draws, len(better)))
    low, high = np.quantile([bradley_terry(better[rows].sum(0)) for rows in index], [0.025, 0.975], axis=0)
    met = (total + total.T).sum(1)
    found = [
        Strength(name, Interval(*map(float, (middle[i], low[i], high[i]))), float(total[i].sum()), round(met[i]))
        for i, name in enumerate(names)
    ]
    return sorted(found, key=lambda place: -place.strength.value)


def _share(one: tuple[bool, float], two: tuple[bool, float]) -> float:
    return 0.5 if one == two else float(one > two)


def _decided_after(first: Sequence[bool], second: Sequence[bool]) -> int | None:
    """Return how many episodes a sequential test needs, None where it stays open.

    Evidence against "either is as likely to solve an episode that the other does not" is the likelihood
    ratio under a Beta(1/2, 1/2) mixture (Robbins 1970); it exceeds 20 with probability 1/20 at most however
    often one looks (Ville 1939).
    """
    gained = lost = 0
    for number, (one, two) in enumerate(zip(first, second, strict=True)):
        gained, lost = gained + (two and not one), lost + (one and not two)
        ratio = math.lgamma(gained + 0.5) + math.lgamma(lost + 0.5) - math.lgamma(gained + lost + 1) - math.log(math.pi)
        if ratio + (gained + lost) * math.log(2) >= math.log(_DECIDED):
            return number + 1
    return None


def _episodes(content: Mapping[str, Any]) -> dict[tuple[str, int], Episode]:
    return {
        (str(one.get("task", "")), int(one["episode"])): Episode(
            bool(one["success"]), float(one["max_reward"]), int(one["seed"]), int(one["length"])
        )
        for one in content["outcomes"]
    }


def _protocol(content: Mapping[str, Any]) -> str:
    """Return the hash of the protocol that a result was measured under."""
    return content.get("protocol", {}).get("definition_hash", "none")
