"""Looking: captions that a concept may show in, captions that say nothing of it, and what the model draws of them."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from . import loop
from .concept import Concept, whole
from .edit import Edit
from .generation import Request, Settings, latents
from .lexicon import lexicon
from .model import Model
from .pushing import Push
from .rng import derive
from .steering import Steering
from .training import fitted
from .witness import Tried

if TYPE_CHECKING:
    from .methods.closed_loop import ClosedLoop

RELATIVES = 5
"""Words most like the concept, which are looked at and kept more often."""
HIDES, ASKED = 0.25, 16
"""A suspected word brings a concept along if more than so much of that many pictures show it."""
ALONE = 8
"""One in so many captions that say a concept is its name alone."""


@dataclass(frozen=True)
class Seen:
    """Pictures of a look. Of pushes: whether the concept is `there`, and latents; of others: their words, those that
    are `lost`, and the base's latents of pictures that lost any."""

    pushes: Sequence[Push]
    others: Sequence[str]
    there: Sequence[bool]
    words: Sequence[Sequence[str]]
    lost: Sequence[Collection[str]]
    latents: Tensor
    base: Mapping[int, Tensor]

    def leaks(self) -> tuple[list[Push], Tensor]:
        """The pushes that still show a concept, and the latents of those pictures."""
        rows = [k for k, bad in enumerate(self.there) if bad]
        return [self.pushes[k] for k in rows], self.latents[rows]

    def losses(self) -> tuple[list[str], Tensor]:
        """The captions of which anything was lost, and the latents of the base's pictures."""
        rows = [k for k, bad in enumerate(self.lost) if bad]
        return [self.others[k] for k in rows], torch.stack([self.base[k] for k in rows]) if rows else self.latents[:0]

    def counts(self, *, unsaid: bool) -> tuple[int, int]:
        """Pictures that show a concept, of those that say it, or that bring it along."""
        own = [bad for push, bad in zip(self.pushes, self.there, strict=True) if push.unsaid == unsaid]
        return sum(own), len(own)


