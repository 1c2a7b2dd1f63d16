"""Small inline SVG charts: an interval, a strip of episodes, curves over steps, a bar of shares."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

__all__ = ["curves", "interval", "lines", "rates", "shares", "strip"]

_COLOURS = 4  # classes c0 … c3 of the style sheet


def interval(value: float, low: float, high: float, width: int = 300) -> str:
    """Draw a rate in [0, 1] with its confidence band."""

    def x(share: float) -> float:
        return round(6 + share * (width - 12), 1)

    return (
        f'<svg viewBox="0 0 {width} 16" width="{width}" height="16" role="img" '
        f'aria-label="{value:.3f}, 95 % interval {low:.3f} to {high:.3f}">'
        f'<rect class="track" x="6" y="6" width="{width - 12}" height="4" rx="2"/>'
        f'<rect class="band" x="{x(low)}" y="3" width="{max(2.0, x(high) - x(low)):.1f}" height="10" rx="3"/>'
        f'<circle class="point" cx="{x(value)}" cy="8" r="5"/></svg>'
    )


def strip(cells: Sequence[tuple[bool, str]], per_row: int = 50) -> str:
    """Draw one cell per episode, filled for success and hollow for failure, each with a tooltip."""
    size, gap = 15, 4
    width, rows = per_row * (size + gap), max(1, ceil(len(cells) / per_row))
    drawn = []
    for i, (success, words) in enumerate(cells):
        x, y = (i % per_row) * (size + gap) + 1, (i // per_row) * (size + gap) + 1
        kind = "good" if success else "bad"
        drawn.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" rx="3">'
            f"<title>{escape(words)}</title></rect>"
        )
    return f'<svg viewBox="0 0 {width} {rows * (size + gap)}" width="{width}">{"".join(drawn)}</svg>'


def curves(series: Mapping[str, Sequence[tuple[float, float]]], width: int = 520, height: int = 240) -> str:
    """Draw curves of positive values over steps on a logarithmic axis, raw thin and smoothed thick."""
    series = {name: [(x, y) for x, y in points if y > 0 and isfinite(y)] for name, points in series.items()}
    series = {name: points for name, points in series.items() if len(points) > 1}
    if not series:
        return '<p class="soft">No curve was recorded.</p>'
    xs = [x for points in series.values() for x, _ in points]
    ys = [log10(y) for points in series.values() for _, y in points]
    left, right, top, bottom = 52, width - 10, 10, height - 28
    low, high = min(ys), max(max(ys), min(ys) + 0.1)

    def place(x: float, y: float) -> str:
        across = (x - min(xs)) / max(max(xs) - min(xs), 1e-9)
        up = (log10(y) - low) / (high - low)
        return f"{left + across * (right - left):.1f},{bottom - up * (bottom - top):.1f}"

    drawn = [_grid(low, high, (left, right, top, bottom)), _steps(min(xs), max(xs), left, right, height)]
    for i, (name, points) in enumerate(series.items()):
        colour = f"c{i % _COLOURS}"
        smooth = _smooth(points)
        if len(points) > 12:
            raw = " ".join(place(*point) for point in _thin(points))
            drawn.append(f'<polyline class="curve raw {colour}" points="{raw}"/>')
        line = " ".join(place(*point) for point in _thin(smooth))
        drawn.append(f'<polyline class="curve {colour}" points="{line}"/>')
        drawn.append(f'<rect class="{colour}" x="{right - 12}" y="{top + 18 * i}" width="10" height="10" rx="2"/>')
        drawn.append(f'<text x="{right - 18}" y="{top + 9 + 18 * i}" text-anchor="end">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(drawn)}</svg>'


def lines(series: Mapping[str, Sequence[float]], width: int = 330, height: int = 150) -> str:
    """Draw curves over steps 0, 1, … on a linear axis; values that are not finite leave a gap at the end."""
    kept = {name: [value for value in values if isfinite(value)] for name, values in series.items()}
    every = [value for values in kept.values() for value in values]
    if not every:
        return '<p class="soft">Nothing was recorded.</p>'
    left, right, top, bottom = 52, width - 8, 8, height - 20
    low, high, longest = min(every), max(every), max(map(len, kept.values()))
    span = max(high - low, 1e-9)
    drawn = []
    for mark in (low, (low + high) / 2, high):
        y = bottom - (mark - low) / span * (bottom - top)
        drawn.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:.3g}</text>')
    for i, values in enumerate(kept.values()):
        across = [left + step / max(longest - 1, 1) * (right - left) for step in range(len(values))]
        up = [bottom - (value - low) / span * (bottom - top) for value in values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
        drawn.append(f'<polyline class="curve c{i % _COLOURS}" points="{points}"/>')
    drawn.append(f'<text x="{left}" y="{height - 4}">0</text>')
    drawn.append(f'<text x="{right}" y="{height - 4}" text-anchor="end">step {longest - 1}</text>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(drawn)}</svg>'


def rates(series: Mapping[str, Sequence[tuple[float, float]]], unit: str, width: int = 520, height: int = 200) -> str:
    """Draw shares between 0 and 1 over an amount in `unit`, which begins at 0."""
    left, right, top, bottom = 52, width - 10, 10, height - 28
    most = max((x for points in series.values() for x, _ in points), default=0.0) or 1.0
    drawn = []
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - mark * (bottom - top)
        drawn.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:.0%}</text>')
    for i, (name, points) in enumerate(series.items()):
        line = " ".join(f"{left + x / most * (right - left):.1f},{bottom - y * (bottom - top):.1f}" for x, y in points)
        drawn.append(f'<polyline class="curve c{i % _COLOURS}" points="{line}"/>')
        drawn.append(
            f'<rect class="c{i % _COLOURS}" x="{right - 12}" y="{bottom - 18 * (i + 1)}" width="10" height="10"/>'
        )
        drawn.append(f'<text x="{right - 18}" y="{bottom - 18 * i - 9}" text-anchor="end">{escape(name)}</text>')
    drawn.append(f'<text x="{left}" y="{height - 8}">0</text>')
    drawn.append(f'<text x="{right}" y="{height - 8}" text-anchor="end">{most:,.4g} {escape(unit)}</text>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(drawn)}</svg>'


def shares(parts: Mapping[str, float], width: int = 460) -> str:
    """Draw one bar divided in proportion to `parts`."""
    total, x, drawn = sum(parts.values()) or 1.0, 0.0, []
    for i, (name, value) in enumerate(parts.items()):
        share = value / total * width
        drawn.append(
            f'<rect class="c{i % _COLOURS}" x="{x:.1f}" y="0" width="{max(0.0, share - 2):.1f}" height="14" rx="3">'
            f"<title>{escape(name)}: {value:.1f} s</title></rect>"
        )
        x += share
    return f'<svg viewBox="0 0 {width} 14" width="{width}">{"".join(drawn)}</svg>'


def _grid(low: float, high: float, box: tuple[int, int, int, int]) -> str:
    left, right, top, bottom = box
    drawn = []
    for mark in _marks(low, high):
        y = bottom - (log10(mark) - low) / (high - low) * (bottom - top)
        drawn.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    return "".join(drawn)


def _marks(low: float, high: float) -> list[float]:
    """Return the coarsest round numbers of which at least two lie between 10^low and 10^high."""
    for mantissas in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(i / 20 for i in range(20, 200))):
        marks = [10.0**k * m for k in range(floor(low), ceil(high) + 1) for m in mantissas]
        inside = [mark for mark in marks if low <= log10(mark) <= high]
        if len(inside) >= 2:
            return inside
    return []


def _steps(first: float, last: float, left: int, right: int, height: int) -> str:
    middle = (first + last) / 2
    marks = [
        (f"{first:,.0f}", left, "start"),
        (f"step {middle:,.0f}", (left + right) // 2, "middle"),
        (f"{last:,.0f}", right, "end"),
    ]
    return "".join(
        f'<text x="{x}" y="{height - 8}" text-anchor="{anchor}">{words}</text>' for words, x, anchor in marks
    )


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the centred running mean over about 1/40 of the curve."""
    half = len(points) // 80
    values = [y for _, y in points]
    return [
        (x, sum(part) / len(part))
        for i, (x, _) in enumerate(points)
        if (part := values[max(0, i - half) : i + half + 1])
    ]


def _thin(points: Sequence[tuple[float, float]], most: int = 500) -> list[tuple[float, float]]:
    stride = max(1, ceil(len(points) / most))
    return [*points[::stride], points[-1]]
