"""What trajectories cost for the same erasure, on the small world: published rollouts, the pool, renoised latents.

    python benchmarks/trajectories.py equal  [--seeds 3] [--steps 200] [--lr 3e-4]
    python benchmarks/trajectories.py tuned  [--seeds 3]

`equal`: published settings (batch 1, 50-step grid, s = 3, η = 1, Adam) at equal gradient steps and rate; network
passes, seconds, the artist's rate and what else stayed. `tuned`: each loop at its own best learning rate; seconds of
training until the artist's rate is at most 5% and stays there. Judging is not counted in the seconds. Both loops run
in one process, one after the other, seed by seed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from expunge import smallworld
from expunge.concept import Concept
from expunge.demo import look
from expunge.families import load
from expunge.generation import Settings
from expunge.method import Method
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.score import Score, rate
from expunge.smallworld.survey import Cell, scores, survey
from expunge.training import Trainer

ARTIST = "Marlow"
PUBLISHED = {"grid": 50, "guidance": 3.0, "eta": 1.0, "scope": "xattn"}
LOOPS: dict[str, dict[str, object]] = {
    "fresh, n=50, B=1 (published)": {**PUBLISHED, "trajectory": "fresh", "batch": 1},
    "pool, n=10, B=1": {**PUBLISHED, "trajectory": "pool", "grid": 10, "batch": 1},
    "renoised, n=5, K=16, B=1": {**PUBLISHED, "trajectory": "renoised", "grid": 5, "batch": 1},
}
TUNED: dict[str, tuple[dict[str, object], tuple[float, ...]]] = {
    "fresh, n=50, B=1 (published)": (LOOPS["fresh, n=50, B=1 (published)"], (6e-4, 1e-3, 2e-3)),
    "renoised, n=5, K=8, B=4": (
        {**PUBLISHED, "trajectory": "renoised", "grid": 5, "latents": 8, "batch": 4},
        (1e-3, 2e-3, 4e-3),
    ),
}


def cells(pictures: int) -> tuple[list[Cell], list[Cell]]:
    """The artist's cell, and every other attribute."""
    kept = [c for c in survey(pictures) if c.metric == "accuracy" and c.head != "mood"]
    return [c for c in kept if c.subject == ARTIST], [c for c in kept if c.subject != ARTIST]


def judged(model: Model, chosen: Sequence[Cell], most: int = 10**6) -> list[Score]:
    requests = list(dict.fromkeys(r for c in chosen for r in c.requests[:most]))
    settings = Settings(steps=20)
    short = [Cell(c.subject, c.metric, c.requests[:most], c.head, c.expected, c.words) for c in chosen]
    return scores(short, look(model, requests, settings, "judging"), "edit", [ARTIST])


def pooled(rows: Sequence[Score]) -> Score:
    hits, n = sum(round(s.value * s.n) for s in rows), sum(s.n for s in rows)
    return rate(hits, n, metric="kept", subject="all others", model="edit", higher_is_better=True)


def equal(model: Model, seeds: int, steps: int, lr: float, pictures: int) -> None:
    """Passes, calls, seconds, erased rate and retention at equal gradient steps."""
    own, others = cells(pictures)
    base = pooled(judged(model, others))
    print(f"base: {ARTIST} {judged(model, own)[0]}, all others {base}")
    print(f"{'loop':38} seed passes  calls seconds  {ARTIST:24} {'all others':24} worst other")
    totals: dict[str, list[tuple[int, float]]] = {name: [] for name in LOOPS}
    for seed in range(seeds):
        for name, options in LOOPS.items():
            method = ESD(steps=steps, lr=lr, **options)  # type: ignore[arg-type]
            model.meter.passes = model.meter.calls = 0
            start = time.monotonic()
            edit = method.fit(model, [Concept(name=ARTIST)], seed=seed)
            seconds, passes, calls = time.monotonic() - start, model.meter.passes, model.meter.calls
            totals[name].append((passes, seconds))
            with edit.on(model):
                gone, kept = judged(model, own)[0], judged(model, others)
            worst = min(kept, key=lambda s: s.value)
            print(
                f"{name:38} {seed:4} {passes:6} {calls:6} {seconds:7.1f}  {gone!s:24} {pooled(kept)!s:24}"
                f" {worst.subject} {worst}",
                flush=True,
            )
    reference = totals["fresh, n=50, B=1 (published)"]
    for name, rows in totals.items():
        passes = statistics.mean(a[0] / b[0] for a, b in zip(reference, rows, strict=True))
        seconds = statistics.mean(a[1] / b[1] for a, b in zip(reference, rows, strict=True))
        print(f"{name:38} {passes:5.1f}x fewer passes, {seconds:5.1f}x less time than fresh")


@dataclass
class Watch:
    """Judges at checkpoints with the clock stopped: (step, training seconds, erased rate)."""

    model: Model
    own: list[Cell]
    every: int
    start: float = 0.0

    def __post_init__(self) -> None:
        self.log: list[tuple[int, float, float]] = []
        self.start = time.monotonic()

    def __call__(self, trainer: Trainer, _loss: float) -> None:
        if trainer.step % self.every:
            return
        elapsed = time.monotonic() - self.start
        parameters = self.model.parameters()
        before = {k: parameters[k].detach().clone() for k in trainer.parameters}
        with torch.no_grad():
            for k, w in trainer.parameters.items():
                parameters[k].copy_(w)
            value = judged(self.model, self.own, most=60)[0].value
            for k, w in before.items():
                parameters[k].copy_(w)
        self.log.append((trainer.step, elapsed, value))
        self.start = time.monotonic() - elapsed

    def reached(self, goal: float = 0.05) -> float | None:
        """Training seconds of the first checkpoint from which the rate stays at or below the goal."""
        late = [i for i, (_, _, value) in enumerate(self.log) if value > goal]
        first = late[-1] + 1 if late else 0
        return self.log[first][1] if first < len(self.log) else None


def tuned(model: Model, seeds: int, steps: int, every: int, pictures: int) -> None:
    """Seconds to a rate of at most 5% that stays, at each loop's best learning rate."""
    own, _ = cells(pictures)
    best: dict[str, float] = {}
    for name, (options, rates) in TUNED.items():
        for lr in rates:
            times = []
            for seed in range(seeds):
                method: Method = ESD(steps=steps, lr=lr, **options)  # type: ignore[arg-type]
                watch = Watch(model, own, every)
                method.fit(model, [Concept(name=ARTIST)], seed=seed, on_step=watch)
                times.append(watch.reached())
                print(name, lr, seed, [(s, round(t, 1), round(v, 2)) for s, t, v in watch.log], times[-1], flush=True)
            if all(t is not None for t in times):
                mean = statistics.mean(t for t in times if t is not None)
                best[name] = min(best.get(name, mean), mean)
                print(f"{name:38} lr {lr:.0e}: {mean:.1f} s to <= 5% that stays, mean of {seeds} seeds", flush=True)
    print(best)
    if len(best) == 2:
        published, ours = best.values()
        print(f"tuned for both sides: {published / ours:.1f}x less time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["equal", "tuned"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--pictures", type=int, default=20)
    options = parser.parse_args()
    smallworld.path()
    model = load("smallworld")
    if options.part == "equal":
        equal(model, options.seeds, options.steps or 200, options.lr, options.pictures)
    else:
        tuned(model, options.seeds, options.steps or 40, options.every, options.pictures)


if __name__ == "__main__":
    main()