@dataclass
class Looker:
    """Draws captions and pictures, and asks the witness. `tried` and `hiding` are each concept's, found by `search`."""

    options: ClosedLoop
    model: Model
    concepts: Sequence[Concept]
    seed: int
    tried: list[Tried] = field(default_factory=list)
    hiding: list[list[tuple[str, str, float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lexicon, self.places = lexicon(self.options.words), self.options.places(self.model, self.concepts)
        self.names, self.witness = whole(self.concepts), self.options.witness(self.model, self.concepts)
        self.kept = self.options.held(self.concepts)
        self.settings = Settings(steps=self.options.picture_steps, cfg=self.model.cfg)
        relatives = [place.relatives(self.model.likeness, RELATIVES) for place in self.places]
        self.prefer = {slot: [w for own in relatives for w in own.get(slot, [])] for own in relatives for slot in own}

    def watch(self, words: Collection[str]) -> None:
        """Looks at these more often from now on."""
        known = {w: slot for slot, own in self.lexicon.slots.items() for w in own.words}
        for word in words:
            if word in known and word not in self.prefer.get(known[word], ()):
                self.prefer.setdefault(known[word], []).append(word)

    @property
    def sure(self) -> float:
        """The share of pictures with a concept, of the one that it sees worst, that the witness sees."""
        return 1.0 if self.witness.exact else min(tried.sensitivity for tried in self.tried)

    # ------------------------------------------------------------------------------------------------ captions

    def rng(self, what: str) -> random.Random:
        return random.Random(derive(self.seed, f"loop/{what}"))

    def said(self, rng: random.Random, i: int, n: int) -> list[Push]:
        """Captions that say concept i; of one that is a caption itself, that alone."""
        place = self.places[i]
        return [Push(c, c, r) for c, r in place.pairs(rng, n, self.names)] if place.there else [self.alone(i)]

    def alone(self, i: int) -> Push:
        """The concept's name."""
        return Push(self.places[i].name, self.places[i].name, self.places[i].bare)

    def unsaid(self, rng: random.Random, i: int, n: int) -> list[Push]:
        """Captions that bring concept i along, in equal parts by the words in which it hides."""
        words = self.hiding[i]
        each = -(-n // len(words)) if words else 0
        own = [(self.places[i].pairs(rng, each, self.names, {slot: word}), prior) for slot, word, prior in words]
        return [Push(r, c, r, prior) for pairs, prior in own for c, r in pairs][:n]

    def others(self, rng: random.Random, n: int) -> list[str]:
        """Captions that say no concept; at most half of them the user's."""
        own = rng.sample(self.kept, min(len(self.kept), n // 2))
        return [*own, *self.lexicon.others(rng, n - len(own), self.names, self.prefer)]

    def wanted(self, rng: random.Random, i: int, n: int) -> list[Push]:
        """What to look at for concept i: captions that bring it along, for a half; its name; captions that say it."""
        unsaid = self.unsaid(rng, i, n // 2)
        said = self.said(rng, i, n - len(unsaid) - max(1, n // ALONE))
        return [*unsaid, *said, *[self.alone(i)] * (n - len(unsaid) - len(said))]

    # ------------------------------------------------------------------------------------------------ pictures

    def search(self) -> None:
        """Tries the witness on the base's pictures, and finds the words in which the concepts hide."""
        others = self.others(self.rng("search"), self.options.search)
        _, gone = self.drawn(others, "search")
        for i in range(len(self.concepts)):
            said = [push.p for push in self.wanted_at_first(i)]
            there = self.witness.evidence(self.drawn(said, f"try/{i}")[1], i)
            self.tried.append(Tried.of(there, self.witness.evidence(gone, i)))
            words = [self.lexicon.known(text) for text in others]
            named = [(self.lexicon.slot(word), word) for word in self.options.hides]
            suspects = [*named, *loop.suspects(words, self.shows(gone, i))]
            self.hiding.append(self._hiding([*dict.fromkeys(suspects)], i))

    def wanted_at_first(self, i: int) -> list[Push]:
        said = self.said(self.rng(f"try/{i}"), i, self.options.look)
        return [*said, *[self.alone(i)] * (self.options.look - len(said))]

    def _hiding(self, suspects: Sequence[tuple[str, str]], i: int) -> list[tuple[str, str, float]]:
        """The suspects that bring concept i along by themselves, where none that was found stands beside them, and how
        often they do; those that the user named do it if they ever do."""
        found: list[tuple[str, str, float]] = []
        for slot, word in suspects:
            names, beside = [*self.names, *(w for _, w, _ in found)], {slot: [word]}
            drawn = self.lexicon.others(self.rng(f"suspect/{i}/{word}"), 8 * ASKED, names, beside)
            asked = [text for text in drawn if self.lexicon.known(text).get(slot) == word][:ASKED]
            shown = self.shows(self.drawn(asked, f"suspect/{i}/{word}")[1], i) if asked else []
            least = 0 if word in self.options.hides else HIDES * len(shown)
            found += [(slot, word, sum(shown) / len(shown))] if sum(shown) > least else []
        return found

    def shows(self, images: Tensor, i: int) -> list[bool]:
        """Which show concept i."""
        found: list[bool] = (self.witness.evidence(images, i) > self.tried[i].threshold).tolist()
        return found

    def drawn(self, captions: Sequence[str], what: str, rows: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Latents and images of the model as it is, of all rows or some; `what` and a row's number make its noise."""
        rows = range(len(captions)) if rows is None else rows
        asked = [Request(captions[k], derive(self.seed, f"loop/{what}", step=k)) for k in rows]
        made: list[tuple[Tensor, Tensor]] = []
        with tqdm(total=len(asked), desc="looking", unit="image", leave=False, disable=not self.model.team.main) as bar:
            for i in range(0, len(asked), self.model.rows):
                own = asked[i : i + self.model.rows]
                made.append(fitted(partial(self._batch, own), self.model.lighter, bar))
                bar.update(len(own))
        return torch.cat([z for z, _ in made]), torch.cat([images for _, images in made])

    @torch.no_grad()
    def _batch(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
        z = latents(self.model, requests, Steering.of(self.model, self.settings.guidance), self.settings)
        return z, self.model.decode(z)

    def look(self, edit: Edit, what: str, pictures: int, others: int, scale: float = 1.0) -> Seen:
        """Pictures of fresh captions under `scale` times the edit: so many of the concepts, and of others."""
        rng, each = self.rng(what), max(2, pictures // len(self.concepts))
        wanted = [(i, push) for i in range(len(self.concepts)) for push in self.wanted(rng, i, each)]
        free, n = self.others(rng, others), len(wanted)
        captions, base = [*(push.p for _, push in wanted), *free], dict[int, Tensor]()
        with edit.on(self.model, scale):
            z, images = self.drawn(captions, what)

        def before(rows: Sequence[int]) -> Tensor:
            own, found = self.drawn(captions, what, [n + k for k in rows])
            base.update(zip(rows, own, strict=True))
            return found

        shown = [self.shows(images[:n], i) for i in range(len(self.concepts))]
        there = [shown[i][k] for k, (i, _) in enumerate(wanted)]
        lost = self.witness.lost(images[n:], free, before)
        words = [self.witness.words(text) for text in free]
        return Seen([push for _, push in wanted], free, there, words, lost, z[:n], base)
