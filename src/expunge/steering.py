"""Steering: guidances at work in one sampling run.

    e = e(x_t, 0) + s [e(x_t, p) + Σ δ − e(x_t, 0)] + Σ δ′

Classifier-free guidance (Ho & Salimans 2022) towards the prompt p; each rule adds its δ inside the bracket, where s
multiplies it, or its δ′ outside. A negative prompt takes the place of the 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from .errors import ExpungeError
from .model import Condition, Model, guide


@dataclass(frozen=True)
class Step:
    """Step i = 0, 1, … of a run: e(x_t, 0), e(x_t, p), and the predictions that the rule asked for, by number.

    Tensors have the shape of the latents, (n, c, h, w).
    """

    i: int
    empty: Tensor
    prompt: Tensor
    own: Mapping[int, Tensor]


class Rule(Protocol):
    """What a guidance is to a run: what it asks the network, and what it makes of the answers."""

    @property
    def scaled(self) -> bool:
        """Whether the guidance scale s multiplies δ."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """What the network is asked besides the prompt and the empty one."""

    @property
    def negative(self) -> str | None:
        """What takes the empty prompt's place, if anything does."""

    def needs(self, i: int) -> list[int]:
        """Which of `prompts` the rule can use at step i."""

    def change(self, step: Step, state: Any) -> tuple[Tensor | None, Any]:
        """δ at this step (None: nothing), and the state for the next; the state is None at first."""


@dataclass(frozen=True)
class Change:
    """Σ δ and Σ δ′ of a step; 0: nothing."""

    inside: float | Tensor = 0.0
    outside: float | Tensor = 0.0

    def guide(self, prompt: Tensor, empty: Tensor, s: float | Tensor) -> Tensor:
        """e; s is one number, or one for each row, (n, 1, 1, 1)."""
        return guide(prompt, empty, s, self.inside, self.outside)

    def on(self, prompt: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions of which plain guidance makes the same e, whatever its s."""
        return prompt + self.inside + self.outside, empty + self.outside


Asked = tuple[int, int]
"""A rule's number, and that of one of its prompts."""


@dataclass
class Run:
    """One run under rules: their encoded prompts, and their states."""

    rules: Sequence[Rule]
    encoded: Mapping[int, Condition]
    states: dict[int, Any] = field(default_factory=dict)

    def asks(self, i: int) -> list[Asked]:
        """Every prediction that some rule can use at step i."""
        return [(k, j) for k, rule in enumerate(self.rules) for j in rule.needs(i)]

    def condition(self, asked: Asked) -> Condition:
        """One row."""
        k, j = asked
        return self.encoded[k][[j]]

    def steer(self, i: int, empty: Tensor, prompt: Tensor, own: Mapping[Asked, Tensor]) -> Change:
        """What the rules make of the predictions of step i."""
        sums: dict[bool, float | Tensor] = {True: 0.0, False: 0.0}
        for k, rule in enumerate(self.rules):
            step = Step(i, empty, prompt, {j: e for (owner, j), e in own.items() if owner == k})
            delta, self.states[k] = rule.change(step, self.states.get(k))
            if delta is not None:
                sums[rule.scaled] = sums[rule.scaled] + delta
        return Change(inside=sums[True], outside=sums[False])


@dataclass(frozen=True)
class Steering:
    """Rules on a model, whose prompts are encoded once."""

    rules: Sequence[Rule]
    encoded: Mapping[int, Condition]
    empty: Condition

    @classmethod
    def of(cls, model: Model, rules: Sequence[Rule]) -> Steering:
        """Raises ExpungeError if two rules want the empty prompt's place."""
        negative = [rule.negative for rule in rules if rule.negative]
        if len(negative) > 1:
            raise ExpungeError("two guidances want the empty prompt's place; give one of them all the concepts")
        encoded = {k: model.encode(rule.prompts) for k, rule in enumerate(rules) if rule.prompts}
        return cls(rules, encoded, model.encode(negative) if negative else model.empty())

    def begin(self) -> Run:
        return Run(self.rules, self.encoded)
