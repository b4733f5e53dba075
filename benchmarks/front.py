"""Erased against kept: every method at every setting of a sweep beside the closed loop, for each kind of concept.

    python benchmarks/front.py [--out FILE.jsonl] [--edits DIR] [--case NAME]... [--method NAME]... [--device D]
    python benchmarks/front.py [--out FILE.jsonl] --show

Each trained method of methods.py is looked at after each of STEPS, closed forms once, at each of STRENGTHS, the
strongest first, until one shows the concept in more than a few pictures: weaker ones would, too. Of the others more
pictures are drawn, of the concept and of everything else, the same for all points of a concept; the weakest first,
which takes least, until one shows the concept in none. The closed loop is judged on the same; its edit is made unless
DIR has it, as closed_loop.py keeps them. A line of the file is one point, so a run goes on where it was left.

Where a rival comes near, --case and --method with more --others, to another file, tell which lies better.

--show prints for each concept the closed loop, and of each method the point that keeps most of those that leave at most
5%; which methods leave more wherever they were looked at; and which points lie better than the closed loop, if any: no
more is left, no less is kept, and either is better.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from closed_loop import GONE, Cell, hits, kind, lost, recorded, told
from methods import CASES, METHODS, PLACES_ELSEWHERE, Case, Looker, Strange, concepts, recipe
from tqdm import tqdm

from expunge import cell as survey_cell
from expunge import smallworld
from expunge.concept import says
from expunge.edit import Edit
from expunge.erasure import build_method, concepts_of
from expunge.families import load
from expunge.generation import Settings
from expunge.method import Trained
from expunge.model import Model
from expunge.protocol import requests
from expunge.recipe import preset
from expunge.smallworld.judge import load_judge
from expunge.smallworld.survey import scores, survey

STEPS, STRENGTHS = (120, 240), (1.5, 1.0, 0.75, 0.5)
FIRST = 16
"""Pictures of the concept at first, of each way of asking for it."""
MOST = 0.06
"""Of the first pictures, what may still show it where others are looked at."""
LEFT = 0.05
"""What a point may leave to be shown."""
LOOP = "closed loop"
WORDS = "smallworld-object"
"""The preset for what has none of its own."""
COMPARED = ("artist", "object", "sign", "two words", "memory")
KINDS = (
    *(replace(c, tuned=c.tuned or WORDS) for c in CASES if c.name in COMPARED),
    Case(
        "colour", ("blue",), anchor="red", tuned=WORDS,
        prompts=tuple(f"a red {thing} {at}" for thing in ("cat", "house", "boat") for at in PLACES_ELSEWHERE),
    ),
    Case(
        "place", ("city",), anchor="forest", tuned=WORDS,
        prompts=tuple(f"a {c} {of} in the forest" for of in ("cat", "house", "boat") for c in ("red", "blue", "white")),
    ),
)  # fmt: skip
RIVALS = (*(name for name in METHODS if name not in (LOOP, "esd, others kept")), "tuned")


@dataclass(frozen=True)
class Stage:
    """A method's edit after so many steps, at these strengths."""

    method: str
    steps: int
    edit: Edit
    strengths: Sequence[float]


def stages(
    case: Case, method: str, model: Model, folder: Path, edits: Path, seed: int, strengths: Sequence[float]
) -> Iterator[Stage]:
    """All that one method comes to."""
    if method == LOOP:
        yield Stage(method, 0, looped(case, model, edits, seed), (1.0,))
        return
    how = recipe(case, method, folder)
    if how is None:
        return
    built = build_method(how, {"steps": STEPS[-1]} if how.method != "uce" else {})
    marks = {n: folder / f"{n}.safetensors" for n in STEPS[:-1]} if isinstance(built, Trained) else {}
    last = built.fit(model, concepts(case, built), seed=seed, name=method, marks=marks)
    found = {n: Edit.load(file) for n, file in marks.items()} | {STEPS[-1] if marks else 0: last}
    yield from (Stage(method, n, edit, strengths) for n, edit in found.items())


def looped(case: Case, model: Model, edits: Path, seed: int) -> Edit:
    """The closed loop's."""
    file = edits / f"{'+'.join(case.concepts)}-{seed}.safetensors"
    if not file.exists():
        build_method(preset("smallworld-loop"), {}).fit(model, concepts_of(case.concepts), seed=seed).save(file)
    return Edit.load(file)


