"""The registry of judges and eyes: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from ..errors import ExpungeError, unknown
from ..judge import Eye, Instrument, Judge
from ..recipe import validated
from .classifier import Classifier
from .clip import Clip
from .collapse import Collapse
from .copies import Copies
from .inception import Inception
from .lpips import Lpips
from .nudenet import NudeNet
from .q16 import Q16
from .safety import Safety
from .world import World

M = TypeVar("M", bound=BaseModel)

INSTRUMENTS: dict[str, type[Instrument]] = {
    i.kind: i for i in (World, Collapse, Clip, Classifier, NudeNet, Q16, Safety, Copies, Inception, Lpips)
}


def made(registry: Mapping[str, type[M]], spec: str | Mapping[str, Any], what: str) -> M:
    """One of the registry from its name, or from `kind` and options, whose "eye" or "judge" is such a spec as well.

    Raises ExpungeError, with the nearest name, if there is none such.
    """
    options: dict[str, Any] = {"kind": spec} if isinstance(spec, str) else dict(spec)
    kind = str(options.pop("kind", None))
    if kind not in registry:
        raise unknown(what, kind, registry)
    if isinstance(options.get("eye"), str | Mapping):
        options["eye"] = eye(options["eye"])
    if isinstance(options.get("judge"), str | Mapping):
        options["judge"] = judge(options["judge"])
    return validated(registry[kind], options, f"{what} {kind}")


def instrument(spec: str | Mapping[str, Any]) -> Instrument:
    """A judge or an eye. Raises ExpungeError if there is none such."""
    return made(INSTRUMENTS, spec, "judge")


def judge(spec: str | Mapping[str, Any]) -> Judge:
    """As `instrument`. Raises ExpungeError for one that only compares pictures."""
    found = instrument(spec)
    if not isinstance(found, Judge):
        raise ExpungeError(f"{found.kind} gives features and no verdicts; choose another judge")
    return found


def eye(spec: str | Mapping[str, Any]) -> Eye:
    """As `instrument`. Raises ExpungeError for one that gives no features."""
    found = instrument(spec)
    if not isinstance(found, Eye):
        raise ExpungeError(f"{found.kind} gives verdicts and no features; choose smallworld, clip or inception")
    return found
