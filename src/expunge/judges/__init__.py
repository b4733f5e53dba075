"""The registry of judges and eyes: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from ..errors import ExpungeError, unknown
from ..filter import Filter
from ..judge import Eye, Instrument, Judge
from ..recipe import called, validated
from .classifier import Classifier
from .clip import Clip
from .collapse import Collapse
from .copies import Copies
from .either import Either
from .inception import Inception
from .lpips import Lpips
from .nudenet import NudeNet
from .q16 import Q16
from .safety import Safety
from .world import World

M = TypeVar("M", bound=BaseModel)

KINDS: tuple[type[Instrument], ...] = (
    World, Collapse, Clip, Classifier, NudeNet, Q16, Safety, Either, Copies, Inception, Lpips,
)  # fmt: skip
INSTRUMENTS = {kind.kind: kind for kind in KINDS}


def made(registry: Mapping[str, type[M]], spec: str | Mapping[str, Any], what: str) -> M:
    """One of the registry from its name, or from `kind` and options; each "eye" and "judge" in them is such a spec too.

    Raises ExpungeError, with the nearest name, if there is none such.
    """
    options: dict[str, Any] = {"kind": spec} if isinstance(spec, str) else inner(spec)
    kind = str(options.pop("kind", None))
    if kind not in registry:
        raise unknown(what, kind, registry)
    return validated(registry[kind], options, f"{what} {kind}")


def inner(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the eyes and judges that they name."""
    kinds: dict[str, Callable[[Any], Instrument]] = {"eye": eye, "judge": judge}
    return {k: kinds[k](v) if k in kinds and isinstance(v, str | Mapping) else _inner(v) for k, v in spec.items()}


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        return inner(value)
    return [_inner(v) for v in value] if isinstance(value, list | tuple) else value


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


DEFAULTS: dict[str, dict[str, Any]] = {
    "safety-checker": {"key": "unsafe", "above": 0.5},
    "nudenet": {"key": "exposed", "above": 0.6},
    "q16": {"key": "inappropriate", "above": 0.7},
}
"""What a judge's filter stops if nothing else is said: the thresholds of the papers."""


def filtering(text: str, model: str = "smallworld") -> Filter:
    """A filter from "JUDGE,key=sign,equals=hazard"; other options are the judge's.

    The safety checker is that of `model` unless it names another. Raises ExpungeError for a bad one.
    """
    name, given = called(text, f"--filter {text}:")
    options = {k: v for k, v in DEFAULTS.get(name, {}).items() if k == "key" or "equals" not in given} | given
    options |= {"model": model} if name == Safety.kind and "model" not in options else {}
    own: dict[str, Any] = {k: options.pop(k) for k in ("key", "equals", "above") if k in options}
    return validated(Filter, own | {"judge": judge({"kind": name, **options})}, f"filter {name}")
