"""What the small world's presets erase, and what else they change.

    python benchmarks/presets.py [--pictures 250] [--steps 20] [--seeds 1] [--only NAME] [--json FILE]

For each case: the erased concept's rate, and the worst loss against the base among objects, artists and places, each
with its 95% interval, base and edit on the same prompts and seeds. The last case is the gold standard, trained without
the sign and judged in the same way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.cell import Cell
from expunge.concept import Concept, filled, says
from expunge.demo import look, measure
from expunge.edit import Edit
from expunge.erasure import build_method
from expunge.families import GOLD, load
from expunge.generation import Settings
from expunge.model import Model
from expunge.protocol import requests
from expunge.recipe import preset
from expunge.score import Score
from expunge.smallworld.scene import ARTISTS, OBJECTS, PLACES
from expunge.smallworld.survey import scores, survey


@dataclass(frozen=True)
class Case:
    """A concept, the preset that erases it, and how many points others may lose."""

    concept: str
    preset: str
    most: float


CASES = (
    Case("Marlow", "smallworld-artist", 0.05),
    Case("hazard sign", "smallworld-sign", 0.05),
    Case("car", "smallworld-object", 0.10),
)


SIGN = CASES[1]


def chosen(cells: Sequence[Cell], case: Case) -> list[Cell]:
    """The concept's own cells, named, by its synonym and implied; every object, artist and place.

    Captions that the preset itself holds are left out.
    """
    kept, held = (*OBJECTS, *ARTISTS, *PLACES), captions(case)
    found = [c for c in cells if c.subject in kept or (c.mentions([case.concept]) and c.metric != "stray")]
    return [replace(c, requests=tuple(r for r in c.requests if r.prompt not in held)) for c in found]


def captions(case: Case) -> set[str]:
    """What the preset moves or keeps."""
    options = preset(case.preset).options
    marked = [*options.get("contexts", ()), *options.get("implied", ())]
    return {text for caption in marked for text in filled(caption, case.concept)} | {*options["keep"]}


def report(case: Case, name: str, base: Sequence[Score], after: Sequence[Score]) -> list[dict[str, Any]]:
    """Prints the case's rows: erased cells, then the five worst others."""
    before = {(s.subject, s.metric): s for s in base}
    gone = [s for s in after if says(s.subject, case.concept) and s.metric != "stray"]
    others = [s for s in after if s.higher_is_better]
    others.sort(key=lambda s: s.value - before[s.subject, s.metric].value)
    met = all(s.value <= 0.05 for s in gone) and all(loss(s, before) <= case.most + 1e-9 for s in others)
    least = min(s.n for s in [*gone, *others])
    print(f"\n{case.concept} by {name}: {'all goals met' if met else 'MISSED'}, at least {least} pictures a cell")
    for s in [*gone, *others[:5]]:
        print(f"  {s.subject:28} {s.metric:9} base {before[s.subject, s.metric]!s:24} edit {s!s:24} n={s.n}")
    return [
        s.row() | {"case": case.concept, "model": name, "base": before[s.subject, s.metric].value}
        for s in [*gone, *others]
    ]


def loss(score: Score, before: dict[tuple[str, str], Score]) -> float:
    return before[score.subject, score.metric].value - score.value


def measured(model: Model, edit: Edit | None, cells: Sequence[Cell], settings: Settings, case: Case) -> list[Score]:
    return measure(model, edit, cells, settings, [case.concept], case.preset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pictures", type=int, default=250, help="pictures for each object, of which a sixth names the artist"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", help="one concept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model, settings = load("smallworld"), Settings(steps=options.steps)
    rows: list[dict[str, Any]] = []
    cases = [c for c in CASES if options.only in (None, c.concept)]
    cells = {c.concept: chosen(survey(options.pictures), c) for c in cases}
    edits = []
    for case in cases:
        for seed in range(options.seeds):
            method = build_method(preset(case.preset), {})
            edits.append(
                (case, method.fit(model, [Concept(name=case.concept)], seed=seed, name=f"{case.preset}, seed {seed}"))
            )
            print(f"{case.concept}, seed {seed}: {edits[-1][1].provenance['cost']}", flush=True)
    seen = look(model, requests([c for case in cases for c in cells[case.concept]]), settings, "judging base")
    for case, edit in edits:
        base = scores(cells[case.concept], seen, "base", [case.concept])
        rows += report(case, edit.name, base, measured(model, edit, cells[case.concept], settings, case))
    if SIGN in cases:
        base = scores(cells[SIGN.concept], seen, "base", [SIGN.concept])
        rows += report(SIGN, GOLD, base, measured(load(GOLD), None, cells[SIGN.concept], settings, SIGN))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
