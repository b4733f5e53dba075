"""Lexicon: words of the world that a model draws, and how captions are made of them.

A lexicon has slots, such as colour and place, and a form that says in which order a caption takes a word of each. With
it captions are drawn, as many as one likes, with a concept in its place, without it, and of other things: to train on,
and to look at. Where a concept stands is read off its name:

    a word of a slot       "red"                          stands in it                 a red car → a car
                           "city"                         where there is always one    in the city → in the forest
                           "cat"                          beside a few words alone     a grumpy cat → a grumpy bird
    up to three words,     "grumpy cat"                   what precedes it goes        a grumpy red cat → a red cat
      the last one known
    a longer text          "the blue boat of Old Moll"    is a caption by itself       → a blue boat
    a word of no slot      "Van Gogh"                     stands where the words most like it do
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .concept import Concept, says
from .errors import unknown
from .recipe import mapping, validated

FOLDER = Path(__file__).parent / "lexicons"
LONG = 3
"""A name of more words than this, some of them known, is a caption."""
PATIENCE = 100
"""How many captions are drawn for one that is wanted, at most."""

T = TypeVar("T")

Likeness = Callable[[str, Sequence[str]], Sequence[float]]
"""How much a text is like each of some words."""


class Slot(BaseModel):
    """The words of one place in a caption, and how they are said there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: tuple[str, ...] = Field(min_length=1, description="what can stand there")
    share: float = Field(1.0, gt=0, le=1, description="share of captions that have it")
    name: str = Field("{}", description="how a word of it is named by itself, as '{} sign'")
    says: tuple[str, ...] = Field(("{}",), min_length=1, description="how a caption says a word of it, one at random")
    own: dict[str, str] = Field({}, description="how it says these words instead")
    of: tuple[str, ...] = Field((), description="words beside which alone it stands")
    always: bool = Field(
        False, description="whether another of its words takes a concept's place: where, left out, it is often drawn"
    )

    @model_validator(mode="after")
    def _marked(self) -> Slot:
        for text in (self.name, *self.says, *self.own.values()):
            if text.count("{}") != 1:
                raise ValueError(f"{text!r} should have {{}} once, for the word")
        return self

    def said(self, word: str, rng: random.Random) -> str:
        """As a caption says it."""
        chosen = rng.choice(self.says)
        return self.own.get(word, chosen).replace("{}", word)

    def named(self, word: str) -> str:
        return self.name.replace("{}", word)

    def word(self, name: str) -> str:
        """The word of a name, as the slot spells it: "hazard" of "Hazard sign"."""
        found = re.fullmatch(re.escape(self.name).replace(r"\{\}", "(.+)"), name, re.IGNORECASE)
        said = found[1] if found else name
        return next((word for word in self.words if word.lower() == said.lower()), said)

    def has(self, name: str) -> bool:
        """Whether that names one of its words."""
        return self.word(name) in self.words


