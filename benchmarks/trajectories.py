"""What trajectories cost for the same erasure, on the small world: published rollouts, the pool, renoised latents.

    python benchmarks/trajectories.py equal [--seeds 3] [--steps 200] [--lr 1e-3] [--json FILE]
    python benchmarks/trajectories.py tuned [--seeds 3] [--loop NAME]... [--json FILE]

Both erase an artist with ESD-x at η = 3 (`esd-x-3`; at η = 1 the reference loop erases her on some seeds only), batch
1, a 50-step grid, s = 3 and Adam, but at the learning rates that a denoiser two hundred times smaller than Stable
Diffusion's needs. `equal`: equal gradient steps and rate; network passes, seconds, the artist's rate and what else
stayed. `tuned`: every loop at its own best rate, found on another seed by halving and doubling until both neighbours
of the best are worse; seconds of training until the artist's rate is at most 5% and stays there for three more
checkpoints, each 20% later than the one before. A run of the reference that is not there after `--steps` counts with
the seconds that it had, so that the ratio is a lower bound, and is called one. Judging is not counted in the seconds.
All loops run in one process, one after the other, seed by seed; ratios are geometric means with Student's 95% interval
over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
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
from expunge.training import Trainer

ARTIST = "Orsini"
GOAL = 0.05
REFERENCE = "fresh"
Options = dict[str, Any]
PUBLISHED: Options = {"grid": 50, "guidance": 3.0, "eta": 3.0, "scope": "xattn", "trajectory": "fresh", "batch": 1}
EQUAL: dict[str, Options] = {
    REFERENCE: PUBLISHED,
    "pool": {**PUBLISHED, "trajectory": "pool", "grid": 10},
    "renoised": {**PUBLISHED, "trajectory": "renoised", "grid": 5},
}
TUNED: dict[str, Options] = {
    REFERENCE: PUBLISHED,
    "pool": {**PUBLISHED, "trajectory": "pool", "grid": 10, "batch": 4},
    "renoised": {**PUBLISHED, "trajectory": "renoised", "grid": 5, "latents": 8, "batch": 4},
}


def cells(pictures: int) -> tuple[list[Cell], list[Cell]]:
    """The artist's cell, and every other object, colour, place and artist."""
    kept = [c for c in survey(pictures) if c.metric == "accuracy" and c.head != "mood"]
    return [c for c in kept if c.subject == ARTIST], [c for c in kept if c.subject != ARTIST]


def judged(model: Model, chosen: Sequence[Cell]) -> list[Score]:
    return scores(chosen, look(model, requests(chosen), Settings(steps=15), "judging"), "edit", [ARTIST])


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


class Enough(Exception):
    """The artist is gone and has stayed gone, or the run is given up."""


@dataclass
class Watch:
    """Judges at checkpoints with the clock stopped; `log` holds (step, training seconds, erased rate).

    A run that has not reached the goal in `limit` seconds is given up: another was faster.
    """

    model: Model
    own: Sequence[Cell]
    limit: float = math.inf
    next: int = 8
    stay: int = 3
    log: list[tuple[int, float, float]] = field(default_factory=list)
    others: Sequence[Cell] = ()
    kept: Score | None = None

    def __post_init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, trainer: Trainer, _loss: float) -> None:
        if trainer.step < self.next:
            return
        elapsed, self.next = time.monotonic() - self.start, math.ceil(trainer.step * 1.2)
        parameters = self.model.parameters()
        before = {k: parameters[k].detach().clone() for k in trainer.parameters}
        with torch.no_grad():
            put(parameters, trainer.parameters)
            self.log.append((trainer.step, elapsed, judged(self.model, self.own)[0].value))
            enough = len(self.log) > self.stay and all(v <= GOAL for _, _, v in self.log[-self.stay - 1 :])
            if enough and self.others:
                self.kept = kept(judged(self.model, self.others))
            put(parameters, before)
        if enough or (elapsed > self.limit and self.log[-1][2] > GOAL):
            raise Enough
        self.start = time.monotonic() - elapsed

    @property
    def reached(self) -> tuple[int, float]:
        """Step and training seconds of the first checkpoint of those that stayed; infinite seconds if they did not."""
        late = [i for i, (_, _, value) in enumerate(self.log) if value > GOAL]
        first = late[-1] + 1 if late else 0
        return self.log[first][:2] if len(self.log) - first > self.stay else (self.log[-1][0], math.inf)

    @property
    def touched(self) -> float:
        """Training seconds of the first checkpoint at the goal, whether it stays there or not; infinite without one."""
        return next((seconds for _, seconds, value in self.log if value <= GOAL), math.inf)

    @property
    def left(self) -> float:
        """The mean erased rate of the last checkpoints."""
        return statistics.mean(value for _, _, value in self.log[-self.stay - 1 :])


