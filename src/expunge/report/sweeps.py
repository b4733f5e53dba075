"""What a sweep shows besides its audit: erased and kept over each setting that takes several numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..result import Result
from ..summary import Summary, summary
from ..sweep import Made, shown
from . import plots

Settings = Mapping[str, object]


def figures(made: Sequence[Made], found: Sequence[Result]) -> list[tuple[str, str]]:
    """A title and a plot for each such setting; snapshots are values of "steps"."""
    every = [settings(m) for m in made]
    fixed = {key for key in every[0] if len({str(values.get(key)) for values in every}) == 1}
    rows = [
        ({k: v for k, v in values.items() if k not in fixed}, summary(found, m.row.name))
        for values, m in zip(every, made, strict=True)
    ]
    names = list(dict.fromkeys(key for values, _ in rows for key in values if key != "run"))
    drawn = [(name, series(name, rows)) for name in names]
    return [(f"over {name}", plots.courses(courses, name)) for name, courses in drawn if courses]


def settings(made: Made) -> Settings:
    """What tells the edit from the sweep's others."""
    return {"run": made.point.run, **made.point.values, "steps": made.steps}


def series(name: str, rows: Sequence[tuple[Settings, Summary]]) -> list[plots.Course]:
    """The rows that differ in this setting alone, if it takes several numbers."""
    groups: dict[str, list[tuple[float, Summary]]] = {}
    for values, row in rows:
        value = values.get(name)
        if isinstance(value, int | float):
            rest = " ".join(str(v) if k == "run" else f"{k}={shown(v)}" for k, v in values.items() if k != name)
            groups.setdefault(rest, []).append((float(value), row))
    told = {rest: sorted(own, key=lambda pair: pair[0]) for rest, own in groups.items() if len({v for v, _ in own}) > 1}
    return [course(rest, own) for rest, own in told.items()]


def course(name: str, own: Sequence[tuple[float, Summary]]) -> plots.Course:
    both = [(v, s.leak.score, s.kept.score) for v, s in own if s.leak and s.kept]
    return plots.Course(
        name,
        [v for v, _, _ in both],
        [(e.value, e.low, e.high) for _, e, _ in both],
        [(k.value, k.low, k.high) for _, _, k in both],
    )
