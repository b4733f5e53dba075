"""Time to the same erasure on the small world: the published ESD loop against what `expunge erase` runs.

    python benchmarks/race.py [--seeds 10 11 12 13 14] [--lr 1e-3] [--json FILE]
    python benchmarks/race.py --search
    python benchmarks/race.py --only smallworld-quick --concept church

`published` is the paper's loop as its code has it, in plain torch, in the few functions below: two copies of the
network, batch 1, for each step a fresh rollout of the student on 50 DDIM steps at s = 3 to a uniform place, t uniform
inside that place's interval, two separate predictions of the teacher, Adam. `ours` is the preset `smallworld-quick`,
but for --set. Both erase an artist (or --concept) from cross-attention at the same η (3, as `esd-x-3`: at η = 1 the
published loop erases her on some seeds only) and in the same precision. The published rate, 1e-5, is for 860 M weights
and 1000 steps; the small world's denoiser, two hundred times smaller, does not move at it: 1e-3 is the rate of its
presets. --search finds the published loop's best one, on another seed, by halving and doubling until both neighbours
are worse.

Measured are seconds of training, start-up included and judging not, until the artist's rate is at most 5% and stays
there: of the published loop, which has no end here, for three more checkpoints, each 20% later than the one before; of
ours, at the end of its run, and again after twice as many steps, which do not count. And what else stayed, at the last
checkpoint of the published loop and at the end of ours. A published run that is not there after `--steps` counts with
the seconds that it had, and one of ours that is not there or does not stay counts as no ratio at all. Both sides take
turns, seed by seed; the preset was chosen on seeds 10 to 27. With --json, rows are added to the file after each run,
runs that are there already are not repeated, and the ratios are of all rows there: geometric means with Student's 95%
interval.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from trajectories import ARTIST, cells, judged, kept, ratio

from expunge.cell import Cell
from expunge.concept import Concept
from expunge.edit import Edit
from expunge.erasure import build_method
from expunge.families import load
from expunge.model import Model
from expunge.recipe import assignments, preset
from expunge.score import Score

GOAL, GRID, GUIDANCE = 0.05, 50, 3.0
PUBLISHED, OURS = "published", "smallworld-quick"
STAY = 3
Row = dict[str, Any]
Log = list[tuple[int, float, float]]


class Published:
    """The published loop. After each step, `parameters` and `step` are where it is."""

    def __init__(self, model: Model, concept: str, lr: float, eta: float, seed: int) -> None:
        from diffusers import DDIMScheduler

        self.model, self.eta, self.step = model, eta, 0
        self.teacher, self.student = deepcopy(model.denoiser), deepcopy(model.denoiser)
        self.parameters = {n: p.requires_grad_() for n, p in self.student.named_parameters() if "attn2" in n}
        self.adam = torch.optim.Adam(self.parameters.values(), lr=lr)
        self.concept = concept
        self.said, self.empty = (model.encode([text]).tensors["text"] for text in (concept, ""))
        self.scheduler = DDIMScheduler.from_config(model.pipeline.scheduler.config)
        self.scheduler.set_timesteps(GRID)
        self.rng = torch.Generator().manual_seed(seed)

    def predict(self, network: nn.Module, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        with self.model.autocast():
            out: Tensor = network(x_t.to(self.model.dtype), t, encoder_hidden_states=text, return_dict=False)[0]
        return out.float()

    @torch.no_grad()
    def rolled(self, steps: int) -> Tensor:
        """Fresh noise after so many guided steps of the student."""
        x = self.model.noise(1, self.rng)
        for t in self.scheduler.timesteps[:steps]:
            empty, said = self.predict(self.student, torch.cat([x, x]), t, torch.cat([self.empty, self.said])).chunk(2)
            x = self.scheduler.step(empty + GUIDANCE * (said - empty), t, x, return_dict=False)[0]
        return x

    def advance(self) -> float:
        """A gradient step where a rollout ends; the loss."""
        steps, stride = int(torch.randint(GRID, (), generator=self.rng)), self.model.horizon // GRID
        t = (GRID - 1 - steps) * stride + torch.randint(stride, (), generator=self.rng)
        return self.learn(self.rolled(steps), t)

    def learn(self, x_t: Tensor, t: Tensor) -> float:
        """A gradient step there."""
        with torch.no_grad():
            empty, said = (self.predict(self.teacher, x_t, t, text) for text in (self.empty, self.said))
        e = self.predict(self.student, x_t, t, self.said)
        loss = nn.functional.mse_loss(e, empty - self.eta * (said - empty))
        loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        self.step += 1
        return loss.item()


class Enough(Exception):
    """The artist is gone and has stayed gone, or the run is given up."""


@dataclass
class Watch:
    """Judges the published loop at checkpoints with the clock stopped.

    `log` holds (step, training seconds, erased rate). A run that has not reached the goal in `limit` seconds is given
    up: another was faster.
    """

    run: Published
    own: Sequence[Cell]
    start: float
    limit: float = math.inf
    next: int = 4
    log: Log = field(default_factory=list)

    def __call__(self) -> None:
        """Where a checkpoint is due. Raises Enough at the last."""
        if self.run.step < self.next:
            return
        elapsed, self.next = time.monotonic() - self.start, math.ceil(self.run.step * 1.2)
        self.log.append((self.run.step, elapsed, self.judged(self.own)[0].value))
        enough = len(self.log) > STAY and all(v <= GOAL for _, _, v in self.log[-STAY - 1 :])
        if enough or (elapsed > self.limit and self.log[-1][2] > GOAL):
            raise Enough
        self.start = time.monotonic() - elapsed

    @torch.no_grad()
    def judged(self, chosen: Sequence[Cell]) -> list[Score]:
        """The model with the run's weights, which leave it again."""
        model, own = self.run.model, self.run.parameters
        delta = {
            name: own[name].detach() - before.detach() for name, before in model.parameters().items() if name in own
        }
        with Edit(delta, {"base": model.identity(delta)}, PUBLISHED).on(model):
            return judged(model, chosen, self.run.concept)

    @property
    def reached(self) -> tuple[int, float]:
        """Step and training seconds of the first checkpoint of those that stayed; infinite seconds if they did not."""
        late = [i for i, (_, _, value) in enumerate(self.log) if value > GOAL]
        first = late[-1] + 1 if late else 0
        return self.log[first][:2] if len(self.log) - first > STAY else (self.log[-1][0], math.inf)

    @property
    def touched(self) -> float | None:
        """Training seconds of the first checkpoint at the goal, whether it stays there or not, if there is one."""
        return next((seconds for _, seconds, value in self.log if value <= GOAL), None)

    @property
    def left(self) -> float:
        """The mean erased rate of the last checkpoints."""
        return statistics.mean(value for _, _, value in self.log[-STAY - 1 :])


