"""Where a method's target stands still, and where it runs ahead: how far predictions move as a concept is erased.

    python benchmarks/drift.py [--concept car] [--steps 60] [--lr 5e-5]

SDD and model-based ablation draw a prediction to another of the student's own: to e(x_t, 0), to e(x_t, anchor). Weights
are shared, so the target moves with what is drawn to it. For points x_t on rollouts of the concept, in units of
‖e*(c) − e*(o)‖, o being what c is drawn to (the empty prompt, or the anchor):

    left    ‖e(c) − e(o)‖      the loss's root: 0 when it is won
    c, o    ‖e(c) − e*(c)‖, ‖e(o) − e*(o)‖      how far each went
    others  ‖e(k) − e*(k)‖ of captions k without the concept, in units of ‖e*(k) − e*(0)‖ on rollouts of their own
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from expunge.concept import Concept
from expunge.edit import Edit
from expunge.families import load
from expunge.method import Trained
from expunge.methods.ablation import Ablation
from expunge.methods.esd import ESD
from expunge.methods.sdd import SDD
from expunge.model import Model
from expunge.trajectory import Renoised, Roles

OTHERS = ("a red cat in the city", "a blue house at the beach by Orsini", "a white boat in a room", "a green cup")
ANCHOR = "boat"


def methods(name: str, steps: int, lr: float) -> dict[str, tuple[str, str, Trained]]:
    """The prompt c that moves, the prompt o that it is drawn to, and the method."""
    common = {"steps": steps, "lr": lr, "batch": 8, "grid": 5}
    average = {**common, "trajectory": "pool", "sampler": "average", "ema": 0.95}
    prompts = tuple(f"a {colour} {ANCHOR} {at}" for colour in ("red", "blue") for at in ("at the beach", "in a room"))
    ablation = {**common, "images": 16, "guidance": 4.0, "prompts": prompts}
    pair = (prompts[0].replace(ANCHOR, name), prompts[0])
    return {
        "ESD": (name, "", ESD(**common)),
        "SDD": (name, "", SDD(**average)),
        "SDD, empty prompt kept": (name, "", SDD(**average, keep=("",))),
        "ablation": (*pair, Ablation(**ablation)),
        "ablation, regularised": (*pair, Ablation(**ablation, regularise=1.0)),
        "ablation, noise-based": (*pair, Ablation(**ablation, variant="noise")),
    }


def points(model: Model, prompt: str) -> tuple[Tensor, Tensor]:
    """x_t and t on rollouts of a prompt."""
    roles = Roles({"sample": model.encode([prompt]), "empty": model.empty()}, needs=())
    found = Renoised(model, roles, 7, grid=10, batch=32, latents=8).draw(0)
    return found.x_t, found.t


@torch.no_grad()
def said(model: Model, at: tuple[Tensor, Tensor], prompt: str) -> Tensor:
    x_t, t = at
    return model.predict(x_t, t, model.encode([prompt]).repeat(len(t)))


def drift(model: Model, edit: Edit, c: str, o: str) -> list[float]:
    """left, c, o, others."""
    own = [(points(model, c), c), (points(model, c), o), *((points(model, k), k) for k in OTHERS)]
    before = [said(model, where, text) for where, text in own]
    units = [before[0] - before[1]] * 2 + [
        e - said(model, w, "") for e, (w, _) in zip(before[2:], own[2:], strict=True)
    ]
    with edit.on(model):
        after = [said(model, where, text) for where, text in own]
    moved = [((a - b).norm() / unit.norm()).item() for a, b, unit in zip(after, before, units, strict=True)]
    left = ((after[0] - after[1]).norm() / units[0].norm()).item()
    return [left, *moved[:2], sum(moved[2:]) / len(OTHERS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", default="car")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=5e-5)
    options = parser.parse_args()
    model = load("smallworld")
    print("| method | left | c moved | its target moved | others moved |\n|---|---|---|---|---|", flush=True)
    for name, (c, o, method) in methods(options.concept, options.steps, options.lr).items():
        edit = method.fit(model, [Concept(name=options.concept, anchor=ANCHOR if method.anchors else None)], seed=1)
        print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in drift(model, edit, c, o)) + " |", flush=True)


if __name__ == "__main__":
    main()
