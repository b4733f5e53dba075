"""The registry of methods: one line each."""

from __future__ import annotations

from ..errors import unknown
from ..method import Method
from .esd import ESD

METHODS: dict[str, type[Method]] = {m.kind: m for m in (ESD,)}


def method_class(kind: str) -> type[Method]:
    """The method of that name. Raises ExpungeError if there is none."""
    if kind not in METHODS:
        raise unknown("method", kind, METHODS)
    return METHODS[kind]
