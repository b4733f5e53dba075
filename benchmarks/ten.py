"""Ten concepts of the small world: erased at once, and one after another, each undone again.

    python benchmarks/ten.py [--alone] [--once] [--edits DIR] [--seed 0] [--pictures 100] [--steps 10] [--device D]

Each is erased by the preset smallworld-loop, unless DIR has its edit, beside those before it, or --alone (as
closed_loop.py keeps them), and all edits are put on the model together; with --once, next to it one edit that was told
all ten. A line tells each concept's rate, of the base, with all ten edits, with all but its own, and with the one edit;
the last two the mean and the worst of all others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from closed_loop import Cell, hits, told
from methods import Looker, Strange

from expunge import smallworld
from expunge.concept import says
from expunge.edit import Edit
from expunge.erasure import build_method, concepts_of
from expunge.families import load
from expunge.generation import Settings
from expunge.model import Model
from expunge.protocol import requests
from expunge.recipe import preset
from expunge.smallworld.judge import load_judge
from expunge.smallworld.survey import scores, survey

TEN = ("car", "fish", "house", "cat", "Marlow", "Orsini", "Kessel", "hazard sign", "stop sign", "blue")
OWN = ("accuracy", "named", "implicit")


def erased(model: Model, names: Sequence[str], seed: int, file: Path, beside: Sequence[Path] = ()) -> Edit:
    """From the folder, or erased now and kept there."""
    if file.exists():
        return Edit.load(file)
    method = build_method(preset("smallworld-loop"), {"beside": [*map(str, beside)]})
    edit = method.fit(model, concepts_of(names), seed=seed, name=file.stem)
    edit.save(file)
    print(f"{file.stem}: {edit.provenance['loop']['ended']}, {edit.provenance['cost']['seconds']:.0f} s", flush=True)
    return edit


class Judging:
    """The same pictures under one set of edits after another."""

    def __init__(self, model: Model, pictures: int, steps: int) -> None:
        judge = load_judge(smallworld.path())
        self.model, self.cells = model, survey(pictures, seed=7)
        self.looker = Looker(judge, Strange(judge), Settings(steps=steps))

    def __call__(self, edits: Sequence[Edit], label: str, only: str = "") -> dict[tuple[str, str], tuple[int, int]]:
        """Hits and pictures of every cell, or of one concept's."""
        cells = [c for c in self.cells if not only or (of(c.subject) == only and c.metric in OWN)]
        with ExitStack() as on:
            for edit in edits:
                on.enter_context(edit.on(self.model))
            seen = self.looker(self.model, requests(cells), label)
        return {(s.subject, s.metric): (hits(s), s.n) for s in scores(cells, seen, label, TEN)}


Found = dict[tuple[str, str], tuple[int, int]]


def own(found: Found, name: str) -> str:
    return told([Cell(0, *pair) for (subject, metric), pair in found.items() if metric in OWN and of(subject) == name])


def of(subject: str) -> str:
    """The concept of a cell: "hazard sign" of "hazard sign in the city"."""
    return subject.split(" in the ")[0]


def others(base: Found, found: Found) -> tuple[str, str]:
    """What all others lost on the mean, and the worst of them."""
    kept = ("accuracy", "named", "memorised", "synonym")
    keys = [k for k in found if k[1] in kept and not any(says(k[0], name) for name in TEN)]
    cells = {k: Cell(base[k][0], *found[k]) for k in keys}
    worst = max(keys, key=lambda k: cells[k].lost)
    cell = cells[worst]
    mean = sum(c.lost for c in cells.values()) / len(cells)
    return (
        f"{-100 * mean:+.1f}",
        f"{worst[0]} {100 * cell.before / cell.n:.0f} → {100 * cell.after / cell.n:.0f} ({cell.n})",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help="each edit is made without the others")
    parser.add_argument("--once", action="store_true", help="one edit of all ten, too")
    parser.add_argument("--edits", type=Path, default=Path("edits"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    model = load("smallworld", device=options.device, precision=options.precision)
    kind = "" if options.alone else "beside-"
    files = [options.edits / f"{kind}{n}-{options.seed}.safetensors" for n in TEN]
    before = [() if options.alone else files[:i] for i in range(len(TEN))]
    each = {n: erased(model, [n], options.seed, f, b) for n, f, b in zip(TEN, files, before, strict=True)}
    judging = Judging(model, options.pictures, options.steps)
    base, found = judging([], "base"), {"ten edits": judging([*each.values()], "ten edits")}
    if options.once:
        once = erased(model, TEN, options.seed, options.edits / f"ten-{options.seed}.safetensors")
        found["one edit"] = judging([once], "one edit")
    undone = {n: judging([e for other, e in each.items() if other != n], f"{n} undone", n) for n in TEN}
    print(f"| | base | {' | '.join(found)} | all but its own |\n|{'---|' * (3 + len(found))}")
    for name in TEN:
        print(f"| {name} | {' | '.join(own(one, name) for one in (base, *found.values(), undone[name]))} |")
    for k, label in enumerate(("mean of others", "worst other")):
        print(f"| {label} | | {' | '.join(others(base, one)[k] for one in found.values())} | |")


if __name__ == "__main__":
    main()
