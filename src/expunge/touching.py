"""Touching: which captions an edit has to do with, as far as the loop that made it knew.

It has to do with a caption that says what it erased, or the word that tells that from others ("hazard" of a hazard
sign, "grumpy" of a grumpy cat), another name of it, or a word that brings it along; and with one that has words which
its lexicon lacks: those may say it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from .beside import Touches
from .edit import Edit
from .lexicon import Lexicon, lexicon


class _Loop(BaseModel):
    also: list[list[str]]
    hiding: list[list[tuple[str, str, float]]]


class _Concept(BaseModel):
    name: str


class _About(BaseModel):
    """What is read of a closed loop's provenance."""

    concepts: list[_Concept]
    options: dict[str, object]
    loop: _Loop

    def names(self, known: Lexicon) -> list[str]:
        erased = [*(c.name for c in self.concepts), *(word for own in self.loop.also for word in own)]
        hiding = [word for own in self.loop.hiding for _, word, _ in own]
        return [*dict.fromkeys([*erased, *(word for name in erased for word in known.telling(name)), *hiding])]


@dataclass
class Touching(Touches):
    """By the lexicon of that name; `own` are names that it lacks and that say nothing of other edits, such as of what
    is erased now. Callable with an edit and a caption; of edits by other lexicons, and by other methods, nothing is
    known."""

    words: str
    own: tuple[str, ...] = ()
    _found: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lexicon = lexicon(self.words)

    def __call__(self, edit: Edit, text: str) -> bool:
        names = self.names(edit)
        if names is None:
            return True
        key = (text, *names)
        if key not in self._found:
            covered = self.lexicon.covers(text, self.own)
            self._found[key] = not covered or any(self.lexicon.says(text, name) for name in names)
        return self._found[key]

    def names(self, edit: Edit) -> list[str] | None:
        """What it erased, and what says or brings that; None if that is not known."""
        try:
            about = _About.model_validate(edit.provenance)
        except ValidationError:
            return None
        return about.names(self.lexicon) if about.options.get("words") == self.words else None
