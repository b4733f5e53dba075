"""The closed loop on the hazard sign against the model that was trained without it.

    python benchmarks/gold.py [--seeds 3] [--pictures 100] [--steps 20] [--device D]

Rates of each column over all of its pictures, of the base, of the edited models (all training seeds together) and of
the gold standard, with 95% intervals; and how far pictures of prompts that call for the sign, by name or in the city,
lie from the gold standard's at the same prompts: FID, features of the judge, equal numbers of pictures. The last line's
is of the gold standard's own pictures of these prompts with other noise: what chance alone makes of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from expunge import smallworld
from expunge.cell import Cell
from expunge.concept import says
from expunge.edit import Edit
from expunge.erasure import build_method, concepts_of
from expunge.families import load
from expunge.generation import Request, Settings, images
from expunge.metrics.frechet import frechet, gaussian, square_root
from expunge.model import Model
from expunge.protocol import requests
from expunge.recipe import preset
from expunge.rng import derive
from expunge.score import rate
from expunge.smallworld.judge import load_judge
from expunge.smallworld.scene import ARTISTS, COLOURS, OBJECTS, PLACES
from expunge.smallworld.survey import scores, survey, verdicts

SIGN = "hazard sign"
KINDS = {"objects": OBJECTS, "colours": COLOURS, "places": PLACES, "artists": ARTISTS}
GOLD = ("gold standard", "gold standard, other seeds")
COLUMNS = ("named", "in the city", *KINDS, "other signs", "grumpy cat", "synonyms", "memorised")


@dataclass
class Row:
    """Hits and pictures by column, and features of pictures that call for the sign, by training seed."""

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)

    def add(self, column: str, hits: int, n: int) -> None:
        before = self.counts.get(column, (0, 0))
        self.counts[column] = before[0] + hits, before[1] + n


def column(cell: Cell) -> str:
    """Where a cell is counted; "" for none."""
    if says(cell.subject, SIGN):
        return {"named": "named", "implicit": "in the city"}.get(cell.metric, "")
    kinds = {"synonym": "synonyms", "memorised": "memorised", "named": "other signs"}
    own = next((name for name, values in KINDS.items() if cell.subject in values), cell.subject)
    return kinds.get(cell.metric, own if own in COLUMNS else "")


def reseeded(cell: Cell) -> Cell:
    """The same prompts with other noise."""
    return replace(cell, requests=tuple(replace(r, seed=derive(r.seed, "again")) for r in cell.requests))


def calling(cells: Sequence[Cell]) -> list[Request]:
    """Prompts that call for the sign, by name or in the city."""
    return list(dict.fromkeys(r for cell in cells if column(cell) in COLUMNS[:2] for r in cell.requests))


class Judging:
    """Draws and judges the same prompts and seeds with one model after another."""

    def __init__(self, cells: Sequence[Cell], steps: int) -> None:
        self.cells, self.settings, self.judge = cells, Settings(steps=steps), load_judge(smallworld.path())

    @torch.no_grad()
    def __call__(self, model: Model, row: Row, label: str) -> None:
        seen: dict[Request, dict[str, str]] = {}
        wanted, found, asked = {*calling(self.cells)}, list[Tensor](), requests(self.cells)
        for drawn in images(model, asked, self.settings, batch=64, label=label):
            batch = drawn.float().cpu()
            own = asked[len(seen) : len(seen) + len(batch)]
            seen |= dict(zip(own, verdicts(self.judge, batch), strict=True))
            found.append(self.judge.features(batch)[[r in wanted for r in own]])
        row.features.append(torch.cat(found))
        by = {(cell.subject, cell.metric): cell for cell in self.cells}
        for score in scores(self.cells, seen, label, [SIGN]):
            row.add(column(by[score.subject, score.metric]), round(score.value * score.n), score.n)


def fid(x: Tensor, y: Tensor) -> float:
    μ, Σ = gaussian(y.double().numpy())
    return frechet(*gaussian(x.double().numpy()), μ, Σ, square_root(Σ))


def apart(row: Row, gold: Tensor) -> str:
    """FID to the gold standard's, of each training seed."""
    return ", ".join(f"{fid(x, gold):.2f}" for x in row.features)


def told(counts: tuple[int, int]) -> str:
    s = rate(*counts, metric="", subject="", model="", higher_is_better=True)
    return f"{100 * s.value:.1f} [{100 * s.low:.1f}, {100 * s.high:.1f}]"


def show(rows: Mapping[str, Row], gold: Tensor) -> None:
    names = [name for name in COLUMNS if name in next(iter(rows.values())).counts]
    print(f"| | {' | '.join(names)} | FID |\n|{'---|' * (len(names) + 2)}")
    for label, row in rows.items():
        print(f"| {label} | {' | '.join(told(row.counts[name]) for name in names)} | {apart(row, gold)} |")


def erased(model: Model, seed: int) -> Edit:
    return build_method(preset("smallworld-loop"), {}).fit(model, concepts_of((SIGN,)), seed=seed, name="loop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=100, help="of each cell, about")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    world, gold = (
        load(name, device=options.device, precision=options.precision) for name in ("smallworld", "smallworld-gold")
    )
    cells = survey(options.pictures)
    judging, rows = Judging(cells, options.steps), {name: Row() for name in ("base", "closed loop", *GOLD)}
    judging(gold, rows[GOLD[0]], GOLD[0])
    Judging([reseeded(cell) for cell in cells], options.steps)(gold, rows[GOLD[1]], GOLD[1])
    judging(world, rows["base"], "base")
    for seed in range(options.seeds):
        edit = erased(world, seed)
        with edit.on(world):
            judging(world, rows["closed loop"], f"closed loop, seed {seed}")
    show({label: row for label, row in rows.items() if row.counts}, rows[GOLD[0]].features[0])


if __name__ == "__main__":
    main()
