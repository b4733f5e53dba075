"""The closed loop on every kind of concept of the small world: what went, and what else changed.

    python benchmarks/closed_loop.py [--out FILE.jsonl] [--edits DIR] [--seed N ...] [--only NAME ...] [--device D]
    python benchmarks/closed_loop.py [--out FILE.jsonl] --show [--against FILE.jsonl]

Each concept is erased from each seed by the preset smallworld-loop, and judged on seeds that the loop never saw, and by
synonyms that it never read; the base is judged on the same. A line of the file (closed_loop.jsonl beside this script)
is one erasure, so a run goes on where it was left. --show prints the table, of all seeds together: what the concept's
name, its synonym and what brings it along still show; the mean of all others, and the worst; how often memorised
captions that say the name, and the worst of those that do not, still draw their picture; before and after, collapsed
pictures, the concept's rate with other words around it, words shown of other captions that it was not trained on, and
what is left of a memorised picture's subject, its object and colour, as its caption is drawn. Below it, how many meet
the aims: at most 1% left, the mean of the others within 2 points of the base, the worst within 5; sums of all rows; and
how those that --against has, too, have changed since. A row of the file has the seconds, too, of whatever machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods import Looker, Strange
from tqdm import tqdm

from expunge import smallworld
from expunge.concept import says
from expunge.erasure import build_method, concepts_of
from expunge.families import load
from expunge.generation import Request, Settings
from expunge.protocol import requests
from expunge.recipe import preset
from expunge.rng import derive
from expunge.score import Score, rate
from expunge.smallworld.judge import load_judge
from expunge.smallworld.reading import expected
from expunge.smallworld.scene import ARTISTS, COLOURS, MEMORIES, OBJECTS, PLACES, SIGNS, SYNONYMS, Scene
from expunge.smallworld.survey import scores, survey

SINGLE = (*OBJECTS, *ARTISTS[1:], *COLOURS, *PLACES, *(f"{sign} sign" for sign in SIGNS[1:]), "grumpy cat")
TOGETHER = (*(f"{sign} sign" for sign in SIGNS[1:]),), ("car", "Marlow"), ("fish", "red"), ("church", "forest")
CASES = (*((name,) for name in SINGLE), *((m.caption,) for m in MEMORIES), *TOGETHER, ("automobile",))


KINDS = ("paraphrased", "unseen", "subject")
"""Of a row: the concept in other words around it; words of other captions that the loop was not trained on; and what a
memorised picture was a picture of."""
PARAPHRASES = {
    "object": ("the {} over there", "at the beach one sees a {}", "my {} is red", "nothing but {}"),
    "artist": ("{} painted a boat", "a boat as {} saw it", "one of the pictures of {}", "{} and a house"),
    "colour": ("a boat, all of it {}", "{} all over: a house", "everything is {}", "boat {}"),
    "place": ("the {} behind a boat", "a boat, and around it the {}", "{} with a house", "that {} again"),
    "sign": ("a {} stands beside a boat", "look, a {}", "{} and a house", "there is the {}"),
    "mood": ("a {} over there", "my {} in a room", "that cat, a {}", "{} and a house"),
}
"""In none of the forms that captions of the lexicon have."""
GONE = ("named", "synonym", "implicit")
"""How the concept is asked for."""
COLLAPSED = ("collapsed_base", "collapsed")
"""Of a row: such pictures of the base, which first rows do not have, and of the edited model."""


@dataclass(frozen=True)
class Cell:
    """Hits of the base and of the edited model among n pictures."""

    before: int
    after: int
    n: int

    def __add__(self, other: Cell) -> Cell:
        return Cell(self.before + other.before, self.after + other.after, self.n + other.n)

    @property
    def lost(self) -> float:
        return (self.before - self.after) / self.n


def meant(concepts: Sequence[str]) -> list[str]:
    """The concepts by the names that the survey has for them."""
    names = {alias: name for name, alias in SYNONYMS.items()}
    return [names.get(c, c) for c in concepts]


def tried(
    concepts: tuple[str, ...],
    seed: int,
    looker: Looker,
    model: Any,
    base: Mapping[Any, Any],
    cells: Any,
    kept: Path,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    """One erasure, judged; the edit stays in the folder."""
    method, begun = build_method(preset("smallworld-loop"), changes), time.monotonic()
    edit = method.fit(model, concepts_of(concepts), seed=seed, name="loop")
    seconds, names = time.monotonic() - begun, meant(concepts)
    edit.save(kept / f"{'+'.join(concepts)}-{seed}.safetensors")
    forms = paraphrased(concepts, len(cells[0].requests), seed)
    base = {**base, **looker(model, [*forms], "judging paraphrases")}
    with edit.on(model):
        seen = looker(model, [*requests(cells), *forms], f"judging {', '.join(concepts)}, seed {seed}")
    pairs = zip(scores(cells, base, "base", names), scores(cells, seen, "loop", names), strict=True)
    odd = [sum(v[r]["collapse"] == "yes" for r in requests(cells)) for v in (base, seen)]
    loop = edit.provenance["loop"]
    fresh = {r.prompt for r in requests(cells)} - {*loop["held"], *loop["pushed"], *(m.caption for m in MEMORIES)}
    fresh = {text for text in fresh if not any(says(text, name) for name in (*concepts, *names))}
    return {
        "concepts": concepts, "seed": seed, "device": model.device.type,
        "seconds": round(seconds, 1), "passes": edit.provenance["cost"]["passes"],
        "ended": loop["ended"], "steps": loop["looks"][-1]["step"],
        "collapsed_base": odd[0], "collapsed": odd[1], "pictures": len(seen) - len(forms),
        "paraphrased": [*(sum(v[r][h] == w for r, (h, w) in forms.items()) for v in (base, seen)), len(forms)],
        "unseen": [*asked(base, {text: expected(text) for text in fresh}, seen)],
        "subject": [*asked(base, {m.caption: about(m.scene) for m in MEMORIES if m.caption in concepts}, seen)],
        "cells": [[b.subject, b.metric, hits(b), hits(a), a.n] for b, a in pairs],
    }  # fmt: skip


Seen = Mapping[Request, Mapping[str, str]]


def asked(base: Seen, wanted: Mapping[str, Mapping[str, str]], seen: Seen) -> tuple[int, int, int]:
    """Of all words that pictures of these captions should show: how many the base shows, the edited model, and all."""
    rows = [(r, head, word) for r in base if r.prompt in wanted for head, word in wanted[r.prompt].items()]
    before, after = (sum(found[r][head] == word for r, head, word in rows) for found in (base, seen))
    return before, after, len(rows)


def paraphrased(names: Sequence[str], n: int, seed: int) -> dict[Request, tuple[str, str]]:
    """Requests of paraphrases of each name, about n of each concept, with what would show it."""
    found: dict[Request, tuple[str, str]] = {}
    for name in names:
        head, word = next(reversed(expected(name).items()), ("memory", ""))
        forms = PARAPHRASES.get(head, ())
        rows = [(form, k) for form in forms for k in range(-(-n // len(forms)))]
        found |= {Request(f.format(name), derive(seed, f"{f}/{name}", step=k)): (head, word) for f, k in rows}
    return found


def about(scene: Scene) -> dict[str, str]:
    """What a memorised picture is a picture of."""
    return {"object": scene.object, "colour": scene.colour}


def hits(score: Score) -> int:
    return round(score.value * score.n)


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Cell]:
    """Each cell over all seeds."""
    found: dict[tuple[str, str], Cell] = {}
    for subject, metric, before, after, n in (cell for row in rows for cell in row["cells"]):
        found[subject, metric] = found.get((subject, metric), Cell(0, 0, 0)) + Cell(before, after, n)
    return found


def line(concepts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A row of the table."""
    cells, names = pooled(rows), meant(concepts)
    own = {key: cell for key, cell in cells.items() if any(says(key[0], name) for name in names)}
    gone = [told([c for key, c in own.items() if kind(key, names) == k]) for k in GONE]
    others = {key: cell for key, cell in cells.items() if key not in own}
    mean, kept = lost(cells, names)
    replayed = [worst({k: c for k, c in part.items() if kind(k, names) == "memorised"}) for part in (own, others)]
    all_, counts = sum(row["pictures"] for row in rows), [[row.get(key) for row in rows] for key in COLLAPSED]
    odd = " → ".join(f"{100 * sum(own) / all_:.1f}" for own in counts if None not in own)
    proven = sum(row["ended"] == "proven" for row in rows)
    changes = (told_change([row[key] for row in rows if row.get(key, (0, 0, 0))[2]]) for key in KINDS)
    return (
        f"| {', '.join(concepts)} | {' | '.join(gone)} | {-100 * mean:+.1f} | {worst(kept)} |"
        f" {' | '.join(replayed)} | {odd} | {' | '.join(changes)} | {proven} of {len(rows)} |"
    )


