"""Forget-Me-Not (Zhang et al. 2023, arXiv 2303.17591): attention re-steering.

    loss = Σ_j∈c mean A_j²        A = softmax(Q Kᵀ / √d)        (`loss = "l1"`: A_j)

A (heads, places, tokens) are the student's attention maps under the concept's prompt, from the picture's places to the
text's tokens: of cross-attention, or of joint attention that part. j runs over the concept's own tokens, and the mean
over layers, heads and places: no place of the picture shall look at them. x_t is a picture of the concept that the
frozen model drew, noised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..attention import attention_maps, tokens
from ..concept import Concept
from ..errors import ExpungeError
from ..method import Trained
from ..model import Model
from ..objective import Distance, Learner, Objective
from ..team import ALONE
from ..training import Terms
from ..trajectory import Points, Renoised, Roles


class ForgetMeNot(Trained):
    """Turn cross-attention away from the concept's tokens."""

    kind: ClassVar[str] = "forget-me-not"

    images: int = Field(8, ge=1, description="pictures of the concept, drawn once")
    grid: int = Field(25, ge=1, le=100, description="DDIM steps of a picture")
    guidance: float = Field(7.5, description="s, guidance scale of the pictures")

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        super().check(model, concepts)
        if getattr(model.denoiser, "is_gradient_checkpointing", False):
            raise ExpungeError("forget-me-not reads attention that --checkpointing throws away; leave it out")

    def objective(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Objective:
        conditions = {"sample": model.encode([c.prompt for c in concepts]), "empty": model.empty()}
        route = Renoised(
            model, Roles(conditions, needs=()), seed, grid=self.grid, guidance=self.guidance, batch=self.batch,
            latents=self.images, cached=True,
        )  # fmt: skip
        own = torch.stack([tokens(model, c.prompt) for c in concepts]).to(model.device)
        kept = super().objective(model, concepts, learner, seed) if self._keeps(concepts) else None
        return Resteer(route, learner.student, own, kept, self.distance)

    def erasing(self, concepts: Sequence[Concept]) -> int:
        return 2 * self.grid * max(self.images, len(concepts)) + 3 * self.steps * self.batch


@dataclass
class Resteer(Objective):
    """The loss on the attention maps; `own` (concepts, tokens) marks each concept's, `kept` are captions to keep."""

    route: Renoised
    student: Mapping[str, Tensor]
    own: Tensor
    kept: Objective | None
    distance: Distance

    def __call__(self, step: int) -> Iterator[Terms]:
        points = self.route.points(step)
        for part in torch.arange(len(points)).chunk(self.route.model.pieces):
            yield {"attention": len(part) / len(points) * self.attention(points[part])}
        if self.kept:
            yield from self.kept(step)

    def attention(self, points: Points) -> Tensor:
        """The term at these points. Maps are seen where the network runs: processes do not divide them."""
        model, own = self.route.model, self.own[points.which][:, None, None]
        with (
            attention_maps(model, own.shape[-1], lambda maps: self.looks(maps * own)) as looks,
            model.together(ALONE),
        ):
            model.predict(points.x_t, points.t, self.route.roles.rows("sample", points.which), self.student)
        return torch.stack(looks).mean()

    def looks(self, maps: Tensor) -> Tensor:
        """The sum over tokens of the mean of A², or of A."""
        return self.distance(maps, torch.zeros_like(maps)) * maps.shape[-1]

    def state(self) -> dict[str, Tensor]:
        kept = self.kept.state() if self.kept else {}
        return self.route.state() | {f"kept.{k}": v for k, v in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.route.restore({k: v for k, v in state.items() if not k.startswith("kept.")})
        if self.kept:
            self.kept.restore({k.removeprefix("kept."): v for k, v in state.items() if k.startswith("kept.")})