def put(parameters: dict[str, Any], values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)


def race(
    model: Model, options: Options, lr: float, seed: int, pictures: int, most: int, limit: float | None = None
) -> Watch:
    """One run to the goal, or to `most` steps; what else stayed is judged if it has no `limit`."""
    own, others = cells(pictures)
    watch = Watch(model, own, limit or math.inf, others=() if limit else others)
    with suppress(Enough):
        ESD(steps=most, lr=lr, **options).fit(model, [Concept(name=ARTIST)], seed=seed, on_step=watch)
    return watch


def best_rate(model: Model, name: str, options: Options, lr: float, pictures: int, most: int) -> float:
    """The learning rate, on a seed of its own, that reaches the goal sooner than its half and its double.

    If none does, the one that leaves least.
    """
    found: dict[float, tuple[float, float]] = {}
    while True:
        best = min(found, key=lambda k: found[k]) if found else lr
        todo = [r for r in (best, 2 * best, best / 2) if r not in found]
        if not todo:
            return best
        watch = race(model, options, todo[0], 1000, pictures, most, min([*(t for t, _ in found.values()), 600]))
        found[todo[0]] = watch.reached[1], watch.left
        print(f"{name:10} lr {todo[0]:.1e}: {told(watch)}", flush=True)


def told(watch: Watch) -> str:
    step, seconds = watch.reached
    once = f"there once after {watch.touched:.1f} s, " if math.isfinite(watch.touched) else ""
    missed = f"not there after {watch.log[-1][1]:.1f} s, {once}{watch.left:.1%} left at the last checkpoints"
    return f"{seconds:7.1f} s, {step} steps" if math.isfinite(seconds) else missed


def tuned(model: Model, seeds: int, loops: dict[str, Options], most: int, pictures: int) -> list[dict[str, Any]]:
    """Seconds to a rate of at most 5% that stays, at each loop's best learning rate."""
    rates = {name: best_rate(model, name, options, 1e-3, pictures, most) for name, options in loops.items()}
    print(f"{'loop':10} seed lr      time to {GOAL:.0%} that stays; all others, three checkpoints later")
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        for name, options in loops.items():
            watch = race(model, options, rates[name], seed, pictures, most)
            rows.append({"loop": name, "seed": seed, "lr": rates[name], **raced(name, watch)})
            print(f"{name:10} {seed:4} {rates[name]:.1e} {told(watch)}; {watch.kept or ''}", flush=True)
    conclude(rows, loops)
    return rows


def raced(name: str, watch: Watch) -> dict[str, Any]:
    """What a run came to: the reference, if it is not there, with the seconds that it had."""
    seconds = watch.reached[1]
    there = math.isfinite(seconds)
    spent = watch.log[-1][1] if name == REFERENCE and not there else seconds
    kept = watch.kept and watch.kept.row()
    return {"seconds": spent, "there": there, "touched": watch.touched, "log": watch.log, "kept": kept}


def conclude(rows: Sequence[dict[str, Any]], loops: dict[str, Options]) -> None:
    """The ratios; and what they are by the first moment at the goal, whether it stays or not, where both had one."""
    missed = [row["seed"] for row in rows if row["loop"] == REFERENCE and not row["there"]]
    if missed:
        print(f"{REFERENCE} is not there at seeds {missed}: each ratio is a lower bound")
    summary(rows, loops, "seconds")
    first = {name: [row["touched"] for row in rows if row["loop"] == name] for name in loops}
    for name in (name for name in loops if name != REFERENCE):
        early = [f"{a / b:.0f}x" for a, b in zip(first[REFERENCE], first[name], strict=True) if math.isfinite(a + b)]
        print(f"{name:10} by the first moment at the goal: {', '.join(early) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["equal", "tuned"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="equal: gradient steps; tuned: the most of them")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pictures", type=int, default=36, help="of each object; six tenths more of each artist")
    parser.add_argument("--loop", action="append", choices=TUNED, help="tuned: only these, and the reference")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load("smallworld")
    if options.part == "equal":
        rows = equal(model, options.seeds, options.steps, options.lr, options.pictures)
    else:
        loops = {k: v for k, v in TUNED.items() if k == REFERENCE or k in (options.loop or TUNED)}
        rows = tuned(model, options.seeds, loops, options.steps, options.pictures)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