class Lexicon(BaseModel):
    """Slots by name, and the form of a caption."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = Field("", description="one line for people")
    form: str = Field(description="the slots in their order, as 'a {colour} {object} {place}'")
    bare: float = Field(0.1, ge=0, lt=1, description="share of captions that are one word's name alone")
    slots: dict[str, Slot] = Field(min_length=1)

    @model_validator(mode="after")
    def _named(self) -> Lexicon:
        missing = [slot for slot in self.slots if self.form.count(f"{{{slot}}}") != 1]
        if missing:
            raise ValueError(f"the form {self.form!r} should have {{{missing[0]}}} once")
        return self

    def caption(self, phrases: Mapping[str, str]) -> str:
        """The form with these in their slots, and nothing in the others; without any, the empty prompt."""
        text = self.form if any(phrases.values()) else ""
        for slot in self.slots:
            text = text.replace(f"{{{slot}}}", phrases.get(slot, ""))
        return " ".join(text.split())

    def plain(self, words: Mapping[str, str]) -> str:
        """A caption of these words, by slot, each said in its first way."""
        return self.caption(
            {s: self.slots[s].own.get(w, self.slots[s].says[0]).replace("{}", w) for s, w in words.items()}
        )

    def slot(self, word: str) -> str:
        """Where a word stands. Raises ExpungeError, with the nearest one, if it has none such."""
        slots = {w: s for s, own in self.slots.items() for w in own.words}
        if word not in slots:
            raise unknown("word of the lexicon", word, slots)
        return slots[word]

    def known(self, text: str) -> dict[str, str]:
        """Words that the text says, by slot."""
        return {s: w for s, own in self.slots.items() for w in own.words if says(text, own.named(w))}

    def covers(self, text: str, more: Collection[str] = ()) -> bool:
        """Whether captions of this lexicon, or these names, have all words of the text."""
        return {*_letters(text)} <= {*self._all, *(word for name in more for word in _letters(name))}

    def telling(self, name: str) -> list[str]:
        """Its words that tell what it names from others: "hazard" of "hazard sign", "grumpy" of "grumpy cat"."""
        alone = sorted({own.word(name) for own in self.slots.values()} - {name})
        made = [word for word in self.known(name).values() if not name.lower().endswith(word.lower())]
        return alone or (made if self.covers(name) else [])

    @cached_property
    def _all(self) -> set[str]:
        said = [text for own in self.slots.values() for text in (*own.words, own.name, *own.says, *own.own.values())]
        return {word for text in (self.form, *said) for word in _letters(text)}

    def says(self, text: str, name: str) -> bool:
        """Whether a text says a name, or all words that the name is made of: "a grumpy red cat" is a grumpy cat."""
        words = self.known(name)
        made = len(words) > 1 and {*name.lower().split()} == {*" ".join(words.values()).lower().split()}
        return says(text, name) or (made and words.items() <= self.known(text).items())

    def draw(
        self, rng: random.Random, but: Collection[str] = (), beside: Collection[str] = (),
        prefer: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Phrases for a random caption, of all slots `but` some, whose words are `beside` them.

        Half of the captions have, in a slot, one of the words that it may `prefer`; a quarter, where it is one.
        """
        words = {s: self._word(s, rng, (prefer or {}).get(s, ())) for s in self.slots}
        there = {s: w for s, w in words.items() if w and s not in but}
        said = {*there.values(), *beside}
        fitting = {s: w for s, w in there.items() if not self.slots[s].of or said & {*self.slots[s].of}}
        return {s: self.slots[s].said(w, rng) for s, w in fitting.items()}

    def _word(self, slot: str, rng: random.Random, prefer: Sequence[str]) -> str:
        own, there, liked = self.slots[slot], rng.random(), rng.random() < min(0.5, len({*prefer}) / 4)
        word = rng.choice(prefer if liked else own.words)
        return word if liked or there < own.share else ""

    def others(
        self, rng: random.Random, n: int, names: Sequence[str], prefer: Mapping[str, Sequence[str]] | None = None
    ) -> list[str]:
        """`n` captions that say none of the names."""
        drawn = (self._other(rng, prefer) for _ in range(PATIENCE * n))
        return first(n, (text for text in drawn if not any(self.says(text, name) for name in names)))

    def balanced(self, texts: Sequence[str], n: int) -> list[str]:
        """`n` of the texts, each that which says the word of all that was said least by those before it."""
        words = {text: [*self.known(text).values()] for text in texts}
        said, chosen, left = Counter[str](), list[str](), [*dict.fromkeys(texts)]
        while left and len(chosen) < n:
            text = min(left, key=lambda text: min((said[w] for w in words[text]), default=len(chosen)))
            left.remove(text)
            chosen.append(text)
            said.update(words[text])
        return chosen

    def _other(self, rng: random.Random, prefer: Mapping[str, Sequence[str]] | None) -> str:
        own = self.slots[rng.choice([*self.slots])]
        alone, bare = own.named(rng.choice(own.words)), rng.random() < self.bare
        return alone if bare else self.caption(self.draw(rng, prefer=prefer))


