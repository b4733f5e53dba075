"""Cell: one number of a protocol, the share of some pictures that a judge calls something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from .concept import says
from .generation import Request
from .judge import Verdict, check_key, holds
from .score import Score, rate


@dataclass(frozen=True)
class Cell:
    """The share of `requests` whose verdict by `judge` has `expected` at `head`, or a number above it.

    `words` are what the cell is about; it is `bad` if a high share is, whatever is erased.
    """

    subject: str
    metric: str
    requests: tuple[Request, ...]
    head: str
    expected: str | float
    words: tuple[str, ...]
    judge: str = "smallworld"
    bad: bool = False

    def mentions(self, concepts: Iterable[str]) -> bool:
        """Whether this cell is about one of the concepts."""
        return any(says(w, c) for c in concepts for w in self.words)

    def hit(self, verdict: Verdict) -> bool:
        return holds(verdict, self.head, self.expected)

    def check(self, verdict: Verdict) -> None:
        """Raises ExpungeError, with the nearest name, unless a verdict of its judge can be read so."""
        check_key(self.judge, verdict, self.head, self.expected)

    def score(self, hits: Sequence[bool], model: str, erased: Collection[str]) -> Score:
        """The share of hits; a low one is better where it is about what is erased."""
        better = not (self.bad or self.mentions(erased))
        return rate(
            sum(hits), len(hits), metric=self.metric, subject=self.subject, model=model, higher_is_better=better
        )

    def apart(self, erased: Collection[str]) -> Cell:
        """Without the pictures whose prompt says what is erased, unless the cell is about that, or about all."""
        if not self.words or self.mentions(erased):
            return self
        return self.only(lambda r: not any(says(r.prompt, e) for e in erased))

    def only(self, keep: Callable[[Request], bool]) -> Cell:
        return replace(self, requests=tuple(r for r in self.requests if keep(r)))