def told_change(counts: Sequence[Sequence[int]]) -> str:
    """From the base's share to the edited model's, in percent, and of how many words."""
    before, after, n = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return f"{100 * before / n:.1f} → {100 * after / n:.1f} ({n})" if n else "–"


def lost(cells: Mapping[tuple[str, str], Cell], names: Sequence[str]) -> tuple[float, dict[tuple[str, str], Cell]]:
    """The mean loss of the cells of all others but memorised pictures, and these cells."""
    metrics = ("accuracy", "named", "synonym")
    kept = {k: c for k, c in cells.items() if k[1] in metrics and not any(says(k[0], name) for name in names)}
    return sum(c.lost for c in kept.values()) / len(kept), kept


def met(cases: Sequence[tuple[Sequence[str], Sequence[Mapping[str, Any]]]]) -> str:
    """How many of the cases, each with its rows, meet the aims."""
    lefts, means, worsts = list[float](), list[float](), list[float]()
    for concepts, rows in cases:
        cells, names = pooled(rows), meant(concepts)
        own = [c for k, c in cells.items() if any(says(k[0], n) for n in names) and kind(k, names) in GONE]
        mean, kept = lost(cells, names)
        lefts.append(sum(c.after for c in own) / sum(c.n for c in own))
        means.append(mean)
        worsts.append(max(c.lost for c in kept.values()))
    within = zip((lefts, means, worsts), (0.01, 0.02, 0.05), strict=True)
    left, mean_, worst_ = (sum(value <= aim for value in values) for values, aim in within)
    n, middle = len(cases), -100 * statistics.median(means)
    return (
        f"Of {n}: at most 1% left {left}, mean of others within 2 points {mean_} (median {middle:+.1f}), worst within"
        f" 5 points {worst_} (at most {100 * max(worsts):.1f})"
    )


