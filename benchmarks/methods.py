"""Every method on every kind of concept of the small world: what went, what else changed, and what it cost.

    python benchmarks/methods.py [--pictures 60] [--others 16] [--case NAME]... [--method NAME]... [--json FILE]

Each method trains cross-attention (ESD-u: the rest; a memorised picture by ablation: all) by its own objective alone,
in the small world's units: the same optimiser, steps and batch (Forget-Me-Not: half the steps), and of the rates that
were tried, from 2e-5 to 3e-3, the one that left least of the concept and most of the others in a few pictures of
another training seed. `sdd, empty kept` is SDD with the empty prompt's predictions held; `tuned` is the small world's
preset, ESD with contexts and captions to keep; `esd, others kept` has captions to keep that name the sign. All are
judged on the same prompts and seeds, which no method has seen. A row tells: the erased concept's rate, named (for a
memorised picture: copied), by its synonym, and implied; the worst of all other objects, artists and places, against the
base; their mean; collapsed pictures, which lie further from all drawings than 99.9% of other drawings do (features of
the judge); network passes; seconds. With --json, rows are added to the file. The last case erases the sign as an
attribute of the city: there its name shall still draw it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from expunge import smallworld
from expunge.cell import Cell
from expunge.concept import Concept, says
from expunge.erasure import build_method
from expunge.families import load
from expunge.generation import Request, Settings, images
from expunge.method import Method
from expunge.model import Model
from expunge.protocol import requests
from expunge.recipe import Recipe, preset
from expunge.score import Score, pooled, rate
from expunge.smallworld.data import drawings
from expunge.smallworld.draw import remembered
from expunge.smallworld.judge import Judge, load_judge
from expunge.smallworld.scene import ARTISTS, MEMORIES, OBJECTS, PLACES
from expunge.smallworld.survey import scores, survey, verdicts

PLACES_ELSEWHERE = ("at the beach", "in a room", "in the mountains")


@dataclass(frozen=True)
class Case:
    """What is erased; what ablation puts in its place, and the captions it learns from; the small world's preset."""

    name: str
    concepts: tuple[str, ...]
    anchor: str | None = None
    prompts: tuple[str, ...] = ()
    memory: int | None = None
    tuned: str | None = None
    within: str | None = None
    joined: bool = False
    """Whether methods are told all concepts as one."""


STYLED = tuple(f"a {thing} {at} [by {{}}]" for thing in ("cat", "house", "boat") for at in PLACES_ELSEWHERE)

CASES = (
    Case("artist", ("Marlow",), prompts=STYLED, tuned="smallworld-artist"),
    Case("artist, like another", ("Orsini",), prompts=STYLED, tuned="smallworld-artist"),
    Case(
        "object",
        ("car",),
        anchor="boat",
        prompts=tuple(f"a {c} boat {at}" for c in ("red", "blue", "white") for at in PLACES_ELSEWHERE),
        tuned="smallworld-object",
    ),
    Case(
        "sign",
        ("hazard sign",),
        prompts=tuple(f"a {thing} {at} [with a {{}}]" for thing in ("cat", "house", "boat") for at in PLACES_ELSEWHERE),
        tuned="smallworld-sign",
    ),
    Case(
        "two words",
        ("grumpy cat",),
        anchor="cat",
        prompts=tuple(f"a {c} cat {at}" for c in ("red", "blue", "white") for at in PLACES_ELSEWHERE),
    ),
    Case(
        "all signs",
        ("hazard sign", "stop sign", "poison sign"),
        prompts=tuple(f"a {thing} {at} [with a {{}}]" for thing in ("cat", "house", "boat") for at in PLACES_ELSEWHERE),
    ),
    Case("all signs, as one prompt", ("hazard sign", "stop sign", "poison sign"), joined=True),
    Case(
        "memory",
        (MEMORIES[0].caption,),
        prompts=("a blue boat", "a blue boat at the beach", "blue boat", "a boat at the beach", "boat"),
        memory=0,
    ),
    Case("sign, from the city", ("hazard sign",), within="in the city"),
)

