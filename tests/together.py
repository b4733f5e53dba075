"""What several processes train, to be compared with one: run by torchrun, or imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from expunge.concept import Concept
from expunge.families import _family
from expunge.files import write_tensors
from expunge.method import scoped
from expunge.methods import METHODS
from expunge.model import Model
from expunge.sharding import shard
from expunge.team import ALONE, Team, here
from expunge.training import Trainer
from tiny import build

SHORT: dict[str, Any] = {"steps": 3, "grid": 3, "batch": 3, "lr": 1e-6}
KEEP: dict[str, Any] = {"keep": ("a boat", "a cat"), "keep_batch": 2}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fresh": ("sdxl", "esd", {"trajectory": "fresh", "batch": 1}),
    "pool of the student, kept": ("sd2", "esd", {"trajectory": "pool", "sampler": "student", **KEEP}),
    "renoised": ("sd3", "esd", {"latents": 3, "keep_gaussian": 1}),
    "reused": ("flux", "esd", {"latents": 3, "reuse": 5}),
    "distilled": ("sdxl", "sdd", {"trajectory": "pool", "sampler": "average", "ema": 0.9, "clip": 1.0}),
    "pictures shared": ("sd2", "ablation", {"regularise": 1.0, "images": 3, "prompts": ("a cat [by {}]",)}),
    "attention": ("pixart", "forget-me-not", {"images": 3, **KEEP}),
    "LoRA": ("sd2", "esd", {"latents": 3, "lora_rank": 2, "scope": "noxattn"}),
    "a text encoder's rows": ("sd2", "esd", {"latents": 3, "scope": "kv-text"}),
    "divided": ("sdxl", "esd", {"latents": 3}),
    "divided, checkpointing": ("sdxl", "esd", {"latents": 3}),
}
"""Family, method, options."""


def opened(family: str, case: str, team: Team) -> Model:
    pipeline = build(family)
    model = _family(type(pipeline).__name__)(pipeline, torch.device("cpu"), torch.float32, name=family)
    model.sharded = "divided" in case and team.size > 1
    if "checkpointing" in case:
        model.checkpointing()
    return model


def learnt(case: str, team: Team = ALONE) -> dict[str, Tensor]:
    """The first moments of the gradients and the loss after a few steps: both linear in the gradients, as Adam is not.

    All processes must come to the same weights, to the bit: the hash says so.
    """
    family, kind, options = CASES[case]
    method, seen = METHODS[kind](**SHORT | options), dict[str, Tensor]()  # type: ignore[arg-type]
    model = opened(family, case, team)

    def note(trainer: Trainer, loss: float) -> None:
        moments = {k: trainer.optimiser.state[p]["exp_avg"].clone() for k, p in trainer.parameters.items()}
        seen.update(moments | {"loss": torch.tensor(loss)})

    shard(model, scoped(model, method.scope))
    with model.together(team):
        edit = method.fit(model, [Concept(name="red cat")], on_step=note)
    assert team.same(lambda: edit.hash) == edit.hash
    return seen


def main(out: Path) -> None:
    team = here(torch.device("cpu"))
    for i, case in enumerate(CASES):
        found = learnt(case, team)
        if team.main:
            write_tensors(out / f"{i}.safetensors", found, {"processes": str(team.size)})
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
