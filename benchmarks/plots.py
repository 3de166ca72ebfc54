"""Plots as SVG: bars and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#4878a8", "#c06030", "#589048", "#8858a0", "#a08838", "#707070")
_WIDTH = 660
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 640, 34, 260
_TICKS = 5

Points = Sequence[tuple[float, float]]


def bars(values: Mapping[str, float], unit: str) -> str:
    """Return a bar for each value, the smallest first."""
    scale = 360 / max(values.values())
    rows = [
        _text(190, y + 15, name, "end")
        + f'<rect x="200" y="{y}" width="{value * scale:.0f}" height="20" fill="{_COLOURS[0]}"/>'
        + _text(205 + value * scale, y + 15, f"{value:.2f} {unit}")
        for y, (name, value) in zip(
            range(10, 10_000, 28), sorted(values.items(), key=lambda one: one[1]), strict=False
        )
    ]
    return _svg(20 + 28 * len(values), rows)


def curves(series: Mapping[str, Points], x: str, y: str) -> str:
    """Return a line for each series; both axes start at 0, `x` and `y` are their names."""
    right = max(point[0] for points in series.values() for point in points) or 1.0
    high = max(point[1] for points in series.values() for point in points) or 1.0
    rows = [_text(_LEFT, 14, y), _text(_RIGHT, _BOTTOM + 36, x, "end"), *_grid(right, high)]
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{_across(a, right):.1f},{_up(b, high):.1f}" for a, b in points)
        rows.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        rows.append(_text(_LEFT + 10, _TOP + 16 + 18 * number, name, fill=colour))
    return _svg(_BOTTOM + 46, rows)


def _grid(right: float, high: float) -> list[str]:
    rows = []
    for part in (number / _TICKS for number in range(_TICKS + 1)):
        across, up = _across(part, 1), _up(part, 1)
        rows.append(f'<path d="M{_LEFT} {up:.0f}H{_RIGHT}" stroke="#ddd"/>')
        rows.append(_text(_LEFT - 6, up + 4, f"{part * high:.3g}", "end"))
        rows.append(_text(across, _BOTTOM + 18, f"{part * right:.3g}", "middle"))
    return rows


def _across(value: float, most: float) -> float:
    return _LEFT + value / most * (_RIGHT - _LEFT)


def _up(value: float, most: float) -> float:
    return _BOTTOM - value / most * (_BOTTOM - _TOP)


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "#222") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}>{escape(text)}</text>"


def _svg(height: int, rows: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="13">', *rows, "</svg>\n"])
