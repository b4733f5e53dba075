"""Opinions: what raters said of each row, drawn."""

from __future__ import annotations

from ..study.results import Results
from . import plots


def opinions(found: Results) -> str:
    """A point with its 95% bar for each row, over 1 to 5; the rows in the order of the study, from above."""
    with plots.figure(6.4, 0.9 + 0.4 * len(found.rows)) as (axes, out):
        for i, row in enumerate(found.rows):
            if row.value is not None and row.low is not None and row.high is not None:
                ends = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
                axes.errorbar([row.value], [i], xerr=ends, ls="", ecolor=plots.look(i)["color"], lw=0.8, capsize=2)
                axes.plot([row.value], [i], ls="", **plots.look(i))
        axes.set_yticks(range(len(found.rows)), [row.row for row in found.rows])
        axes.set_ylim(len(found.rows) - 0.5, -0.5)
        axes.set_xlim(0.9, 5.1)
        axes.set_xticks(range(1, 6), [f"1\n{found.low}", "2", "3", "4", f"5\n{found.high}"])
        axes.set_xlabel("mean rating (1 to 5; bars are 95% intervals)")
    return out[0]
