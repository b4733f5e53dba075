"""Copy detection: how like given pictures others are, in an eye's features.

similarity = max over the given pictures r of cos(f(picture), f(r))
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor
from torch.nn import functional as F

from ..files import hash_file
from ..judge import Eye, Judge, Verdict
from ..picture import opened


class Copies(Judge):
    kind: ClassVar[str] = "copies"
    about: ClassVar[str] = "how like given pictures others are, in an eye's features"

    eye: SerializeAsAny[Eye] = Field(description="whose features are compared")
    pictures: tuple[str, ...] = Field(min_length=1, description="files of the pictures that must not come back")

    def version(self) -> str:
        return " ".join([self.eye.identity(), *(hash_file(Path(p)) for p in self.pictures)])

    @cached_property
    def known(self) -> dict[int, Tensor]:
        """Unit features of the given pictures, by the side of the pictures that they are compared with."""
        return {}

    def look(self, images: Tensor) -> list[Verdict]:
        side = images.shape[-1]
        if side not in self.known:
            pictures = torch.cat([opened(Path(p), side) for p in self.pictures]).to(images.device)
            self.known[side] = F.normalize(self.eye.features(pictures), dim=-1)
        alike = (F.normalize(self.eye.features(images), dim=-1) @ self.known[side].T).max(1)
        names = [Path(self.pictures[i]).name for i in alike.indices.tolist()]
        return [{"similarity": s, "nearest": n} for s, n in zip(alike.values.tolist(), names, strict=True)]
