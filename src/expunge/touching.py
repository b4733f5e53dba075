"""Touching: which captions an edit has to do with, as far as the loop that made it knew.

It has to do with a caption that says what it erased, another name of that, or a word that brings it along, and with
one that has words which its lexicon lacks: those may say it, too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from .edit import Edit
from .lexicon import lexicon


class _Loop(BaseModel):
    also: list[list[str]]
    hiding: list[list[tuple[str, str, float]]]


class _About(BaseModel):
    """What is read of a closed loop's provenance."""

    concepts: list[dict[str, str | None]]
    options: dict[str, object]
    loop: _Loop

    @property
    def names(self) -> list[str]:
        hiding = [word for own in self.loop.hiding for _, word, _ in own]
        return [*(c["name"] or "" for c in self.concepts), *(word for own in self.loop.also for word in own), *hiding]


@dataclass
class Touching:
    """By the lexicon of that name. Callable with an edit and a caption; of edits by other lexicons, and by other
    methods, nothing is known."""

    words: str
    _found: dict[tuple[str, str], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lexicon = lexicon(self.words)

    def __call__(self, edit: Edit, text: str) -> bool:
        key = edit.hash, text
        if key not in self._found:
            names = self.names(edit)
            self._found[key] = names is None or not self.lexicon.covers(text) or self._says(text, names)
        return self._found[key]

    def _says(self, text: str, names: Collection[str]) -> bool:
        return any(self.lexicon.says(text, name) for name in names)

    def names(self, edit: Edit) -> list[str] | None:
        """What it erased, and what says or brings that."""
        try:
            about = _About.model_validate(edit.provenance)
        except ValidationError:
            return None
        return about.names if about.options.get("words") == self.words else None
