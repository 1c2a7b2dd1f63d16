"""A report of one run: a single HTML file that opens without a network."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from robolearn.report.charts import curves, interval, lines, rates, shares, strip
from robolearn.report.page import write_page

__all__ = ["write_report"]


def write_report(
    path: Path,
    title: str,
    result: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]] = (),
    videos: Sequence[Path] = (),
) -> Path:
    """Write the report of `result` (the content of `result.json`) and return its path.

    `metrics` are the rows of `metrics.jsonl`; `videos` are mp4 files, embedded as they are.
    """
    sections = [
        _cards(result),
        _protocol(result.get("protocol"), result.get("tasks", {})),
        _openloop(result.get("openloop")),
        _episodes(result.get("outcomes", ())),
        _comparison(result.get("baselines", {})),
        _success(metrics),
        _columns(_learning(metrics), _times(result.get("wall_s", {}))),
        _videos(videos),
        _failures(result.get("outcomes", ())),
        _columns(_facts("Versions", result.get("versions", {})), _facts("Machine", result.get("machine", {}))),
        _config(result.get("config")),
    ]
    return write_page(path, title, _subtitle(result), sections)


def _subtitle(result: Mapping[str, Any]) -> str:
    revision = result.get("git_revision") or ""
    parts = [
        f"robolearn {result.get('verb', '')}".strip(),
        f"config {result['config_hash']}" if result.get("config_hash") else "",
        f"revision {revision[:12]}{'+changes' if revision.endswith('+changes') else ''}" if revision else "",
    ]
    return " · ".join(part for part in parts if part)


def _cards(result: Mapping[str, Any]) -> str:
    cards = []
    if "success_rate" in result:
        rate, low, high = result["success_rate"], result["ci_low"], result["ci_high"]
        note = f"95 % Wilson interval {low:.1%} to {high:.1%}"
        cards.append(_card("Success rate", f"{rate:.1%}", note, interval(rate, low, high)))
        cards.append(_card("Episodes", f"{result['episodes']}", "unseen seeds"))
    if "score" in result and result["score"]["value"] != result.get("success_rate"):
        score = result["score"]
        cards.append(_card("Score", f"{score['value']:.3f}", f"95 % [{score['low']:.3f}, {score['high']:.3f}]"))
    if "mean_return" in result:
        cards.append(_card("Mean return", f"{result['mean_return']:.2f}", "sum of rewards of an episode"))
    if "env_steps_per_s" in result:
        cards.append(_card("Env steps/s", f"{result['env_steps_per_s']:,.0f}", "in evaluation"))
    if "total" in result.get("wall_s", {}):
        cards.append(_card("Wall time", _duration(result["wall_s"]["total"]), "everything included"))
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _card(label: str, value: str, note: str, drawing: str = "") -> str:
    return (
        f'<div class="card{" wide" if drawing else ""}"><div class="label">{escape(label)}</div>'
        f'<div class="value">{escape(value)}</div>{drawing}<div class="small soft">{escape(note)}</div></div>'
    )


def _episodes(outcomes: Iterable[Mapping[str, Any]]) -> str:
    cells = [
        (
            outcome["success"],
            f"episode {outcome['episode']}, seed {outcome['seed']}: {'success' if outcome['success'] else 'failure'}, "
            f"return {outcome['total_reward']:.2f}, {outcome['length']} steps" + (", diverged" * outcome["diverged"]),
        )
        for outcome in outcomes
    ]
    if not cells:
        return ""
    key = '<span class="key good"></span>success &nbsp; <span class="key bad"></span>failure'
    return f'<section><h2>Episodes</h2>{strip(cells)}<p class="small soft">{key}</p></section>'


def _comparison(baselines: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            escape(name),
            f"{row['success_rate']:.1%}",
            f"[{row['ci_low']:.1%}, {row['ci_high']:.1%}]",
            str(row["episodes"]),
            interval(row["success_rate"], row["ci_low"], row["ci_high"], width=260),
        )
        for name, row in baselines.items()
    ]
    if not rows:
        return ""
    return _section("Beside it", _table(("who", "success", "95 % interval", "episodes", ""), rows))


def _protocol(protocol: Any, tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Which protocol was run: its hash and rules, each task with its interval, resets beside the peer's."""
    if not isinstance(protocol, Mapping):
        return ""
    rules = [
        ("protocol", f"<b>{escape(protocol['name'])}</b>"),
        ("hash", f"<code>{escape(protocol['hash'])}</code>"),
        *((key, escape(str(protocol[key]))) for key in ("source", "success", "resets")),
        ("episodes", f"{protocol['episodes']} a task, seed {protocol['seed']}"),
        ("execution", f"{protocol['executed']} actions of each chunk, {protocol['delay_steps']} steps late"),
    ]
    rows = [
        (
            f"<code>{escape(name)}</code>",
            f"{row['success_rate']:.1%}",
            f"[{row['ci_low']:.1%}, {row['ci_high']:.1%}]",
            f"{row['score']:.3f}",
            interval(row["success_rate"], row["ci_low"], row["ci_high"], width=200),
            _reset_words(row["resets"]),
        )
        for name, row in tasks.items()
    ]
    columns = ("task", "success", "95 % interval", "score", "", "resets here, and the peer's")
    return _section("Protocol", _table(("", ""), rules)) + _section("Tasks", _table(columns, rows))