@dataclass(frozen=True)
class Place:
    """Where a concept stands in captions: the words by slot with it, and without it. A caption by itself has none.

    `bare` is what its name alone becomes.
    """

    lexicon: Lexicon
    name: str
    bare: str = ""
    there: Mapping[str, str] = field(default_factory=dict)
    gone: Mapping[str, str] = field(default_factory=dict)

    def pairs(
        self, rng: random.Random, n: int, names: Sequence[str], fixed: Mapping[str, str] | None = None
    ) -> list[tuple[str, str]]:
        """`n` captions with the concept, and the same without it, which say no name; `fixed` are words of both."""
        drawn = (self._pair(rng, names, fixed or {}) for _ in range(PATIENCE * n if self.there else 0))
        return first(n, (pair for pair in drawn if not any(self.lexicon.says(pair[1], name) for name in names)))

    def _pair(self, rng: random.Random, names: Sequence[str], fixed: Mapping[str, str]) -> tuple[str, str]:
        slots, words = self.lexicon.slots, [*self.there.values(), *self.gone.values()]
        rest = self.lexicon.draw(rng, {*fixed, *self.there, *self.gone}, words)
        gone = self.gone or ({} if fixed else self._instead(rng, names, rest))
        sides = ({**fixed, **own} for own in (self.there, gone))
        own = [{s: slots[s].said(w, rng) for s, w in words.items()} for words in sides]
        said, unsaid = (self.lexicon.caption({**rest, **phrases}) for phrases in own)
        return said, unsaid

    def _instead(self, rng: random.Random, names: Sequence[str], rest: Mapping[str, str]) -> dict[str, str]:
        """Another word where there is always one, if one is left: without any, the model might draw the concept all
        the same. Where something that is said stands beside a few alone, one of these: "a grumpy" would be one."""
        slots, here = self.lexicon.slots, {*self.lexicon.known(self.lexicon.caption(rest)).values()}
        few = {w for s in rest for w in slots[s].of if not here & {*slots[s].of}}
        free = {s: [w for w in self._free(s, names) if slots[s].always or w in few] for s in self.there}
        beside = {s: [w for w in words if w in few] or words for s, words in free.items()}
        return {s: rng.choice(words) for s, words in beside.items() if words}

    def _free(self, slot: str, names: Sequence[str]) -> list[str]:
        """Its words that say none of the names."""
        own = self.lexicon.slots[slot]
        return [w for w in own.words if not _in(own.named(w), names)]

    def apart(self, names: Sequence[str]) -> Place:
        """The same, whose bare form says none of these names: another word stands there, if one is left."""
        slots, known = self.lexicon.slots, self.lexicon.known(self.bare)
        if not any(self.lexicon.says(self.bare, name) for name in names):
            return self
        free = {s: [w for w in (known[s], *self._free(s, names)) if not _in(slots[s].named(w), names)] for s in known}
        return replace(self, bare=self.lexicon.plain({s: words[0] for s, words in free.items() if words}))

    def relatives(self, near: Likeness, n: int) -> dict[str, list[str]]:
        """The `n` other words most like it, of each of its slots; of two words each alone, too."""
        slots, parts = self.gone or self.there, self.there if len(self.there) > 1 else {}
        found = {s: likest(w, self.lexicon.slots[s].words, near, n) for s, w in slots.items()}
        return {**found, **{s: [w, *found.get(s, ())] for s, w in parts.items()}}


def _in(text: str, names: Iterable[str]) -> bool:
    return any(says(text, name) for name in names)


def _letters(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", re.sub(r"\{[^}]*\}", "", text).lower())


def first(n: int, found: Iterable[T]) -> list[T]:
    """The first `n`, each once; no more are asked for."""
    unique = dict[T, None]()
    for one in found:
        if len(unique) >= n:
            break
        unique[one] = None
    return [*unique]


def likest(word: str, words: Sequence[str], near: Likeness, n: int) -> list[str]:
    others = [w for w in words if w != word]
    return [w for _, w in sorted(zip(near(word, others), others, strict=True), reverse=True)][:n]


def placed(lexicon: Lexicon, concept: Concept, near: Likeness) -> Place:
    """Where the concept stands."""
    name, anchor, slots = concept.name, concept.anchor or "", lexicon.slots
    known = lexicon.known(name)
    alone = [s for s, own in slots.items() if own.has(name)]
    head = next((s for s, w in known.items() if name.lower().endswith(w.lower())), "")
    if known and not alone and len(name.split()) > LONG:
        return Place(lexicon, name, anchor or lexicon.plain(known))
    if head and not alone:
        before = name[: -len(known[head])].strip()
        other = next((s for s, own in slots.items() if own.has(before) and s != head), None)
        there = {other: slots[other].word(before), head: known[head]} if other else {head: name}
        return Place(lexicon, name, anchor or known[head], there, {head: anchor or known[head]})
    slot = alone[0] if alone else nearest(lexicon, name, near)
    gone = {slot: slots[slot].word(anchor)} if anchor else {}
    return Place(lexicon, name, anchor, {slot: slots[slot].word(name)}, gone)


def nearest(lexicon: Lexicon, name: str, near: Likeness) -> str:
    """The slot of the words most like it, by the mean of the three likest."""

    def most(slot: str) -> float:
        found = sorted(near(name, lexicon.slots[slot].words), reverse=True)[:3]
        return sum(found) / len(found)

    return max(lexicon.slots, key=most)


def lexicon(name: str) -> Lexicon:
    """A shipped lexicon, or a user's YAML file. Raises ExpungeError if there is none, or it is none."""
    return validated(Lexicon, mapping(name, FOLDER, "lexicon"), f"lexicon {name}")
