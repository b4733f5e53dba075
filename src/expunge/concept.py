"""Concept: what is to be erased, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field, field_validator


def says(text: str, concept: str) -> bool:
    """Whether the concept's words stand in the text, in this order and as whole words."""
    return bool(said_at(text, concept))


def said_at(text: str, concept: str) -> list[tuple[int, int]]:
    """Where it says so: first letter, and the one after the last."""
    return [match.span() for match in _words(concept).finditer(text)]


@lru_cache(4096)
def _words(concept: str) -> re.Pattern[str]:
    """Lexicons ask for the same few hundred names of every caption."""
    return re.compile(rf"\b{re.escape(concept)}\b", re.IGNORECASE)


def filled(caption: str, concept: str) -> tuple[str, str]:
    """A caption with and without the concept: {} is its name, and what stands in [] comes with it.

    "a cat [in the style of {}]" and "Marlow" give "a cat in the style of Marlow" and "a cat".
    """
    both = re.sub(r"[\[\]]", "", caption), re.sub(r"\[[^]]*\]", "", caption)
    said, unsaid = (" ".join(text.replace("{}", concept).split()) for text in both)
    return said, unsaid


def swapped(caption: str, word: str, other: str) -> str:
    """The caption with `other` wherever it says `word`."""
    return re.sub(rf"\b{re.escape(word)}\b", lambda _: other, caption, flags=re.IGNORECASE)


class Concept(BaseModel):
    """A concept is known by its name alone; `within` makes it an attribute, erased from one other prompt only.

    Raises pydantic's ValidationError if a text is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the prompt that names the concept, such as 'Van Gogh'")
    anchor: str | None = Field(None, description="what takes its place, such as 'cat' for 'grumpy cat'")
    within: str | None = Field(None, description="erase the concept from this prompt only: 'cowboy' for 'cowboy hat'")

    @field_validator("name", "anchor", "within")
    @classmethod
    def _said(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("a concept is a word or a short phrase; this one is empty")
        return text.strip() if text else text

    @classmethod
    def of(cls, text: str, within: str | None = None) -> dict[str, str | None]:
        """The fields of a concept in words: "grumpy cat -> cat" has an anchor."""
        name, arrow, anchor = text.partition("->")
        return {"name": name, "anchor": anchor if arrow else None, "within": within}

    @property
    def prompt(self) -> str:
        """The prompt whose prediction is moved."""
        return self.within or self.name


def whole(concepts: Sequence[Concept]) -> list[str]:
    """Names of the concepts that are erased everywhere, not as an attribute of one prompt."""
    return [c.name for c in concepts if c.within is None]
