"""What a text of the small world says must be seen."""

from __future__ import annotations

from ..concept import says
from .scene import HEADS, MEMORIES, SYNONYMS


def expected(text: str) -> dict[str, str]:
    """What the text names, and its style: a description where none is named is of a photo."""
    found = named(text)
    described = text.startswith("a ") and not found.keys() & {"artist", "memory"}
    return found | ({"artist": "photo"} if described else {})


def named(text: str) -> dict[str, str]:
    """The class of each attribute that the text names, or the memorised picture that it calls for."""
    for number, memory in enumerate(MEMORIES):
        if memory.caption == text:
            return {"memory": str(number)}
    return {head: word for head, words in HEADS.items() for word in words if said(text, head, word)}


def readable(name: str) -> bool:
    """Whether a name is all of this world's words, so that a picture of it can be told from any other."""
    known = {word.lower() for words in HEADS.values() for word in words} - {"photo", "plain", "none"} | {"sign"}
    whole = name.lower() in SYNONYMS.values() or "memory" in named(name)
    return whole or (bool(named(name)) and {*name.lower().split()} <= known)


def said(text: str, head: str, word: str) -> bool:
    """Whether it names that class, by its name or by its synonym."""
    name = f"{word} sign" if head == "sign" else word
    return says(text, name) or (word in SYNONYMS and says(text, SYNONYMS[word]))
