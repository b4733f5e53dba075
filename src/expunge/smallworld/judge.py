"""The world's exact judge: a small CNN with one linear head for each attribute of a scene."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from .scene import HEADS


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class Judge(nn.Module):
    """Images of shape (n, 3, 64, 64) in [-1, 1] to class logits, one tensor (n, classes) for each head."""

    num_features = 256

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        self.body = nn.Sequential(*(_block(a, b) for a, b in pairwise(widths)))
        self.heads = nn.ModuleDict({name: nn.Linear(self.num_features, len(v)) for name, v in HEADS.items()})

    def features(self, images: Tensor) -> Tensor:
        """Mean and maximum over space of the last activations: shape (n, 256)."""
        grid = self.body(images)
        return torch.cat([grid.mean((2, 3)), grid.amax((2, 3))], dim=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def classify(self, images: Tensor) -> dict[str, list[str]]:
        """The most likely class of every head for every image."""
        return {name: [HEADS[name][i] for i in logits.argmax(1).tolist()] for name, logits in self(images).items()}


def load_judge(path: Path) -> Judge:
    """The judge of a built world: `path` is the world's folder."""
    from safetensors.torch import load_file

    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(path / "judge" / "model.safetensors").items()})
    return judge.eval().requires_grad_(False)