def _openloop(found: Any) -> str:
    """Errors by action entry and step ahead, and a few chunks: demonstrated, then predicted."""
    if not isinstance(found, Mapping):
        return ""
    rows = [
        (
            f"<code>{escape(name)}</code>",
            f"{sum(error) / len(error):.4g}",
            f"{sum(found['spread'][name]) / len(error):.4g}",
            lines({"error": error, "spread": found["spread"][name]}),
            "".join(lines({"shown": shown[name], "said": said[name]}, 240) for shown, said in found["examples"]),
        )
        for name, error in found["error"].items()
    ]
    who = "held-out episodes" if found["held_out"] else "episodes that it was trained on: none was held out"
    words = f"{found['windows']} windows of {who}; mean error {found['relative_error']:.1%} of the spread"
    key = '<span class="key c0"></span>error, demonstrated &nbsp; <span class="key c1"></span>spread, predicted'
    columns = ("action", "mean error", "spread of the demonstrations", "by step ahead", "examples")
    return _section("Open loop", f"<p>{words}</p>{_table(columns, rows)}<p class='small soft'>{key}</p>")


def _reset_words(resets: Mapping[str, Any]) -> str:
    """Say how wide the starts of episodes were, beside the peer where there is one."""
    there = resets.get("there")
    if not there:
        return ""
    words = ", ".join(f"{name} {resets['here'][name]:g} ({width:g})" for name, width in there.items())
    return f'<span class="small">{escape(words)}: {escape(resets["peer"])}</span>'


def _learning(metrics: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for row in metrics for key in row if "loss" in key]
    series = {
        key: [(row["step"], row[key]) for row in metrics if isinstance(row.get(key), int | float) and "step" in row]
        for key in dict.fromkeys(keys)
    }
    return _section("Learning curve", curves(series)) if series else ""


def _success(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Draw success over environment steps and over minutes, where a run measured both."""
    names = {"success": "selection seeds", "collect_success": "while exploring"}
    rows = {key: [row for row in metrics if key in row and "minutes" in row] for key in names}
    drawn = [
        rates({names[key]: [(row[over], row[key]) for row in found] for key, found in rows.items() if found}, unit)
        for over, unit in (("step", "environment steps"), ("minutes", "minutes"))
    ]
    return _section("Success while learning", _columns(*drawn)) if any(rows.values()) else ""


def _times(wall_s: Any) -> str:
    if not isinstance(wall_s, Mapping):
        return ""
    parts = {name: float(value) for name, value in wall_s.items() if name != "total"}
    if not parts:
        return ""
    total = wall_s.get("total", sum(parts.values()))
    rows = [
        (f'<span class="key c{i % 4}"></span>{escape(name)}', _duration(value), f"{value / max(total, 1e-9):.0%}")
        for i, (name, value) in enumerate(parts.items())
    ]
    rows.append(("<b>total</b>", f"<b>{_duration(total)}</b>", ""))
    return _section("Time", shares(parts) + _table(("stage", "time", "share"), rows))


def _videos(videos: Sequence[Path]) -> str:
    """The clips, those of failures first: they are what one learns from."""
    drawn = [
        "<figure><video controls autoplay muted loop playsinline "
        f'src="data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"></video>'
        f"<figcaption>{escape(path.name)}</figcaption></figure>"
        for path in sorted(videos, key=lambda path: "failure" not in path.name)
    ]
    return (
        _section("Video" if len(drawn) == 1 else "Videos", f'<div class="videos">{"".join(drawn)}</div>')
        if drawn
        else ""
    )


def _failures(outcomes: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (str(outcome["episode"]), str(outcome["seed"]), str(outcome["length"]), f"{outcome['max_reward']:.3f}")
        for outcome in outcomes
        if not outcome["success"]
    ]
    if not rows:
        return ""
    shown = _table(("episode", "seed", "steps", "best reward"), rows[:50])
    more = f'<p class="small soft">and {len(rows) - 50} more in result.json</p>' if len(rows) > 50 else ""
    return f"<section><details><summary>{len(rows)} failed episodes</summary>{shown}{more}</details></section>"


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    rows = [(escape(str(name)), f"<code>{escape(str(value))}</code>") for name, value in facts.items()]
    return _section(title, _table(("", ""), rows)) if rows else ""


def _config(config: Any) -> str:
    if not config:
        return ""
    text = escape(json.dumps(config, indent=2))
    return f"<section><details><summary>Resolved config</summary><pre>{text}</pre></details></section>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _columns(*sections: str) -> str:
    present = [section for section in sections if section]
    return f'<div class="columns">{"".join(present)}</div>' if present else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns) if any(columns) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