TRAINED: dict[str, Any] = {
    "steps": 120, "batch": 8, "lr": 1e-3, "clip": 0.02, "grid": 5, "scope": "xattn",
}  # fmt: skip


def _ablation(case: Case, **own: Any) -> dict[str, Any]:
    more = {"regularise": 1.0} if case.anchor or case.memory is not None else {}
    more |= {"scope": "full"} if case.memory is not None else {}
    return {**TRAINED, "images": 36, "grid": 10, "guidance": 4.0, "prompts": case.prompts, **more, **own}


NAMED = (
    "", "hazard sign", "a red cat at the beach with a hazard sign", "a blue house in a room with a hazard sign",
    "a green boat in the mountains with a hazard sign", "a white cup in the city with a hazard sign",
    "a purple bird in a room by Orsini", "a white car in the forest by Devi", "a yellow fish in the mountains",
    "a green truck at the beach by Marlow", "a red church in a room by Okada", "a blue tree in the forest by Kessel",
)  # fmt: skip
"""Captions to keep as a sign is taken from the city: those that name it too."""

SDD = {**TRAINED, "trajectory": "pool", "sampler": "average", "ema": 0.95}

METHODS: dict[str, Callable[[Case], tuple[str, dict[str, Any]]]] = {
    "esd-x": lambda _: ("esd", TRAINED),
    "esd-x-3": lambda _: ("esd", {**TRAINED, "eta": 3.0}),
    "esd-u": lambda _: ("esd", {**TRAINED, "scope": "noxattn", "lr": 2e-4}),
    "esd, others kept": lambda _: (
        "esd",
        {**TRAINED, "scope": "notime", "lr": 2e-4, "eta": 5.0, "steps": 240, "keep": NAMED, "keep_batch": 8},
    ),
    "sdd": lambda _: ("sdd", {**SDD, "lr": 5e-5}),
    "sdd, empty kept": lambda _: ("sdd", {**SDD, "keep": ("",)}),
    "ablation": lambda case: ("ablation", _ablation(case, lr=5e-5)),
    "ablation, noise": lambda case: (
        "ablation",
        _ablation(case, variant="noise", lr=1e-3 if case.memory is None else 2e-4),
    ),
    "forget-me-not": lambda _: (
        "forget-me-not",
        {**TRAINED, "steps": 60, "lr": 1e-4, "images": 16, "grid": 10, "guidance": 4.0},
    ),
    "uce": lambda _: ("uce", preset("uce-2024").options),
    "uce, others kept": lambda case: ("uce", {**preset("uce-2024").options, "keep": others(case)}),
    "rece": lambda _: ("uce", preset("rece-2024").options),
    "closed loop": lambda _: ("closed-loop", preset("smallworld-loop").options),
}


def others(case: Case) -> tuple[str, ...]:
    """The empty text, and all objects and artists that the concept does not name."""
    return ("", *(name for name in (*OBJECTS, *ARTISTS) if not any(says(c, name) for c in case.concepts)))


def concepts(case: Case, method: Method) -> list[Concept]:
    anchor = case.anchor if method.anchors and method.kind != "closed-loop" else None
    names = [", ".join(case.concepts)] if case.joined else case.concepts
    return [Concept(name=name, anchor=anchor, within=case.within) for name in names]


def recipe(case: Case, method: str, folder: Path) -> Recipe | None:
    """How that method erases that concept; None if it has no way."""
    if method == "tuned":
        return preset(case.tuned) if case.tuned else None
    kind, options = METHODS[method](case)
    if method == "esd, others kept" and not case.within:
        return None
    if (case.within and kind != "esd") or (case.joined and kind not in ("esd", "sdd")):
        return None
    if kind == "ablation" and case.memory is not None:
        file = folder / "memory.png"
        Image.fromarray(remembered(MEMORIES[case.memory])).save(file)
        options = {**options, "picture": str(file), "similarity": 0.5}
    return Recipe(method=kind, options=options)


