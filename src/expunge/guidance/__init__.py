"""The registry of guidances: one line each; their presets by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..errors import ExpungeError, unknown
from ..guided import Guidance
from ..recipe import called, validated
from .negative import Negative
from .safe_latent import SafeLatent
from .semantic import Semantic

GUIDANCES: tuple[type[Guidance], ...] = (Negative, SafeLatent, Semantic)

PRESETS = {name: kind for kind in GUIDANCES for name in kind.presets}


def rows() -> list[dict[str, Any]]:
    """Every preset: its name, what it is, and its options."""
    return [{"name": name, "about": about(kind), "options": settings(name)} for name, kind in PRESETS.items()]


def about(kind: type[Guidance]) -> str:
    """The first sentence of the guidance's file."""
    return str(sys.modules[kind.__module__].__doc__).split(".\n")[0].split(": ")[0]


def settings(name: str) -> dict[str, Any]:
    made = PRESETS[name].model_validate({**PRESETS[name].presets[name], "concepts": ("x",)})
    return made.model_dump(mode="json", exclude={"concepts"})


def guidance(text: str, concepts: Sequence[str]) -> Guidance:
    """A preset with the concepts, and options of its own: "sld-max" or "sld-max,scale=2000,warmup=5".

    Raises ExpungeError, with the nearest name, if there is none such.
    """
    name, changes = called(text, f"--guidance {text}:")
    if name not in PRESETS:
        raise unknown("guidance", name, PRESETS)
    if not concepts:
        raise ExpungeError(f"{name} needs something to steer away from: give --concept")
    kind = PRESETS[name]
    options = {**kind.presets[name], **changes, "concepts": tuple(concepts)}
    return validated(kind, options, f"guidance {name}")
