"""Charts as SVG and HTML, without scripts or files of anybody else: what the report shows beside its tables.

Bars and whiskers are HTML, so that their text keeps its size on a phone; curves are SVG that is not drawn wider than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7f3c8d", "#6b6b6b")
"""Told apart by people who do not tell red from green; after these they repeat, dashed."""
_LEAST_REACH = 0.1
"""So that rounding errors do not look like something."""
_WIDTH, _HEIGHT = 340, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 10, 36


Scale = Callable[[float, float], tuple[float, float]]
"""From values to the drawing's coordinates."""


class Bar(NamedTuple):
    """A value and how far it spreads."""

    label: str
    value: float
    low: float
    high: float
    text: str


class Line(NamedTuple):
    """Points of one colour."""

    label: str
    points: Sequence[tuple[float, float]]


def bars(rows: Sequence[Bar]) -> str:
    """From zero to the value, with a whisker from low to high."""
    longest = max(max(row.high, row.value) for row in rows) or 1.0
    drawn = []
    for row in rows:
        low, value, high = (f"{100 * position / longest:.2f}%" for position in (row.low, row.value, row.high))
        drawn.append(
            f'<div class="bar"><span>{escape(row.label)}</span><b>{escape(row.text)}</b><i class="track">'
            f'<i class="fill" style="width:{value}"></i><i class="whisker" style="left:{low};right:calc(100% - {high})"></i></i></div>'
        )
    return f'<div class="bars">{"".join(drawn)}</div>'


def intervals(rows: Sequence[Bar]) -> str:
    """A dot at the value and a whisker, around a line at zero in the middle; as far as :data:`_LEAST_REACH` at least."""
    reach = max(_LEAST_REACH, *(abs(value) for row in rows for value in row[1:4]))

    def place(value: float) -> str:
        return f"{50 + 49 * value / reach:.2f}%"

    drawn = [
        f'<div class="bar"><span>{escape(row.label)}</span><b>{escape(row.text)}</b><i class="track zero">'
        f'<i class="whisker" style="left:{place(row.low)};right:calc(100% - {place(row.high)})"></i>'
        f'<i class="dot" style="left:{place(row.value)}"></i></i></div>'
        for row in rows
    ]
    return f'<div class="bars">{"".join(drawn)}</div>'


def curves(lines: Sequence[Line], title: str, x_name: str, y_name: str) -> str:
    """Lines over axes from 0 to 1."""
    return _figure(title, _axes([0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 0.75, 1], x_name, y_name, _unit) + _lines(lines))


def roofline(lines: Sequence[Line], dots: Sequence[Line], title: str, x_name: str, y_name: str) -> str:
    """Logarithmic: lines (roofs) and one dot for each of ``dots``."""
    every = [point for line in (*lines, *dots) for point in line.points]
    lows, highs = ([choose(point[axis] for point in every) for axis in (0, 1)] for choose in (min, max))
    exponents = [(math.floor(math.log10(low) - 1e-9), math.ceil(math.log10(high) + 1e-9)) for low, high in zip(lows, highs, strict=True)]

    def scale(x: float, y: float) -> tuple[float, float]:
        return _unit(*((math.log10(value) - low) / (high - low) for value, (low, high) in zip((x, y), exponents, strict=True)))

    ticks = [[10.0**exponent for exponent in range(low, high + 1)] for low, high in exponents]
    marks = []
    for index, dot in enumerate(dots):
        x, y = scale(*dot.points[0])
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour(index)}"><title>{escape(dot.label)}</title></circle>')
    roof = "".join(
        f'<polyline points="{" ".join("{:.1f},{:.1f}".format(*scale(*point)) for point in line.points)}" class="roof"/>' for line in lines
    )
    return _figure(title, _axes(*ticks, x_name, y_name, scale) + roof + "".join(marks))


def legend(labels: Sequence[str]) -> str:
    """In the order of what it names."""
    items = []
    for index, label in enumerate(labels):
        style = "dashed" if index >= len(COLOURS) else "solid"
        items.append(f'<li><i style="border-color:{colour(index)};border-style:{style}"></i>{escape(label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _unit(x: float, y: float) -> tuple[float, float]:
    """From 0 to 1, y upwards, to the drawing's coordinates."""
    return _LEFT + x * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM)


def _lines(lines: Sequence[Line]) -> str:
    drawn = []
    for index, line in enumerate(lines):
        points = " ".join("{:.1f},{:.1f}".format(*_unit(*point)) for point in line.points)
        dashes = ' stroke-dasharray="5 3"' if index >= len(COLOURS) else ""
        drawn.append(f'<polyline points="{points}" stroke="{colour(index)}"{dashes}><title>{escape(line.label)}</title></polyline>')
    return "".join(drawn)


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str, scale: Scale) -> str:
    drawn = []
    for tick in x_ticks:
        x, bottom = scale(tick, y_ticks[0])
        drawn.append(f'<path d="M{x:.1f} {bottom:.1f}V{_TOP}" class="grid"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{tick:g}</text>')
    for tick in y_ticks:
        left, y = scale(x_ticks[0], tick)
        drawn.append(f'<path d="M{left:.1f} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
        drawn.append(f'<text x="{left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    drawn.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>')
    drawn.append(f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>')
    return "".join(drawn)


def _figure(title: str, content: str) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{content}</svg></figure>"
    )