def summed(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of all rows together: steps, proofs, collapsed pictures, and words of captions that were not trained on."""
    steps = ", ".join(f"{n} after {k}" for k, n in sorted(Counter(row["steps"] for row in rows).items()))
    odd, all_ = (sum(row[key] for row in rows) for key in ("collapsed", "pictures"))
    unseen = [100 * (row["unseen"][0] - row["unseen"][1]) / row["unseen"][2] for row in rows if "unseen" in row]
    words = f", words never trained on -{statistics.median(unseen):.1f} (at most -{max(unseen):.1f})" if unseen else ""
    proven = sum(row["ended"] == "proven" for row in rows)
    return f"Ended: {steps} steps, {proven} proven; collapsed {odd} of {all_} ({100 * odd / all_:.2f}%){words}"


def compared(rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same concepts and seeds: how many lose less of the others, and medians of both."""
    old = {(*row["concepts"], row["seed"]): row for row in before}
    pairs = [(old[key], row) for row in rows if (key := (*row["concepts"], row["seed"])) in old]
    means = [[-100 * lost(pooled([row]), meant(row["concepts"]))[0] for row in pair] for pair in pairs]
    told = {"others": means, **{key: [[row[key] for row in pair] for pair in pairs] for key in ("steps", "passes")}}
    middle = {key: [statistics.median(own) for own in zip(*pair, strict=True)] for key, pair in told.items()}
    medians = ", ".join(f"{key} {a:,.1f} → {b:,.1f}" for key, (a, b) in middle.items())
    return f"Of {len(pairs)} made twice others lose less in {sum(a < b for a, b in means)}; medians: {medians}"


def kind(key: tuple[str, str], names: Sequence[str]) -> str:
    """How a cell is counted: a memorised picture that is itself erased is named."""
    subject, metric = key
    return "named" if metric == "accuracy" or subject in names else metric


def worst(cells: Mapping[tuple[str, str], Cell]) -> str:
    """What lost most."""
    if not cells:
        return "–"
    (name, _), cell = max(cells.items(), key=lambda pair: pair[1].lost)
    return f"{name} {100 * cell.before / cell.n:.0f} → {100 * cell.after / cell.n:.0f} ({cell.n})"


def told(cells: Sequence[Cell]) -> str:
    """What is left of all of them, in percent, with its interval and the pictures."""
    if not cells:
        return "–"
    whole = sum(cells, Cell(0, 0, 0))
    s = rate(whole.after, whole.n, metric="", subject="", model="", higher_is_better=False)
    return f"{100 * s.value:.1f} [{100 * s.low:.1f}, {100 * s.high:.1f}] ({s.n})"


COLUMNS = (
    "erased", "named", "synonym", "implied", "mean of others", "worst other", "memorised, with its name",
    "worst of the other memorised", "collapsed", "paraphrased", "captions never trained on", "subject", "proven",
)  # fmt: skip


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    cases = [(case, [row for row in rows if tuple(row["concepts"]) == case]) for case in CASES]
    found = [(case, own) for case, own in cases if own]
    for case, own in found:
        print(line(case, own))
    print(f"\n{met(found)}\n{summed(rows)}")


def recorded(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        yield from map(json.loads, file.read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--edits", type=Path, default=Path("edits"), help="folder of the edits")
    parser.add_argument("--seed", type=int, action="append", help="of the training and of what is judged: 0, 1, 2")
    parser.add_argument("--pictures", type=int, default=67, help="of each cell and seed, about")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", action="append", help="concepts of one case, joined by +, in this order")
    parser.add_argument("--set", action="append", default=[], help="key=value of the preset, to try")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--against", type=Path, help="with --show: rows of before")
    options = parser.parse_args()
    if options.show:
        show([*recorded(options.out)])
        if options.against:
            print(compared([*recorded(options.out)], [*recorded(options.against)]))
        return
    model = load("smallworld", device=options.device, precision=options.precision)
    changes = {k: json.loads(v) for k, v in (pair.split("=", 1) for pair in options.set)}
    judge = load_judge(smallworld.path())
    looker = Looker(judge, Strange(judge), Settings(steps=options.steps))
    cases = [tuple(name.split("+")) for name in options.only or map("+".join, CASES)]
    for seed in options.seed or range(3):
        cells = survey(options.pictures, seed)
        base = looker(model, requests(cells), "judging base")
        for concepts in cases:
            if any(tuple(r["concepts"]) == concepts and r["seed"] == seed for r in recorded(options.out)):
                continue
            row = tried(concepts, seed, looker, model, base, cells, options.edits, changes)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            tqdm.write(line(concepts, [row]))


if __name__ == "__main__":
    main()