@dataclass(frozen=True)
class Race:
    """What all runs have in common; `options` are those of our side."""

    model: Model
    options: Row
    steps: int
    pictures: int
    concept: str = ARTIST

    def run(self, lr: float, seed: int, limit: float = math.inf) -> Watch:
        """The published loop, until it is there and stays, or is given up."""
        start = time.monotonic()
        run = Published(self.model, self.concept, lr, self.options["eta"], seed)
        watch = Watch(run, cells(self.pictures, self.concept)[0], start, limit)
        with suppress(Enough):
            for _ in range(self.steps):
                run.advance()
                watch()
        return watch

    def published(self, lr: float, seed: int) -> Row:
        """A run of it, and what else it kept."""
        watch = self.run(lr, seed)
        step, seconds = watch.reached
        there, stayed = math.isfinite(seconds), kept(watch.judged(cells(self.pictures, self.concept)[1]))
        print(f"{PUBLISHED:16} {seed:4} {told(watch)}; all else {stayed}", flush=True)
        return {
            "loop": PUBLISHED, "seed": seed, "there": there, "seconds": seconds if there else watch.log[-1][1],
            "step": step, "touched": watch.touched, "left": watch.left, "kept": stayed.row(), "log": watch.log,
        }  # fmt: skip

    def ours(self, _lr: float, seed: int) -> Row:
        """A run of twice as many steps as the preset's, which at a constant rate is the first half of it."""
        once = build_method(preset(OURS), self.options | {"schedule": "constant"}).extent()[0]
        end, *_, later = log = self.timed((once, 2 * once), seed)
        stayed, there = end[3], end[2] <= GOAL >= later[2]
        left = f"{end[2]:.1%} left, {later[2]:.1%} after twice as many"
        print(f"{OURS:16} {seed:4} {end[1]:7.2f} s, {once} steps, {left}; all else {stayed}", flush=True)
        return {
            "loop": OURS, "seed": seed, "there": there, "seconds": end[1], "step": once, "left": end[2],
            "touched": end[1] if end[2] <= GOAL else None, "kept": stayed.row(), "log": [entry[:3] for entry in log],
        }  # fmt: skip

    def timed(self, steps: Sequence[int], seed: int) -> list[tuple[int, float, float, Score]]:
        """After each of so many steps the training seconds, the erased rate, and what else stayed."""
        options, times = {**self.options, "steps": max(steps), "schedule": "constant"}, dict[int, float]()
        method = build_method(preset(OURS), options)
        with TemporaryDirectory() as folder:
            marks, start = {n: Path(folder) / f"{n}.safetensors" for n in steps}, time.monotonic()
            method.fit(
                self.model, [Concept(name=self.concept)], seed=seed, marks=marks,
                on_step=lambda trainer, _: times.setdefault(trainer.step, time.monotonic() - start),
            )  # fmt: skip
            edits = {n: Edit.load(file) for n, file in marks.items()}
        own, others = cells(self.pictures, self.concept)
        found = []
        for n, edit in edits.items():
            with edit.on(self.model):
                found.append(
                    (
                        n,
                        times[n],
                        judged(self.model, own, self.concept)[0].value,
                        kept(judged(self.model, others, self.concept)),
                    )
                )
        return found

    def best(self, lr: float) -> float:
        """The published loop's rate, on a seed of its own, that is there sooner than its half and its double.

        If none does, the one that leaves least.
        """
        found: dict[float, tuple[float, float]] = {}
        while True:
            best = min(found, key=lambda k: found[k]) if found else lr
            todo = [r for r in (best, 2 * best, best / 2) if r not in found]
            if not todo:
                return best
            watch = self.run(todo[0], 1000, min([*(t for t, _ in found.values()), 600]))
            found[todo[0]] = watch.reached[1], watch.left
            print(f"lr {todo[0]:.1e}: {told(watch)}", flush=True)


