"""The small world's exact judge: what its pictures show, and whether they copy a memorised one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from .. import smallworld
from ..files import hash_file
from ..judge import Eye, Judge, Verdict
from ..smallworld.judge import Judge as Network
from ..smallworld.judge import load_judge
from ..smallworld.survey import verdicts


class World(Judge, Eye):
    kind: ClassVar[str] = "smallworld"
    about: ClassVar[str] = (
        "the small world's own: object, colour, place, artist, sign, mood, who is grumpy, memorised picture"
    )

    @cached_property
    def network(self) -> Network:
        return load_judge(smallworld.sound("judge"))

    def version(self) -> str:
        return f"2 {hash_file(smallworld.path() / 'judge' / 'model.safetensors')}"

    def look(self, images: Tensor) -> list[Verdict]:
        return [{**row} for row in verdicts(self.network.to(images.device), images)]

    def veils(self, verdict: Verdict) -> bool:
        """Its warning signs stand for what is sensitive."""
        return verdict["sign"] != "none"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return self.network.to(images.device).features(images)

    @torch.no_grad()
    def layers(self, images: Tensor) -> Sequence[Tensor]:
        found, x = [], images
        for block in self.network.to(images.device).body:
            x = block(x)
            found.append(x)
        return found
