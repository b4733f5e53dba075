"""Plots as SVG texts: readable in black and white, with units; the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

MARKS = "os^Dv<>Ph*X"
GREYS = ("#000000", "#5a5a5a", "#8c8c8c")
DASHES = ("-", "--", ":", "-.")
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "expunge", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
    "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes, and the list that holds the SVG after the block. Sizes in inches."""
    out: list[str] = []
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(made)
        yield made.subplots(), out
        file = io.StringIO()
        made.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = file.getvalue()
    out.append(re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL))


def named(text: str) -> str:
    """A text that a legend shows: it leaves those out that begin with an underscore."""
    return f" {text}" if text.startswith("_") else text


def look(i: int) -> dict[str, Any]:
    """The i-th row's mark, and its grey."""
    return {"marker": MARKS[i % len(MARKS)], "color": GREYS[(i // len(MARKS)) % len(GREYS)], "markersize": 7}


@dataclass(frozen=True)
class Dot:
    """A value with its 95% interval, on each axis."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def front(dots: Sequence[Dot]) -> list[Dot]:
    """Those that none beats in both: less x and more y."""
    return [d for d in dots if not any(_beats(o, d) for o in dots)]


def _beats(a: Dot, b: Dot) -> bool:
    return a.x[0] <= b.x[0] and a.y[0] >= b.y[0] and (a.x[0], a.y[0]) != (b.x[0], b.y[0])


def pareto(dots: Sequence[Dot], kept: str = "all else as asked", unit: str = "%") -> str:
    """Erased in percent against kept, in percent or as it is; the line joins those that none beats in both."""
    scale = 100 if unit == "%" else 1
    with figure(8.4, 4.2) as (axes, out):
        best = sorted(front(dots), key=lambda d: d.x[0])
        axes.plot([100 * d.x[0] for d in best], [scale * d.y[0] for d in best], "-", color="#bbbbbb", lw=3, zorder=1)
        for i, dot in enumerate(dots):
            (x, left, right), (y, low, high) = _bars(dot.x), _bars(dot.y, scale)
            grey = look(i)["color"]
            axes.errorbar(x, y, xerr=[[left], [right]], yerr=[[low], [high]], ls="", ecolor=grey, lw=0.8, capsize=2)
            axes.plot([x], [y], ls="", label=named(dot.name), **look(i))
        axes.set_xlabel("still shown of what is erased, asked for as it leaks most (%; less is better)")
        axes.set_ylabel(f"{kept} ({unit}; more is better)".replace("(; ", "("))
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return out[0]


def _bars(value: tuple[float, float, float], scale: float = 100) -> tuple[float, float, float]:
    middle, low, high = (scale * v for v in value)
    return middle, max(0.0, middle - low), max(0.0, high - middle)


@dataclass(frozen=True)
class Course:
    """Erased and kept of one series over a setting's values, each a rate with its interval's ends."""

    name: str
    values: Sequence[float]
    erased: Sequence[tuple[float, float, float]]
    kept: Sequence[tuple[float, float, float]]


def courses(found: Sequence[Course], label: str) -> str:
    """Solid: what is still shown of what is erased; dashed: all else as asked; both in percent with 95% bars."""
    with figure(8.4, 4.2) as (axes, out):
        for i, c in enumerate(found):
            for rates, line, said in ((c.erased, "-", "still shown"), (c.kept, "--", "all else")):
                bars = [_bars(r) for r in rates]
                middle, ends = [b[0] for b in bars], [[b[k] for b in bars] for k in (1, 2)]
                axes.errorbar(c.values, middle, yerr=ends, ls="", ecolor=look(i)["color"], lw=0.8, capsize=2)
                axes.plot(c.values, middle, ls=line, label=named(f"{c.name}: {said}".removeprefix(": ")), **look(i))
        axes.set_xlabel(label)
        axes.set_ylabel("pictures (%)")
        axes.set_ylim(-3, 103)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return out[0]


def looks(found: Sequence[Mapping[str, Any]]) -> str:
    """A loop's course over its steps: "left" and "gone" of each look with their intervals, in percent."""
    with figure(8.4, 3.8) as (axes, out):
        kinds = (("left", "-", "pictures that still show it"), ("gone", "--", "words of others that were lost"))
        for i, (key, line, said) in enumerate(kinds):
            steps, sizes = [row["step"] for row in found], [90 if row["proof"] else 25 for row in found]
            values = [_hundred(row[key]) for row in found]
            axes.plot(steps, [v[0] for v in values], ls=line, color=GREYS[i], lw=1.6, label=said)
            axes.scatter(steps, [v[0] for v in values], s=sizes, marker=MARKS[i], color=GREYS[i], zorder=3)
            lows, highs = [v[1] for v in values], [v[2] for v in values]
            axes.fill_between(steps, lows, highs, color=GREYS[i], alpha=0.14, lw=0)
        axes.set_xlabel("gradient steps")
        axes.set_ylabel("share (%)")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    return out[0]


@dataclass(frozen=True)
class Curve:
    """A rate over thresholds, with its interval's ends."""

    name: str
    thresholds: Sequence[float]
    rates: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def curves(found: Sequence[Curve], label: str, chosen: float) -> str:
    """Shares above each threshold in percent, bands are 95% intervals; `chosen` is the protocol's threshold."""
    with figure(6.4, 3.6) as (axes, out):
        for i, c in enumerate(found):
            grey = GREYS[i % len(GREYS)]
            axes.plot(
                c.thresholds, _hundred(c.rates), color=grey, ls=DASHES[i % len(DASHES)], lw=1.6, label=named(c.name)
            )
            axes.fill_between(c.thresholds, _hundred(c.lows), _hundred(c.highs), color=grey, alpha=0.12, lw=0)
        axes.axvline(chosen, color="#999999", lw=1)
        axes.set_xlabel(f"threshold of {label}")
        axes.set_ylabel("pictures above it (%)")
        axes.legend(fontsize=8)
    return out[0]


def _hundred(values: Sequence[float]) -> list[float]:
    return [100 * v for v in values]


Spot = tuple[str, float, float]
"""A concept, its distance, and by how much it got worse."""


def distances(found: Mapping[str, Sequence[Spot]]) -> str:
    """Damage of other concepts against their distance from what is erased; the worst of each row are named."""
    with figure(6.4, 4.2) as (axes, out):
        for i, (name, spots) in enumerate(found.items()):
            axes.plot(
                [s[1] for s in spots], [100 * s[2] for s in spots], ls="", **look(i), alpha=0.75, label=named(name)
            )
            for text, x, y in sorted((s for s in spots if s[2] > 0), key=lambda s: -s[2])[:3]:
                axes.annotate(text, (x, 100 * y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.axhline(0, color="#999999", lw=1)
        axes.set_xlabel("distance of the name from what is erased (1 − cosine of text embeddings)")
        axes.set_ylabel("worse than the base (points)")
        axes.legend(fontsize=8)
    return out[0]