def told(watch: Watch) -> str:
    step, seconds = watch.reached
    once = f"there once after {watch.touched:.1f} s, " if watch.touched else ""
    missed = f"not there after {watch.log[-1][1]:.1f} s, {once}{watch.left:.1%} left at the last checkpoints"
    return f"{seconds:7.1f} s, {step} steps" if math.isfinite(seconds) else missed


def todo(rows: Sequence[Row], seeds: Sequence[int], loops: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Runs that are not among the rows, both sides in turn."""
    done = {(row["seed"], row["loop"]) for row in rows}
    return ((seed, loop) for seed in seeds for loop in loops if (seed, loop) not in done)


def conclude(rows: Sequence[Row]) -> None:
    """The ratios of the seeds that both have run; and by the first moment at the goal, whether it stays or not."""
    of = {loop: {row["seed"]: row for row in rows if row["loop"] == loop} for loop in (PUBLISHED, OURS)}
    pairs = [(of[PUBLISHED][seed], of[OURS][seed]) for seed in of[PUBLISHED] if seed in of[OURS]]
    if not pairs:
        return
    missed = [a["seed"] for a, _ in pairs if not a["there"]]
    if missed:
        print(f"published is not there at seeds {missed}: each ratio is a lower bound")
    print(f"seconds, ours: {ratio([a['seconds'] for a, _ in pairs], [finite(b) for _, b in pairs])}")
    early = [f"{a['touched'] / b['touched']:.0f}x" for a, b in pairs if a["touched"] and b["touched"]]
    print(f"by the first moment at the goal: {', '.join(early) or 'none'}")


def finite(row: Row) -> float:
    return row["seconds"] if row["there"] else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[10, 11, 12, 13, 14])
    parser.add_argument("--steps", type=int, default=200, help="the published loop's most gradient steps")
    parser.add_argument("--lr", type=float, default=1e-3, help="its rate, or where the search begins")
    parser.add_argument("--search", action="store_true", help="find its best rate")
    parser.add_argument("--eta", type=float, default=3.0)
    parser.add_argument("--concept", default=ARTIST, help="an artist, object, colour or place")
    parser.add_argument("--only", action="append", choices=(PUBLISHED, OURS), help="one side")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="key=value of our options")
    parser.add_argument("--pictures", type=int, default=18, help="of each object; six tenths more of each artist")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    race = Race(
        load("smallworld"), assignments(given.changes) | {"eta": given.eta}, given.steps, given.pictures, given.concept
    )
    if given.search:
        print(f"go on with --lr {race.best(given.lr):.2e}", flush=True)
        return
    about = {"lr": given.lr, "concept": given.concept, **race.options, "steps": given.steps, "pictures": given.pictures}
    known = json.loads(given.json.read_text()) if given.json and given.json.exists() else []
    rows = [row for row in known if about.items() <= row.items()]
    for seed, loop in todo(rows, given.seeds, given.only or (PUBLISHED, OURS)):
        run = race.published if loop == PUBLISHED else race.ours
        rows.append(about | run(given.lr, seed))
        known.append(rows[-1])
        if given.json:
            given.json.write_text(json.dumps(known, indent=1))
    conclude(rows)


if __name__ == "__main__":
    main()
