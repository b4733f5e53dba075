"""Plan: what an audit asks, of which rows, and by which judges and metrics; said and tried before it starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .cell import Cell
from .concept import says
from .errors import ExpungeError
from .generation import Request, Settings
from .judge import Judge
from .judges import judge
from .metric import Metric
from .metrics import metric
from .model import Model
from .protocol import Protocol, requests
from .variant import BASE, Variant


@dataclass(frozen=True)
class Plan:
    """What an audit does, said before it starts."""

    protocol: Protocol
    cells: tuple[Cell, ...]
    variants: tuple[Variant, ...]
    told: tuple[str, ...]
    settings: Settings

    @cached_property
    def requests(self) -> list[Request]:
        return requests(self.cells)

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The judges that the cells ask, by name."""
        known = {"smallworld": "smallworld", **self.protocol.judges}
        return {name: judge(known[name]) for name in dict.fromkeys(cell.judge for cell in self.cells)}

    @cached_property
    def metrics(self) -> list[Metric]:
        return [*map(metric, self.protocol.metrics)]

    @property
    def erased(self) -> list[str]:
        """What any of the rows takes away, or is told to be judged by."""
        return [*dict.fromkeys([*self.told, *(c for v in self.variants for c in v.concepts())])]

    def erased_by(self, variant: Variant) -> list[str]:
        """What this row takes away; for the base and other whole models, what any does."""
        own = variant.concepts()
        return [*dict.fromkeys([*self.told, *own])] if own else self.erased

    def named_by(self, variant: Variant) -> list[str]:
        """The names of what this row takes away, synonyms that the protocol knows among them."""
        erased = self.erased_by(variant)
        return list(dict.fromkeys([*erased, *(w for cell in self.cells if cell.mentions(erased) for w in cell.words)]))

    def settings_of(self, variant: Variant) -> Settings:
        return replace(self.settings, guidance=variant.guidance)


def plan(
    protocol: Protocol,
    base: Model,
    variants: Sequence[Variant],
    *,
    limit: int | None = None,
    erased: Sequence[str] = (),
) -> Plan:
    """Raises ExpungeError if two rows have one name, an edit is not of this model, or the protocol has no prompts."""
    if not protocol.rates and not protocol.prompts.survey:
        raise ExpungeError(f"the protocol {protocol.name} has no rate: give it one, such as that of collapsed pictures")
    names = [v.name for v in (BASE, *variants)]
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        raise ExpungeError(f"two rows of the audit are called {twice[0]!r}; rename an edit's file")
    for variant in variants:
        for edit, _ in variant.edits:
            edit.check(base)
    settings = Settings(steps=protocol.steps, cfg=base.cfg if protocol.cfg is None else protocol.cfg)
    found = Plan(protocol, tuple(protocol.cells(limit)), (BASE, *variants), tuple(erased), settings)
    if not found.requests:
        raise ExpungeError(f"the protocol {protocol.name} has no prompts: the file that it reads them from is empty")
    check(found, base)
    return found


def check(plan: Plan, base: Model) -> None:
    """Tries every judge and metric on a blank picture, so that what cannot work is told before any picture is made.

    Raises ExpungeError for one that cannot be had or has no such key, two of one name, and too few pictures.
    """
    blank = base.blank()
    verdicts = {name: found.look(blank)[0] for name, found in plan.judges.items()}
    for cell in plan.cells:
        cell.check(verdicts[cell.judge])
    for variant in plan.variants:
        if variant.filter:
            variant.filter.check(blank)
    names, named = set(), plan.named_by(BASE)
    for number in plan.metrics:
        number.try_on(blank)
        n = sum(on(number, named, r) for r in plan.requests)
        if 0 < n < number.least:
            raise ExpungeError(f"{number.called} needs {number.least} pictures that are {number.on!r}, not {n}")
        if (number.called, number.on) in names:
            raise ExpungeError(f"two metrics are called {number.called!r} on {number.on!r}; give one of them a name")
        names.add((number.called, number.on))


def on(asked: Metric, named: Collection[str], request: Request) -> bool:
    """Whether the metric looks at the request's picture, of a row that takes away what has these names."""
    said = any(says(request.prompt, name) for name in named)
    return asked.on == "all" or said == (asked.on == "erased")
