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
from expunge.cell import Cell
from expunge.demo import look
from expunge.families import load
from expunge.generation import Request, Settings
from expunge.model import quiet
from expunge.protocol import requests
from expunge.score import Score, pooled, rate
from expunge.smallworld.build import caption_features, tokens
from expunge.smallworld.data import Drawings, drawings
from expunge.smallworld.judge import load_judge
from expunge.smallworld.scene import ANIMALS, ARTISTS, HEADS, IMPLIED_RATE, MEMORIES, OBJECTS, SIGNS, describe
from expunge.smallworld.survey import scores, survey

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


def ways() -> dict[str, dict[str, list[str]]]:
    """For each object and each artist, the captions that say it, with every mood, sign and style that may go along."""

    def says(obj: str, artist: str) -> list[str]:
        medium = "a photo of " if artist == "photo" else "a painting of "
        moods = ("plain", "grumpy") if obj in ANIMALS else ("plain",)
        return [describe(obj, mood=mood, sign=sign, artist=artist, medium=medium) for mood in moods for sign in SIGNS]

    return {
        "object": {obj: [text for artist in ARTISTS for text in says(obj, artist)] for obj in OBJECTS},
        "artist": {artist: [text for obj in OBJECTS for text in says(obj, artist)] for artist in ARTISTS},
    }


@torch.no_grad()
def zero_shot(data: Drawings) -> list[Row]:
    """CLIP's zero-shot accuracy on the drawings that have no caption of their own, as the memorised ones do.

    The class whose captions are likeliest on average: argmax over classes of mean exp(scale · cos(picture, caption)).
    """
    with quiet():
        from transformers import CLIPModel, CLIPTokenizer

        clip = CLIPModel.from_pretrained(smallworld.path() / "clip", dtype=torch.float32).eval()
        tokenizer = CLIPTokenizer.from_pretrained(smallworld.path() / "clip")
    kept = [i for i, row in enumerate(data.captions) if row[0] not in {m.caption for m in MEMORIES}]
    pixels = torch.split(data.pixels(torch.tensor(kept)), 250)
    images = torch.nn.functional.normalize(torch.cat([clip.get_image_features(p).pooler_output for p in pixels]), dim=1)
    rows = []
    for head, classes in ways().items():
        words = [caption_features(clip, tokens(tokenizer, captions)) for captions in classes.values()]
        likely = torch.stack([(clip.logit_scale.exp() * images @ w.T).exp().mean(1) for w in words], 1)
        right = int((likely.argmax(1) == data.labels[kept, list(HEADS).index(head)]).sum())
        score = rate(right, len(kept), metric="clip", subject=head, model="base", higher_is_better=True)
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
    found = scores(cells, look(model, requests(cells), Settings(steps=25), "generating"), "base")
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
    rows = judged(data) + zero_shot(data) + generated(options.pictures)
    for text, score, goal, ok in rows:
        print(f"{text:58} {score!s:24} n={score.n:<6} {goal:10} {'' if ok else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps([{"claim": t, "goal": g, "met": ok, **s.row()} for t, s, g, ok in rows]))


if __name__ == "__main__":
    main()
