"""Erase concepts from text-to-image diffusion models, and measure what the erasure did."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .concept import Concept as Concept
    from .edit import Edit as Edit
    from .erasure import erase as erase
    from .errors import ExpungeError as ExpungeError
    from .families import load as load
    from .generation import Request as Request
    from .generation import Settings as Settings
    from .generation import generate as generate
    from .model import Model as Model
    from .report import audit as audit

__version__ = "0.1.0"

_PUBLIC = {
    "Concept": "concept",
    "Edit": "edit",
    "ExpungeError": "errors",
    "Model": "model",
    "Request": "generation",
    "Settings": "generation",
    "audit": "report",
    "erase": "erasure",
    "generate": "generation",
    "load": "families",
}
__all__ = ["Concept", "Edit", "ExpungeError", "Model", "Request", "Settings", "audit", "erase", "generate", "load"]


def __getattr__(name: str) -> Any:
    """Imports the public names on first use: `import expunge` takes milliseconds and no torch."""
    if name in ("smallworld", "guidance"):
        return import_module(f".{name}", __name__)
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
