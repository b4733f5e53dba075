"""What trajectories cost for the same erasure, on the small world: published rollouts, the pool, renoised latents.

    python benchmarks/trajectories.py [--seeds 3] [--steps 200] [--lr 1e-3] [--json FILE]

All erase an artist with ESD-x at η = 3 (`esd-x-3`; at η = 1 the reference loop erases her on some seeds only), batch 1,
a 50-step grid, s = 3 and Adam, at equal gradient steps and rate, which is the one that a denoiser two hundred times
smaller than Stable Diffusion's needs: network passes, seconds, the artist's rate and what else stayed. All loops run in
one process, one after the other, seed by seed; ratios are geometric means with Student's 95% interval over the seeds.
What they need for the same erasure is benchmarks/race.py.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from expunge.cell import Cell
from expunge.concept import Concept
from expunge.demo import look
from expunge.families import load
from expunge.generation import Settings
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.protocol import requests
from expunge.score import Score, pooled
from expunge.smallworld.survey import scores, survey

ARTIST = "Orsini"
REFERENCE = "fresh"
Options = dict[str, Any]
PUBLISHED: Options = {"grid": 50, "guidance": 3.0, "eta": 3.0, "scope": "xattn", "trajectory": "fresh", "batch": 1}
EQUAL: dict[str, Options] = {
    REFERENCE: PUBLISHED,
    "pool": {**PUBLISHED, "trajectory": "pool", "grid": 10},
    "renoised": {**PUBLISHED, "trajectory": "renoised", "grid": 5},
}


def cells(pictures: int, concept: str = ARTIST) -> tuple[list[Cell], list[Cell]]:
    """The concept's cell, and every other object, colour, place and artist."""
    kept = [c for c in survey(pictures) if c.metric == "accuracy" and c.head != "grumpy"]
    return [c for c in kept if c.subject == concept], [c for c in kept if c.subject != concept]


def judged(model: Model, chosen: Sequence[Cell], concept: str = ARTIST) -> list[Score]:
    return scores(chosen, look(model, requests(chosen), Settings(steps=15), "judging"), "edit", [concept])


def kept(rows: Sequence[Score]) -> Score:
    return pooled(rows, metric="kept", subject="all others")


def ratio(reference: Sequence[float], ours: Sequence[float]) -> str:
    """Geometric mean of the paired ratios with Student's 95% interval over the seeds, where all of ours are there."""
    if not all(map(math.isfinite, ours)):
        return "no ratio, not every run is at the goal"
    logs = [math.log(a / b) for a, b in zip(reference, ours, strict=True)]
    mean = statistics.mean(logs)
    if len(logs) < 2:
        return f"{math.exp(mean):.1f}x fewer (one seed)"
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(mean):.1f}x [{math.exp(mean - half):.1f}, {math.exp(mean + half):.1f}] fewer"


def equal(model: Model, seeds: int, steps: int, lr: float, pictures: int) -> list[dict[str, Any]]:
    """Passes, calls, seconds, erased rate and retention at equal gradient steps."""
    own, others = cells(pictures)
    print(f"base: {ARTIST} {judged(model, own)[0]}, all others {kept(judged(model, others))}")
    print(f"{'loop':10} seed passes  calls seconds  {ARTIST:22} {'all others':22} worst other")
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        for name, options in EQUAL.items():
            edit = ESD(steps=steps, lr=lr, **options).fit(model, [Concept(name=ARTIST)], seed=seed)
            with edit.on(model):
                gone, stayed = judged(model, own)[0], judged(model, others)
            cost, worst = edit.provenance["cost"], min(stayed, key=lambda s: s.value)
            rows.append({"loop": name, "seed": seed, **cost, "erased": gone.row(), "kept": kept(stayed).row()})
            print(
                f"{name:10} {seed:4} {cost['passes']:6} {cost['calls']:6} {cost['seconds']:7.1f}  {gone!s:22}"
                f" {kept(stayed)!s:22} {worst.subject} {worst}",
                flush=True,
            )
    summary(rows, EQUAL, "passes", "seconds")
    return rows


def summary(rows: Sequence[dict[str, Any]], loops: dict[str, Options], *columns: str) -> None:
    """Every loop's ratios against the reference, seed by seed."""
    for name in loops:
        found = [f"{c} {ratio(*([r[c] for r in rows if r['loop'] == k] for k in (REFERENCE, name)))}" for c in columns]
        print(f"{name:10} {', '.join(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pictures", type=int, default=36, help="of each object; six tenths more of each artist")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = equal(load("smallworld"), options.seeds, options.steps, options.lr, options.pictures)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
