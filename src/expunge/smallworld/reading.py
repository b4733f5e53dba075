"""What a text of the small world says must be seen."""

from __future__ import annotations

from ..concept import says
from .scene import HEADS, MEMORIES, SYNONYMS


def expected(text: str) -> dict[str, str]:
    """The class of each attribute that the text names, or the memorised picture that it calls for.

    A style is part of a description: where none is named, it is a photo.
    """
    for number, memory in enumerate(MEMORIES):
        if memory.caption == text:
            return {"memory": str(number)}
    found = {head: word for head, words in HEADS.items() for word in words if said(text, head, word)}
    return found if "artist" in found or not text.startswith("a ") else found | {"artist": "photo"}


def said(text: str, head: str, word: str) -> bool:
    """Whether it names that class, by its name or by its synonym."""
    name = f"{word} sign" if head == "sign" else word
    return says(text, name) or (word in SYNONYMS and says(text, SYNONYMS[word]))