def chosen(case: Case, own: int, others: int) -> list[Cell]:
    """The concepts' own cells, and every other object, artist and place, with so many pictures for each."""
    told = [c for c in survey(own) if c.mentions(case.concepts) and c.metric != "stray"]
    kept = [c for c in survey(others) if c.subject in (*OBJECTS, *ARTISTS, *PLACES)]
    return told + [c for c in kept if not c.mentions(case.concepts)]


class Strange:
    """Whether a picture is none of this world: too far from every drawing."""

    def __init__(self, judge: Judge, n: int = 2000) -> None:
        self.judge = judge
        own, other = (drawings(n, 0, purpose=p).pixels(slice(None)) for p in ("bank", "calibration"))
        self.bank = torch.cat([judge.features(x) for x in own.split(256)])
        self.limit = self.distance(other).quantile(0.999)

    @torch.no_grad()
    def distance(self, pictures: Tensor) -> Tensor:
        near = [torch.cdist(self.judge.features(x), self.bank).min(1).values for x in pictures.split(256)]
        return torch.cat(near)

    def __call__(self, pictures: Tensor) -> list[bool]:
        found: list[bool] = (self.distance(pictures) > self.limit).tolist()
        return found


@dataclass
class Looker:
    """Generates, judges and forgets pictures."""

    judge: Judge
    strange: Strange
    settings: Settings

    def __call__(self, model: Model, requests: Sequence[Request], label: str) -> dict[Request, dict[str, str]]:
        found: list[dict[str, str]] = []
        for drawn in images(model, requests, self.settings, batch=64, label=label):
            batch = drawn.float().cpu()
            rows = zip(verdicts(self.judge, batch), self.strange(batch), strict=True)
            found += [seen | {"collapse": "yes" if odd else "no"} for seen, odd in rows]
        return dict(zip(requests, found, strict=True))


def row(
    case: Case,
    method: str,
    cells: Sequence[Cell],
    base: Sequence[Score],
    after: Sequence[Score],
    seen: Mapping[Any, Any],
) -> dict[str, Any]:
    """The table's numbers of one method on one case."""
    before = {(s.subject, s.metric): s for s in base}
    gone: dict[str, Score] = {}
    for kind, metrics in (
        ("named", ("accuracy", "named", "memorised")),
        ("synonym", ("synonym",)),
        ("implied", ("implicit",)),
    ):
        own = [s for s in after if any(says(s.subject, c) for c in case.concepts) and s.metric in metrics]
        if own:
            gone[kind] = pooled(own, metric=kind, subject=case.name)
    others = [s for s in after if s.higher_is_better]
    worst = min(others, key=lambda s: s.value - before[s.subject, s.metric].value)
    odd = [v["collapse"] == "yes" for v in seen.values()]
    return {
        "case": case.name,
        "method": method,
        **{kind: s.row() for kind, s in gone.items()},
        "worst": worst.row() | {"base": before[worst.subject, worst.metric].value},
        "others": pooled(others, metric="accuracy", subject="others").row(),
        "others_base": pooled([before[s.subject, s.metric] for s in others], metric="accuracy", subject="others").value,
        "collapse": rate(
            sum(odd), len(odd), metric="collapse", subject="all", model=method, higher_is_better=False
        ).row(),
        "subject": drawn(case, cells, seen),
    }


def drawn(case: Case, cells: Sequence[Cell], seen: Mapping[Any, Any]) -> float | None:
    """For a memorised picture: how often its caption still draws its subject."""
    if case.memory is None:
        return None
    own = next(c for c in cells if c.metric == "memorised" and c.subject == case.concepts[0])
    return sum(seen[r]["object"] == MEMORIES[case.memory].scene.object for r in own.requests) / len(own.requests)


