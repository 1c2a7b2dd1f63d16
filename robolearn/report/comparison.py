"""The page of a comparison: who does better in which episodes, and rollouts side by side to judge."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from robolearn.compare import Episode, Pair, Strength
from robolearn.report.charts import interval, strip
from robolearn.report.page import write_page

__all__ = ["write_comparison"]

_LISTED = 500  # rows of the table of episodes

Episodes = Mapping[str, Mapping[tuple[str, int], Episode]]
Clips = Mapping[tuple[str, int], Mapping[str, Path]]


def write_comparison(
    path: Path,
    episodes: Episodes,
    pairs: Sequence[Pair],
    ranking: Sequence[Strength],
    judged: Sequence[Strength] = (),
    clips: Clips | None = None,
) -> Path:
    """Write one HTML file that opens without a network and return its path.

    `clips` are mp4 files by episode and by evaluation, shown in pairs whose order gives nothing away.
    """
    script = files(__package__).joinpath("judge.js").read_text()
    count = len(next(iter(episodes.values())))
    body = [
        *(_pair(pair, episodes) for pair in pairs),
        _ranking("Ranking", ranking, "by who does better in each episode") if len(episodes) > 2 else "",
        _ranking("Preferences", judged, "by the verdicts that were given") if judged else "",
        _judging(clips or {}),
        _table_of_episodes(episodes),
    ]
    return write_page(path, " against ".join(episodes), f"{count} shared episodes, same seeds", body, script)


def _pair(pair: Pair, episodes: Episodes) -> str:
    first, second = pair.names
    rows = [
        (escape(name), f"{rate.value:.1%}", f"[{rate.low:.1%}, {rate.high:.1%}]", interval(*rate, width=260))
        for name, rate in zip(pair.names, pair.success, strict=True)
    ]
    change, score = pair.difference, pair.score_difference
    decided = (
        f"decided after {pair.decided_after} episodes" if pair.decided_after else "not decided by a sequential test"
    )
    words = (
        f"Episodes that only {escape(second)} solves: {pair.gained}; only {escape(first)}: {pair.lost}. "
        f"Difference {change.value:+.1%} [{change.low:+.1%}, {change.high:+.1%}] (paired bootstrap), of the score "
        f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]; McNemar p = {pair.p_value:.3g}; {decided}."
    )
    changed = [
        (two.success, f"episode {key[1]}{' of ' + key[0] if key[0] else ''}: only {second if two.success else first}")
        for key, one in episodes[first].items()
        if one.success != (two := episodes[second][key]).success
    ]
    drawn = strip(changed) if changed else ""
    key = (
        f'<span class="key good"></span>only {escape(second)} &nbsp; <span class="key bad"></span>only {escape(first)}'
    )
    head = _row("th", ("", "success", "95 % Wilson interval", ""))
    table = f"<table>{head}{''.join(_row('td', row) for row in rows)}</table>"
    legend = f'{drawn}<p class="small soft">{key}</p>' if changed else ""
    return f"<section><h2>{escape(first)} and {escape(second)}</h2>{table}<p>{words}</p>{legend}</section>"


def _ranking(title: str, places: Sequence[Strength], how: str) -> str:
    rows = [
        (
            str(number + 1),
            escape(place.name),
            f"{place.strength.value:+.2f}",
            f"[{place.strength.low:+.2f}, {place.strength.high:+.2f}]",
            f"{place.wins:g} of {place.comparisons}",
        )
        for number, place in enumerate(places)
    ]
    head = _row("th", ("", "", "log-strength (Bradley–Terry)", "95 % interval", "won"))
    table = f"<table>{head}{''.join(_row('td', row) for row in rows)}</table>"
    return f'<section><h2>{title}</h2>{table}<p class="small soft">{escape(how)}; ties count half</p></section>'


def _judging(clips: Clips) -> str:
    """Pairs of videos of one episode; left and right are given by the episode's key, not by the order of names."""
    figures = []
    for (task, number), found in clips.items():
        names = sorted(found, key=lambda name: hashlib.sha256(f"{task}/{number}/{name}".encode()).digest())
        for left, right in pairwise(names):
            videos = "".join(_video(found[name]) for name in (left, right))
            facts = json.dumps({"task": task, "episode": number, "left": left, "right": right})
            buttons = "".join(f'<button data-verdict="{verdict}">{verdict}</button> ' for verdict in _VERDICTS)
            figures.append(
                f'<div class="pair" data-pair="{escape(facts, quote=True)}"><p class="small soft">'
                f'{escape(task)} episode {number}</p><div class="videos">{videos}</div><p>{buttons}</p></div>'
            )
    if not figures:
        return ""
    save = '<p><button id="save">save verdicts</button> <span id="count" class="soft small"></span></p>'
    return f"<section><h2>Which one is better?</h2>{''.join(figures)}{save}</section>"


_VERDICTS = ("left", "tie", "right")


def _video(path: Path) -> str:
    source = base64.b64encode(path.read_bytes()).decode()
    return f'<video controls loop muted playsinline src="data:video/mp4;base64,{source}"></video>'


def _table_of_episodes(episodes: Episodes) -> str:
    names, keys = list(episodes), list(next(iter(episodes.values())))
    head = _row("th", ("task", "episode", "seed", *map(escape, names)))
    rows = [
        _row(
            "td",
            (
                escape(key[0]),
                str(key[1]),
                str(episodes[names[0]][key].seed),
                *(_cell(episodes[name][key]) for name in names),
            ),
        )
        for key in keys[:_LISTED]
    ]
    more = f'<p class="small soft">and {len(keys) - _LISTED} more</p>' if len(keys) > _LISTED else ""
    summary = f"<summary>All {len(keys)} episodes</summary>"
    return f"<section><details>{summary}<table>{head}{''.join(rows)}</table>{more}</details></section>"


def _cell(episode: Episode) -> str:
    return f"{'success' if episode.success else 'failure'}, {episode.score:.3f}, {episode.length} steps"


def _row(kind: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"