@dataclass
class Judging:
    """The same pictures of one case under one edit after another: so many of the concept, and of each other word."""

    model: Model
    looker: Looker
    case: Case
    pictures: tuple[int, int]

    def __post_init__(self) -> None:
        self.first = [c for c in survey(FIRST, 11) if self.own(c)]
        self.more = [c for c in survey(self.pictures[0], 12) if self.own(c)]
        self.others = [
            c for c in survey(self.pictures[1], 13) if not c.mentions(self.case.concepts) and c.metric != "stray"
        ]
        self.before = self.counted(self.others, "base")

    def own(self, cell: survey_cell.Cell) -> bool:
        names = self.case.concepts
        return any(says(cell.subject, name) for name in names) and kind((cell.subject, cell.metric), names) in GONE

    def counted(self, cells: Sequence[survey_cell.Cell], label: str) -> dict[tuple[str, str], tuple[int, int]]:
        """Hits and pictures of each cell, of the model as it is."""
        seen = self.looker(self.model, requests(cells), f"{self.case.name}: {label}")
        return {(s.subject, s.metric): (hits(s), s.n) for s in scores(cells, seen, label, self.case.concepts)}

    def __call__(self, stage: Stage) -> list[dict[str, Any]]:
        """Lines of the file."""
        rows = list[dict[str, Any]]()
        for strength in stage.strengths:
            about = {"case": self.case.name, "method": stage.method, "steps": stage.steps, "strength": strength}
            with stage.edit.on(self.model, strength):
                rows.append({**about, "left": added(self.counted(self.first, stage.method)), "others": []})
            if left(rows[-1]) > MOST:
                break
        for row in reversed([row for row in rows if left(row) <= MOST]):
            with stage.edit.on(self.model, row["strength"]):
                row |= self.further(row, stage.method)
            if not row["left"][0]:
                break
        return rows

    def further(self, row: Mapping[str, Any], label: str) -> dict[str, Any]:
        """More pictures of the concept, and of others."""
        more, after = added(self.counted(self.more, label)), self.counted(self.others, label)
        return {
            "left": [a + b for a, b in zip(row["left"], more, strict=True)],
            "others": [[*key, self.before[key][0], *pair] for key, pair in after.items()],
        }


def added(found: Mapping[Any, tuple[int, int]]) -> list[int]:
    return [sum(column) for column in zip(*found.values(), strict=True)]


def left(row: Mapping[str, Any]) -> float:
    return float(row["left"][0] / row["left"][1])


def kept(row: Mapping[str, Any]) -> float:
    """The mean change of others; the loss, if they were looked at, is what closed_loop.py tells."""
    return -lost(cells(row), [])[0] if row["others"] else -1.0


def cells(row: Mapping[str, Any]) -> dict[tuple[str, str], Cell]:
    return {(subject, metric): Cell(*counts) for subject, metric, *counts in row["others"]}


def better(row: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    """Whether a point lies better than another: nowhere worse, and somewhere better."""
    if not row["others"]:
        return False
    gains = (left(than) - left(row), kept(row) - kept(than))
    return min(gains) >= 0 and max(gains) > 0


def line(row: Mapping[str, Any]) -> str:
    setting = f"{row['steps'] or '–'} × {row['strength']}" if row["method"] != LOOP else "–"
    head = f"| {row['case']} | {row['method']} | {setting} | {told([Cell(0, *row['left'])])}"
    if not row["others"]:
        return f"{head} | – | – |"
    mean, found = lost(cells(row), [])
    (name, _), worst = max(found.items(), key=lambda pair: pair[1].lost)
    n = sum(cell.n for cell in found.values())
    return f"{head} | {-100 * mean:+.1f} ({n}) | {name} {worst.before} → {worst.after} of {worst.n} |"


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table, and below it who leaves too much, and who lies better."""
    notes = list[str]()
    print(f"| kind | method | steps × strength | left | others (pictures) | worst other |\n{'|---' * 6}|")
    for case in KINDS:
        own = [row for row in rows if row["case"] == case.name]
        loop = next((row for row in own if row["method"] == LOOP), None)
        if loop is None:
            continue
        print(line(loop))
        gone = {m: [r for r in own if r["method"] == m and r["others"] and left(r) <= LEFT] for m in RIVALS}
        for found in sorted((max(tried, key=kept) for tried in gone.values() if tried), key=kept, reverse=True):
            print(line(found))
        least = {m: [r for r in own if r["method"] == m] for m, tried in gone.items() if not tried}
        more = ", ".join(f"{m} {100 * left(min(tried, key=left)):.0f}" for m, tried in least.items() if tried)
        ahead = ", ".join(f"{r['method']} ({r['steps']} × {r['strength']})" for r in own if better(r, loop))
        notes.append(
            f"{case.name}: at least left, percent: {more or '–'}; better than the closed loop: {ahead or 'none'}"
        )
    print("\n" + "\n".join(notes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--edits", type=Path, default=Path("edits"))
    parser.add_argument("--case", action="append", choices=[c.name for c in KINDS])
    parser.add_argument("--method", action="append", choices=[LOOP, *RIVALS])
    parser.add_argument("--seed", type=int, default=0, help="of every training")
    parser.add_argument("--strength", type=float, action="append", help="instead of all, the strongest first")
    parser.add_argument("--more", type=int, default=40, help="pictures, then, of each way of asking for the concept")
    parser.add_argument("--others", type=int, default=5, help="pictures of each other word")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    if options.show:
        show([*recorded(options.out)])
        return
    model, judge = load("smallworld", device=options.device, precision=options.precision), load_judge(smallworld.path())
    looker = Looker(judge, Strange(judge), Settings(steps=options.steps))
    strengths = options.strength or STRENGTHS
    for case in KINDS:
        known = {row["method"] for row in recorded(options.out) if row["case"] == case.name}
        wanted = [m for m in options.method or (LOOP, *RIVALS) if m not in known]
        if case.name not in (options.case or [case.name]) or not wanted:
            continue
        judging = Judging(model, looker, case, (options.more, options.others))
        for method in wanted:
            with tempfile.TemporaryDirectory() as folder:
                own = stages(case, method, model, Path(folder), options.edits, options.seed, strengths)
                rows = [row for stage in own for row in judging(stage)]
            with options.out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            for row in rows:
                tqdm.write(line(row))


if __name__ == "__main__":
    main()
