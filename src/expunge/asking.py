"""Asking: captions that a concept is said in, or comes along in, and captions that say nothing of it."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .concept import Concept, whole
from .lexicon import Place, first, lexicon, placed
from .model import Model
from .pushing import Push
from .rng import derive

if TYPE_CHECKING:
    from .methods.closed_loop import ClosedLoop

RELATIVES = 5
"""Words most like the concept, which are looked at and kept more often."""
ALONE = 8
"""One in so many captions that say a concept is its name alone."""
ALIAS = 0.85
"""A word is another name of a concept if the lower bound of the share of its pictures that show it is above this."""
POOL = 4
"""From so many times the captions that are wanted, half are chosen for their words."""
SHORT, LONG = 2, 6
"""Words of a loose caption."""
EVERY = 10**6
"""More words than a vocabulary has."""


@dataclass
class Asking:
    """Draws captions. `hiding` are the words that bring each concept along, each after its slot and before how often
    its pictures show it, and `also` those of them that are other names of it; `vocabulary` are words of the model that
    may be held in any order."""

    options: ClosedLoop
    model: Model
    concepts: Sequence[Concept]
    seed: int
    hiding: list[list[tuple[str, str, float]]] = field(default_factory=list)
    also: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lexicon, self.places = lexicon(self.options.words), self.options.places(self.model, self.concepts)
        wanted = self.options.held(self.concepts)
        self.kept = [text for text in wanted if not any(self.lexicon.says(text, name) for name in self.names)]
        self.vocabulary = [*dict.fromkeys(word for place in self.places for word in self._words(place.name))]
        relatives = [place.relatives(self.model.likeness, RELATIVES) for place in self.places]
        self.prefer = {slot: [w for own in relatives for w in own.get(slot, [])] for own in relatives for slot in own}

    def _words(self, name: str) -> list[str]:
        """The vocabulary's nearest, and as many others."""
        n, ranked = self.options.keep_neighbours, self.model.neighbours(name, EVERY, self.names)
        return [*ranked[:n], *self.rng(f"words/{name}").sample(ranked[n:], min(n, len(ranked[n:])))]

    def watch(self, words: Collection[str]) -> None:
        """Looks at these more often from now on."""
        known = {w: slot for slot, own in self.lexicon.slots.items() for w in own.words}
        for word in words:
            if word in known and word not in self.prefer.get(known[word], ()):
                self.prefer.setdefault(known[word], []).append(word)

    def rng(self, what: str) -> random.Random:
        return random.Random(derive(self.seed, f"loop/{what}"))

    @property
    def names(self) -> list[str]:
        """Of the concepts, and others that were found to be theirs."""
        return [*whole(self.concepts), *(word for own in self.also for word in own)]

    def aliases(self, i: int) -> list[Place]:
        """Where other names of concept i stand."""
        found = [word for own in self.also[i : i + 1] for word in own]
        anchor = self.concepts[i].anchor
        return [placed(self.lexicon, Concept(name=word, anchor=anchor), self.model.likeness) for word in found]

    def pairs(self, rng: random.Random, place: Place, n: int) -> list[Push]:
        """Captions that say what stands there."""
        return [Push(c, c, r) for c, r in place.pairs(rng, n, self.names)]

    def said(self, rng: random.Random, i: int, n: int) -> list[Push]:
        """Captions that say concept i by any of its names, in equal parts; of one that is a caption itself, that."""
        if not self.places[i].there:
            return [self.alone(i)]
        places = [self.places[i], *self.aliases(i)]
        sizes = [len(range(k, n, len(places))) for k in range(len(places))]
        return [push for place, size in zip(places, sizes, strict=True) for push in self.pairs(rng, place, size)]

    def loose(self, rng: random.Random, n: int) -> list[str]:
        """Captions of a few words of the vocabulary in any order, that say no concept."""
        sizes = range(SHORT, 1 + min(LONG, len(self.vocabulary)))
        drawn = (" ".join(rng.sample(self.vocabulary, rng.choice(sizes))) for _ in range(2 * n if sizes else 0))
        return first(n, (text for text in drawn if not any(self.lexicon.says(text, name) for name in self.names)))

    def alone(self, i: int) -> Push:
        """The concept's name."""
        return self.bare(self.places[i])

    def bare(self, place: Place) -> Push:
        """What stands there, by itself."""
        return Push(place.name, place.name, place.bare)

    def unsaid(self, rng: random.Random, i: int, n: int) -> list[Push]:
        """Captions that bring concept i along, in equal parts by the words in which it hides."""
        words = [own for own in self.hiding[i] if own[1] not in self.names]
        words = rng.sample(words, n) if n < len(words) else words
        each = -(-n // len(words)) if words else 0
        own = [(self.places[i].pairs(rng, each, self.names, {slot: word}), prior) for slot, word, prior in words]
        return [Push(r, c, r, prior) for pairs, prior in own for c, r in pairs][:n]

    def others(self, rng: random.Random, n: int) -> list[str]:
        """Captions that say no concept; at most half of them the user's."""
        own = rng.sample(self.kept, min(len(self.kept), n // 2))
        drawn, wanted = self.lexicon.others(rng, POOL * n, self.names, self.prefer), n - len(own)
        return [*own, *drawn[: wanted // 2], *self.lexicon.balanced(drawn[wanted // 2 :], wanted - wanted // 2)]

    def harmless(self, rng: random.Random, n: int) -> list[str]:
        """Captions that neither say nor bring along any concept, as the lexicon draws them."""
        return self.lexicon.others(rng, n, [*self.names, *(word for own in self.hiding for _, word, _ in own)])

    def wanted(self, rng: random.Random, i: int, n: int) -> list[Push]:
        """What to look at for concept i: captions that bring it along, for a half; its name; captions that say it."""
        unsaid = self.unsaid(rng, i, n // 2)
        said = self.said(rng, i, n - len(unsaid) - max(1, n // ALONE))
        return [*unsaid, *said, *[self.alone(i)] * (n - len(unsaid) - len(said))]
