"""Closed loop: erase until it is gone, and no further (expunge's own, over ESD and concept ablation).

    target(x_t) = e*(x_t, r) − η [e*(x_t, c) − e*(x_t, r)]
    loss = ‖ e(x_t, p) − sg(target) ‖² + w ‖ e(x_t, k) − sg(e*(x_t, k)) ‖²

c are captions with the concept and r the same without it, or with another word for it, drawn from a lexicon (see
`lexicon`), and k are captions that say nothing of it, and words of the vocabulary in any order. Where the concept is
said, p = c. Where it comes along unsaid, as "in the city" brings a hazard sign, p = r. There e*(x_t, r) is a mean over
pictures with the concept, of weight π, and without:

    e*(x_t, r) = π e*(x_t, c) + (1 − π) e_without     so that     e_without = the target with η = π/(1 − π)

Of pure noise π is the share of the pictures that show it; of a clean one it is 1 or 0, as the judge says; between,
it moves with the picture's share in the variance of x_t. x_t are noised pictures: at first the frozen model's; then, at
each look, also the student's own that still show the concept, and the base's of what was lost. The larger
‖ e(x_t, k) − e*(x_t, k) ‖² was at the last look, the more often k is drawn, and other captions of which it is largest
become k, too. What η is multiplied by, w, the pace, and when to stop, the looks decide (see `loop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from .. import loop
from ..asking import RELATIVES
from ..beside import Touches
from ..closing import FRESH, MORE, SCALES, Loop
from ..concept import Concept, whole
from ..errors import ExpungeError
from ..lexicon import LONG, Place, lexicon, placed
from ..method import Trained
from ..model import Model
from ..objective import Learner, Objective
from ..touching import Touching
from ..witness import Witness, witness

FEWEST = 16
"""Captions of a concept at first, where there are many concepts."""
MOST = 4
"""Times `batch` pushes a step, at most, where there are many concepts."""
PROOF = 130
"""Pictures of a proof, where nothing else is said."""
FILE: dict[str, Any] = {"file": True}
"""Of options that may name a file."""
UNREAD = {"keep_gaussian", "keep_sigma", "keep_grid"}
"""Options of other methods."""


class ClosedLoop(Trained):
    """Push the concept away where it is said or comes along, hold what was lost, and stop when it is proven gone."""

    kind: ClassVar[str] = "closed-loop"
    anchors = True
    early = True

    keep_neighbours: int = Field(48, ge=0, description="nearest words of the vocabulary, and as many others, to keep")
    eta: float = Field(1.0, ge=0, description="η where the concept is said, at first; 0 for whole captions")
    eta_unsaid: float = Field(1.0, ge=0, description="what π/(1 − π) is multiplied by, at first")
    words: str = Field(
        "everyday",
        description="lexicon that captions are made of: smallworld, everyday, or your YAML",
        json_schema_extra=FILE,
    )
    captions: int = Field(48, ge=1, description="captions of the concepts at first, with pictures of the base's")
    judge: str = Field(
        "", description="who looks: smallworld, clip[,model=…], or JUDGE,key=…,above=…|equals=…", json_schema_extra=FILE
    )
    reader: str | None = Field(
        None, description="a CLIP that says whether others stay, beside a judge that cannot", json_schema_extra=FILE
    )
    erased: float = Field(0.03, gt=0, lt=1, description="the upper bound of the concept's rate below which it is gone")
    damage: float = Field(0.02, ge=0, lt=1, description="share of the words of other captions that may be lost")
    search: int = Field(96, ge=2, description="captions to keep at first, whose pictures are searched for the concept")
    hides: tuple[str, ...] = Field((), description="words of the lexicon that bring it along, besides those it finds")
    every: int = Field(30, ge=1, description="steps between two looks")
    look: int = Field(32, ge=2, description="pictures of the concept at a look, and twice as many of others")
    proof: int = Field(
        PROOF,
        ge=2,
        description="pictures of a proof, and of others; more where `erased` is smaller, and as many again in doubt",
    )
    settle: int = Field(90, ge=0, description="last steps, ever shorter, in which the rest comes back; n times every")
    picture_steps: int = Field(10, ge=1, description="scheduler steps of a picture that is looked at")
    seconds: float | None = Field(None, gt=0, description="no more training after so many seconds")

    @model_validator(mode="before")
    @classmethod
    def _provable(cls, given: Any) -> Any:
        """As many pictures of a proof as can prove it, unless their number is given."""
        aim = given.get("erased") if isinstance(given, dict) and "proof" not in given else None
        return {**given, "proof": max(PROOF, loop.fewest(aim))} if isinstance(aim, float) and 0 < aim < 1 else given

    def objective(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Objective:
        return Loop(self, model, concepts, learner, seed)

    def erasing(self, concepts: Sequence[Concept]) -> int:
        """Of the pushes."""
        return 2 * self.picture_steps * self.each(concepts) * len(concepts) + 5 * self.rows(concepts) * self.steps

    def rows(self, concepts: Sequence[Concept]) -> int:
        """Pushes of a step: `batch` for each concept, of the first few."""
        return self.batch * min(MOST, len(concepts))

    def each(self, concepts: Sequence[Concept]) -> int:
        """Captions of each concept at first: fewer, where there are many."""
        return max(min(self.captions, FEWEST), self.captions // len(concepts))

    def passes(self, concepts: Sequence[Concept]) -> int:
        """Of a run to its last step, with every look and the strengths that are tried then, but for more pictures at a
        look, and proofs that fail on the way or are tried at more strengths; most end sooner."""
        looks, near = -(-self.steps // self.every), 2 * self.keep_neighbours * len(concepts)
        others, on = 1 + len(self.held(concepts)) + self.search + near, looks - 1
        pictures = others + 3 * self.look * looks + MORE * on + 3 * len(SCALES) * self.proof
        compared = on * (FRESH + others) + MORE * on * looks // 2
        return (
            self.erasing(concepts) + 4 * self.keep_batch * self.steps + 2 * (self.picture_steps * pictures + compared)
        )

    def suits(self, concepts: Sequence[Concept]) -> None:
        super().suits(concepts)
        slots = lexicon(self.words).slots.values()
        for name in (text for c in concepts if not c.within for text in (c.name, c.anchor) if text):
            article, _, rest = name.partition(" ")
            short = article.lower() in ("a", "an") and 0 < len(rest.split()) <= LONG
            if short or (article.lower() == "the" and any(own.has(rest) for own in slots)):
                raise ExpungeError(f"the closed loop says a name in captions of its own: give {rest!r}, not {name!r}")
        self._apart(whole(concepts))

    def _apart(self, names: Sequence[str]) -> None:
        """Raises ExpungeError if one name says another, whose picture would stand for what is left of it."""
        said = lexicon(self.words).says
        for name in names:
            within = [other for other in names if other != name and said(name, other)]
            if within and len(name.split()) <= LONG:
                raise ExpungeError(f"{name!r} goes with {within[0]!r}, which it says: erase that alone")

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        super().check(model, concepts)
        for name in UNREAD & self.model_fields_set:
            raise ExpungeError(
                f"the closed loop looks at the captions that it keeps, and reads no {name}; leave it out"
            )
        if model.sharded:
            raise ExpungeError("the closed loop draws with the whole model in each process; leave --fsdp out")
        if not self.judge:
            raise ExpungeError(
                "the closed loop looks at pictures: say who judges them, as --judge nudenet or"
                " --judge clip,model=openai/clip-vit-large-patch14, or choose another --method"
            )
        for word in self.hides:
            lexicon(self.words).slot(word)
        bare = next((place.name for place in self.places(model, concepts) if not place.there), "")
        if self.hides and bare:
            raise ExpungeError(f"{bare!r} is a caption by itself, which nothing brings along; leave hides out")
        self.witness(model, concepts).check(model.blank())

    def witness(self, model: Model, concepts: Sequence[Concept]) -> Witness:
        """Who looks. Raises ExpungeError if there is none such."""
        names, near = [c.name for c in concepts], [rivals(p, model) for p in self.places(model, concepts)]
        return witness(self.judge, self.reader, names, near, model.name)

    def touches(self, concepts: Sequence[Concept]) -> Touches:
        return Touching(self.words, (*whole(concepts),))

    def places(self, model: Model, concepts: Sequence[Concept]) -> list[Place]:
        """Where each concept stands in captions."""
        found = [placed(lexicon(self.words), concept, model.likeness) for concept in concepts]
        return [place.apart([name for name in whole(concepts) if name != place.name]) for place in found]


def rivals(place: Place, model: Model) -> list[str]:
    """What a picture without the concept may show: its bare form, or the words most like it."""
    if place.bare:
        return [place.bare]
    slots = place.lexicon.slots
    return [slots[s].named(w) for s, words in place.relatives(model.likeness, RELATIVES).items() for w in words]
