"""Concept ablation (Kumari et al. 2023, arXiv 2303.13516).

    model-based:  loss = ‖ e(x_t, p*) − sg(e(x_t, p)) ‖²
    noise-based:  loss = ‖ e(x_t, p*) − ε ‖²
    both:         + w ‖ e(x_t, p) − ε ‖²        (regularisation: the ordinary diffusion loss of the anchor)

p is a caption of the anchor and p* the same caption of the concept: "a photo of a cat", "a photo of a grumpy cat". A
style has no anchor; p* says it and p does not: "a cat in the style of Van Gogh", "a cat". For a memorised picture p* is
its exact caption and p are paraphrases, whose pictures are drawn again while they look like it. x_t is a picture that
the frozen model drew of p, noised with ε (where the model predicts v, ε stands for v). The anchor's prediction is the
student's own.

The paper draws its pictures by DPM-Solver and compares copies by SSCD's features; here it is DDIM and the cosine of
centred latents, at the same threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..concept import Concept, filled, says, swapped
from ..errors import ExpungeError
from ..files import hash_file, lines
from ..method import Trained
from ..model import Model
from ..objective import Learner, Part, Parts, Rows
from ..picture import opened
from ..trajectory import Renoised, Roles

TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of a {}", "a drawing of a {}", "a close-up of a {}")


class Ablation(Trained):
    """Map a concept onto an anchor, on pictures of the anchor that the model draws itself."""

    kind: ClassVar[str] = "ablation"
    anchors = True

    variant: Literal["model", "noise"] = Field("model", description="what e(p*) is drawn to: e(p), or the noise")
    prompts: tuple[str, ...] = Field((), description="captions that say the anchor, a style in [], or paraphrases")
    file: Path | None = Field(None, description="a text file of more such captions, one a line")
    words: int = Field(0, ge=0, description="nearest words of the model's vocabulary that make more captions")
    picture: Path | None = Field(None, description="a memorised picture, which the anchor's must not look like")
    similarity: float = Field(0.5, gt=0, lt=1, description="how alike to it they may be, at most")
    images: int = Field(200, ge=1, description="pictures of the anchor, drawn once")
    grid: int = Field(25, ge=1, le=100, description="DDIM steps of a picture")
    guidance: float = Field(6.0, description="s, guidance scale of the pictures")
    regularise: float = Field(0.0, ge=0, description="w, weight of the ordinary diffusion loss of the anchor")

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        super().check(model, concepts)
        self.pairs(concepts, self.near(model, concepts))
        if self.picture is not None:
            opened(self.picture, model.side)

    def pairs(self, concepts: Sequence[Concept], near: Sequence[Sequence[str]] = ()) -> list[tuple[str, str]]:
        """(p*, p) of every caption of every concept, with what `near` says of each. Raises ExpungeError without one."""
        words = near or [[]] * len(concepts)
        return [pair for concept, own in zip(concepts, words, strict=True) for pair in self._pairs(concept, own)]

    def _pairs(self, concept: Concept, words: Sequence[str]) -> list[tuple[str, str]]:
        prompts = [*self.prompts, *(lines(self.file, "captions") if self.file else [])]
        if concept.anchor is not None:
            said = [p for p in prompts if says(p, concept.anchor) and "[" not in p]
            said += [f"a {concept.anchor} and a {word}" for word in words]
            said = said or [text.format(concept.anchor) for text in TEMPLATES]
            return [(swapped(p, concept.anchor, concept.name), p) for p in said]
        styles = [p for p in prompts if "[" in p] + [f"a {word} [in the style of {{}}]" for word in words]
        found = [filled(p, concept.name) for p in styles] or [(concept.name, p) for p in prompts]
        if not found:
            raise ExpungeError(
                f"ablation needs to know what takes the place of {concept.name!r}: give an anchor, as"
                ' "grumpy cat -> cat", or captions of a style, as --set \'prompts=["a cat [by {}]"]\', or paraphrases'
            )
        return found

    def near(self, model: Model, concepts: Sequence[Concept]) -> list[list[str]]:
        """For each concept, words of the vocabulary near its anchor, or near the style."""
        return [model.neighbours(c.anchor or c.name, self.words, [c.name]) if self.words else [] for c in concepts]

    def describe(self, model: Model, concepts: Sequence[Concept], seed: int) -> dict[str, Any]:
        """Also what its files hold, not where they lie."""
        files = {"file": self.file, "picture": self.picture}
        held = {name: hash_file(path) for name, path in files.items() if path is not None}
        return super().describe(model, concepts, seed) | ({"files": held} if held else {})

    def part(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Retarget:
        said, anchors = zip(*self.pairs(concepts, self.near(model, concepts)), strict=True)
        conditions = {"sample": model.encode(anchors), "empty": model.empty(), "moved": model.encode(said)}
        route = Renoised(
            model, Roles(conditions, needs=()), seed, grid=self.grid, guidance=self.guidance, batch=self.batch,
            latents=self.images, purpose="anchor", cached=True, **self._unlike(model),
        )  # fmt: skip
        return Retarget(route, "moved", learner if self.variant == "model" else None)

    def _unlike(self, model: Model) -> dict[str, Any]:
        """What the pictures of the anchor must be, for the trajectory."""
        if self.picture is None:
            return {}
        own = model.latents(opened(self.picture, model.side))
        return {
            "accept": lambda x: likeness(x, own) <= self.similarity,
            "accepting": f"at most {self.similarity} like {hash_file(self.picture)}",
        }

    def parts(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Parts:
        erase = self.part(model, concepts, learner, seed)
        held = {"anchor": (self.regularise, Retarget(erase.route, "sample", None))} if self.regularise else {}
        return {"erase": (1.0, erase), **held}

    def erasing(self, concepts: Sequence[Concept]) -> int:
        each = 3 + (self.variant == "model") + 3 * bool(self.regularise)
        likely = [["word"] * self.words] * len(concepts)
        drawn = 2 * self.grid * max(self.images, len(self.pairs(concepts, likely)))
        return drawn + each * self.steps * self.batch


def likeness(x: Tensor, own: Tensor) -> Tensor:
    """Copy detection: the cosine of centred latents (n, c, h, w) with one picture's (1, c, h, w)."""
    a, b = ((z - z.mean((2, 3), keepdim=True)).flatten(1) for z in (x, own))
    return torch.cosine_similarity(a, b)


@dataclass
class Retarget(Part):
    """The prediction of the role `moved` on noised pictures of the anchor, drawn to the learner's own prediction of
    the anchor, or, without a learner, to the truth.
    """

    route: Renoised
    moved: str
    learner: Learner | None

    def rows(self, step: int) -> Rows:
        points = self.route.points(step)
        target = points.frozen["truth"]
        if self.learner:
            anchors = self.route.roles.rows("sample", points.which)
            with torch.no_grad():
                target = self.route.model.predict(points.x_t, points.t, anchors, self.learner.student)
        return Rows(points.x_t, points.t, self.route.roles.rows(self.moved, points.which), target)

    def state(self) -> dict[str, Tensor]:
        return super().state() if self.moved == "moved" else {}  # the route is shared