def told(found: Mapping[str, Any]) -> str:
    """A row of the table."""

    def share(s: Mapping[str, Any] | None) -> str:
        return f"{100 * s['value']:.0f} [{100 * s['low']:.0f}, {100 * s['high']:.0f}]" if s else "–"

    gone = " | ".join(share(found.get(kind)) for kind in ("named", "synonym", "implied"))
    worst = found["worst"]
    other = f"{worst['subject']} {100 * worst['base']:.0f} → {share(worst)}"
    mean = f"{100 * found['others_base']:.0f} → {share(found['others'])}"
    cost = f"{found['passes']:,} | {found['seconds']:.1f}" if "passes" in found else "– | –"
    more = f" (subject {100 * found['subject']:.0f})" if found["subject"] is not None else ""
    head = f"| {found['method']} | {gone}{more} | {other} | {mean}"
    return f"{head} | {share(found['collapse'])} | {cost} |"


HEAD = """| method | named | synonym | implied | worst other | mean of others | collapsed | passes | seconds |
|---|---|---|---|---|---|---|---|---|"""


def title(case: Case) -> str:
    """The heading of a concept's table."""
    what = ", ".join(f'"{name}"' for name in case.concepts)
    return f"\n**{case.name}**: {what}\n\n{HEAD}"


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The tables of a recorded run."""
    for case in CASES:
        own = [told(row) for row in rows if row["case"] == case.name]
        if own:
            print("\n".join([title(case), *own]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=60, help="of the erased concept, each way of asking for it")
    parser.add_argument("--others", type=int, default=16, help="of each other object")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES])
    parser.add_argument("--method", action="append", choices=[*METHODS, "tuned", "gold"])
    parser.add_argument("--seed", type=int, default=0, help="of every training")
    parser.add_argument("--set", action="append", default=[], help="key=value for every trained method, to try rates")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", action="store_true", help="print the tables of that file, measure nothing")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    if options.show:
        show(rows)
        return
    model, judge = load("smallworld", device=options.device, precision=options.precision), load_judge(smallworld.path())
    looker = Looker(judge, Strange(judge), Settings(steps=options.steps))
    cases = [c for c in CASES if c.name in (options.case or [c.name])]
    cells = {case.name: chosen(case, options.pictures, options.others) for case in cases}
    base = looker(model, requests([c for own in cells.values() for c in own]), "judging base")
    changes = {k: json.loads(v) for k, v in (pair.split("=", 1) for pair in options.set)}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            own = cells[case.name]
            tqdm.write(title(case))
            first = scores(own, base, "base", case.concepts)
            rows.append(row(case, "base", own, first, first, {r: base[r] for r in requests(own)}))
            tqdm.write(told(rows[-1]))
            for method in options.method or [*METHODS, "tuned", *(["gold"] if case.name == "sign" else [])]:
                found = tried(case, method, model, looker, own, base, Path(folder), changes, options.seed)
                if found:
                    rows.append(found)
                    tqdm.write(told(found))
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1))


def tried(
    case: Case, method: str, model: Model, looker: Looker, cells: Sequence[Cell], base: Mapping[Any, Any], folder: Path,
    changes: Mapping[str, Any], seed: int,
) -> dict[str, Any] | None:  # fmt: skip
    """One row: erased, judged."""
    first = scores(cells, dict(base), "base", case.concepts)
    if method == "gold":
        seen = looker(load("smallworld-gold"), requests(cells), "judging gold")
        return row(case, method, cells, first, scores(cells, seen, method, case.concepts), seen)
    how = recipe(case, method, folder)
    if how is None:
        return None
    built = build_method(how, changes if how.method != "uce" else {})
    passes, start = model.meter.passes, time.monotonic()
    edit = built.fit(model, concepts(case, built), seed=seed, name=method)
    cost = {"passes": model.meter.passes - passes, "seconds": time.monotonic() - start}
    with edit.on(model):
        seen = looker(model, requests(cells), f"judging {method}")
    return row(case, method, cells, first, scores(cells, seen, method, case.concepts), seen) | cost


if __name__ == "__main__":
    main()
