"""Concept: what is to be erased, in words."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator


def says(text: str, concept: str) -> bool:
    """Whether the concept's words stand in the text, in this order and as whole words."""
    return re.search(rf"\b{re.escape(concept)}\b", text, re.IGNORECASE) is not None


def filled(caption: str, concept: str) -> tuple[str, str]:
    """A caption with and without the concept: {} is its name, and what stands in [] comes with it.

    "a cat [in the style of {}]" and "Marlow" give "a cat in the style of Marlow" and "a cat".
    """
    both = re.sub(r"[\[\]]", "", caption), re.sub(r"\[[^]]*\]", "", caption)
    said, unsaid = (" ".join(text.replace("{}", concept).split()) for text in both)
    return said, unsaid


class Concept(BaseModel):
    """A concept is known by its name alone; `within` makes it an attribute, erased from one other prompt only.

    Raises pydantic's ValidationError if a text is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the prompt that names the concept, such as 'Van Gogh'")
    within: str | None = Field(None, description="erase the concept from this prompt only: 'cowboy' for 'cowboy hat'")

    @field_validator("name", "within")
    @classmethod
    def _said(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("a concept is a word or a short phrase; this one is empty")
        return text.strip() if text else text

    @property
    def prompt(self) -> str:
        """The prompt whose prediction is moved."""
        return self.within or self.name
