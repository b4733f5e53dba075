"""How faithful the small world is: judge and CLIP on held-out drawings, generated pictures against their captions.

    python benchmarks/world.py [--pictures 110] [--json FILE]

Prints one row for each claim: what was measured, with its 95% interval, and the goal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from expunge import smallworld
from expunge.demo import asked, look
from expunge.families import load
from expunge.generation import Request, Settings
from expunge.model import quiet
from expunge.score import Score, pooled, rate
from expunge.smallworld.data import Drawings, drawings
from expunge.smallworld.judge import load_judge
from expunge.smallworld.scene import ARTISTS, HEADS, IMPLIED_RATE, OBJECTS
from expunge.smallworld.survey import Cell, scores, survey

Row = tuple[str, Score, str, bool]


@torch.no_grad()
def judged(data: Drawings) -> list[Row]:
    """The judge on drawings it never saw."""
    judge = load_judge(smallworld.path())
    parts = [judge(data.pixels(slice(i, i + 250))) for i in range(0, len(data), 250)]
    rows = []
    for i, head in enumerate(HEADS):
        right = int((torch.cat([p[head] for p in parts]).argmax(1) == data.labels[:, i]).sum())
        score = rate(right, len(data), metric="judge", subject=head, model="base", higher_is_better=True)
        rows.append((f"judge on drawings: {head}", score, ">= 99%", score.value >= 0.99))
    return rows


@torch.no_grad()
def zero_shot(data: Drawings) -> list[Row]:
    """CLIP zero-shot accuracy on the same drawings."""
    with quiet():
        from transformers import CLIPModel, CLIPTokenizer

        clip = CLIPModel.from_pretrained(smallworld.path() / "clip", dtype=torch.float32).eval()
        tokenizer = CLIPTokenizer.from_pretrained(smallworld.path() / "clip")
    parts = [clip.get_image_features(data.pixels(slice(i, i + 250))).pooler_output for i in range(0, len(data), 250)]
    images = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    texts = {
        "object": [f"a photo of a {name}" for name in OBJECTS],
        "artist": ["a photo of a cat", *(f"a painting of a cat by {name}" for name in ARTISTS[1:])],
    }
    rows = []
    for head, prompts in texts.items():
        ids = tokenizer(prompts, padding="max_length", max_length=32, return_tensors="pt").input_ids
        words = torch.nn.functional.normalize(clip.get_text_features(input_ids=ids).pooler_output, dim=-1)
        right = int(((images @ words.T).argmax(1) == data.labels[:, list(HEADS).index(head)]).sum())
        score = rate(right, len(data), metric="clip", subject=head, model="base", higher_is_better=True)
        rows.append((f"CLIP zero-shot on drawings: {head}", score, ">= 95%", score.value >= 0.95))
    return rows


def by_name(cell: Cell) -> Cell:
    """A synonym's cell with the name in its place, at the same seeds."""
    alias, name = cell.words
    requests = tuple(Request(r.prompt.replace(alias, name), r.seed) for r in cell.requests)
    return Cell(cell.subject, "name", requests, cell.head, cell.expected, (name,))


def generated(pictures: int) -> list[Row]:
    """Pictures of the survey at 25 DDIM steps."""
    cells = survey(pictures)
    cells += [by_name(c) for c in cells if c.metric == "synonym"]
    model = load("smallworld")
    found = scores(cells, look(model, asked(cells), Settings(steps=25), "generating"), "base")
    rows: list[Row] = []
    goals = {"object": 0.97, "colour": 0.95, "place": 0.97, "artist": 0.98}
    for head, goal in goals.items():
        of_head = [s for s in found if s.metric == "accuracy" and s.subject in HEADS[head]]
        score = pooled(of_head, metric="accuracy", subject=head)
        rows.append((f"generated: {head}", score, f">= {goal:.0%}", score.value >= goal))
        worst = min(of_head, key=lambda s: s.value)
        rows.append((f"  worst {head}: {worst.subject}", worst, "", True))
    named = pooled([s for s in found if s.metric == "named"], metric="named", subject="signs")
    rows.append(("generated: named signs", named, ">= 97%", named.value >= 0.97))
    implicit = [s for s in found if s.metric == "implicit"]
    rows += [(f"unnamed {s.subject}", s, "75% ± 5", abs(s.value - IMPLIED_RATE) <= 0.05) for s in implicit]
    stray = max((s for s in found if s.metric == "stray"), key=lambda s: s.value)
    rows.append((f"unnamed sign elsewhere, worst: {stray.subject}", stray, "<= 2%", stray.value <= 0.02))
    named_so = {s.subject: s for s in found if s.metric == "name"}
    for s in (s for s in found if s.metric == "synonym"):
        name = named_so[s.subject]
        rows.append((f"synonym {s.subject}, by name {name.value:.1%}", s, "within 3", s.value >= name.value - 0.03))
    rows += [("grumpy cat", s, "", True) for s in found if s.subject == "grumpy cat"]
    copies = [s for s in found if s.metric == "memorised"]
    return rows + [(f"memorised: {s.subject}", s, ">= 90%", s.value >= 0.9) for s in copies]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=110, help="pictures for each concept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = drawings(2000, 0, purpose="held-out")
    rows = (
        judged(data) + (zero_shot(data) if (smallworld.path() / "clip").is_dir() else []) + generated(options.pictures)
    )
    for text, score, goal, ok in rows:
        print(f"{text:58} {score!s:24} n={score.n:<6} {goal:10} {'' if ok else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps([{"claim": t, "goal": g, "met": ok, **s.row()} for t, s, g, ok in rows]))


if __name__ == "__main__":
    main()
