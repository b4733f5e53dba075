"""The loop around an objective: it looks at pictures between steps, and acts on what it sees (see `loop`)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from . import loop
from .composed import Composed
from .concept import Concept
from .edit import Edit
from .looking import Left, Looker, Rest
from .loop import Look, strength
from .model import Model
from .objective import Learner, Objective, Regression
from .pushing import First, Holding, Push, Pushing
from .training import Terms
from .witness import Tried

if TYPE_CHECKING:
    from .methods.closed_loop import ClosedLoop

SCALES = (1.0, 0.8, 1.25)
"""Strengths that are tried at the end, where the aims were not met."""
FIRMER = 1.1
"""The strength at which a proof that finds a little too much looks again, at the same captions and seeds."""
LOOSE = 256
"""Captions of any words whose predictions are held."""
FRESH, MORE = 192, 16
"""Captions whose predictions are compared at a look, and those of them that are held from then on."""
PROVEN, OVER, TRIED = "proven", "out of steps or time", "tried"


class Loop(Objective):
    """The objective of the closed loop."""

    regression: Regression
    pushing: Pushing
    holding: Holding

    def __init__(
        self, options: ClosedLoop, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int
    ) -> None:
        self.options, self.model, self.student, self.seed = options, model, learner.student, seed
        self.looker = Looker(options, model, concepts, seed, stacked=learner.others)
        self.looks: list[Look] = []
        self.best: tuple[int, Mapping[str, Tensor]] | None = None
        self.ended = ""
        self.settling: int | None = None

    def __call__(self, step: int) -> Iterator[Terms]:
        if not self.looker.tried:
            self._begin()
        return self.regression(step)

    def over(self, step: int, now: Callable[[str], Edit], seconds: float) -> bool:
        if not self.looker.tried:
            self._begin()
        if self.options.seconds is not None:
            seconds = self.model.team.same(lambda: seconds)  # processes differ by a moment
        last = step == self.options.steps or (self.options.seconds is not None and seconds >= self.options.seconds)
        due = step > (self.looks[-1].step if self.looks else 0) and (last or step % self.options.every == 0)
        if due and not self.ended:
            self._turn(step, now("loop"), seconds, last=last)
        if self.settling is not None:
            self.pace = loop.calming(step - self.settling, self.options.settle)
        return bool(self.ended)

    def _begin(self) -> None:
        """What to train on at first."""
        first, held = self.looker.search()
        self._build(first, *held)

    def _build(self, first: First, held: Sequence[str], clean: Tensor) -> None:
        o = self.options
        rows = o.rows(self.looker.concepts)
        eta = o.eta if any(place.there for place in self.looker.places) else 0.0  # a caption by itself has an anchor
        self.pushing = Pushing.of(self.model, first, self.seed, (eta, o.eta_unsaid), rows)
        loose = self.looker.loose(self.looker.rng("loose"), LOOSE)
        self.holding = Holding(self.model, held, clean, self.seed, o.keep_batch, loose)
        parts = {"erase": (1.0, self.pushing), "keep": (o.keep_weight, self.holding)}
        self.regression = Regression(self.model, self.student, o.distance, parts)

    # ------------------------------------------------------------------------------------------------ looking

    def _turn(self, step: int, edit: Edit, seconds: float, *, last: bool) -> None:
        """Looks, learns what is wrong, and decides."""
        erased, damage = self.options.erased, self.options.damage
        look = self._look(step, edit, seconds)
        settled = self.settling is not None and step >= self.settling + self.options.settle
        if (settled and loop.scarce(look, erased)) or loop.promising(look, erased, damage):
            ends = last or settled or not self.options.settle
            look = self._proof(look, edit) if ends else look if self.settling else self._more(look, edit)
        if self.best is None or self._excess(look) <= self._excess(self.looks[self.best[0]]):
            self.best = len(self.looks), {name: x.clone() for name, x in stored(edit).items()}
        done = self._decided(look, settled=settled, last=last)
        if not self.ended:
            self.looker.watch(loop.again([*self._before(look), look]))
            self._stray(step)
        self.looks.append(replace(look, done=done, eta=self.pushing.eta, weight=self.weight, pace=self.pace))
        if self.model.team.main:
            tqdm.write(told(self.looks[-1]), file=sys.stderr)

    def _decided(self, look: Look, *, settled: bool, last: bool) -> str:
        """Whether it is over, and else what is done."""
        o, proven = self.options, self._proven(look)
        if proven or last:
            self.ended = PROVEN if proven else OVER
            return self.ended
        if self.settling is None and o.settle and loop.ready(look, o.erased, o.damage):
            self.settling, self.weight = look.step, max(self.weight, loop.FIRM * o.keep_weight)
        elif self.settling is None or settled:
            return self._adapt(look)
        return "settles"

    def _proven(self, look: Look) -> bool:
        return look.proof and loop.proven(look, self.options.erased, self.options.damage, self.looker.sure)

    def _look(self, step: int, edit: Edit, seconds: float) -> Look:
        """Pictures of fresh captions; what is wrong with them is trained on from now on."""
        left = self.looker.left(edit, f"look/{step}", self.options.look)
        rest = self.looker.rest(edit, f"look/{step}", 2 * self.options.look)
        self._push(left)
        self._hold(rest.losses())
        return summed(left, rest, step=step, seconds=round(seconds, 1), proof=False)

    def _more(self, look: Look, edit: Edit, what: str = "proof") -> Look:
        """The look with more pictures of the concept, of other captions."""
        left = self.looker.left(edit, f"{what}/{look.step}", self.enough, look.scale)
        if look.scale == 1:
            self._push(left)
        return loop.together(look, **about(left))

    def _proof(self, look: Look, edit: Edit) -> Look:
        """The look with a proof's pictures, of others, too, where they show little enough of the concept; where they
        show a little too much, and a slightly stronger edit is proven, the look at that."""
        seen, sees = self._enough(look, edit), self.looker.sure >= loop.BLIND
        if not self._leaks(seen):
            return self._others(seen, edit)
        if sees and loop.scarce(seen, self.options.erased):
            firmer = self._firmer(look, edit)
            seen, other = (firmer, seen) if self._proven(firmer) else (seen, firmer)
            self.looks.append(replace(other, done=TRIED))
        return seen

    def _firmer(self, look: Look, edit: Edit) -> Look:
        """The look and its proof at a slightly greater strength."""
        left = self.looker.left(edit, f"look/{look.step}", self.options.look, FIRMER)
        seen = self._enough(replace(look, **about(left), scale=FIRMER, lost=(0, 0), losses=(), harmed={}), edit)
        return seen if self._leaks(seen) else self._others(seen, edit)

    def _enough(self, look: Look, edit: Edit) -> Look:
        """The look with a proof's pictures of the concept, and as many again where they would prove it."""
        seen = self._more(look, edit)
        near = loop.near(seen.left, self.enough, self.options.erased, self.looker.sure)
        return self._more(seen, edit, "again") if near else seen

    def _leaks(self, look: Look) -> bool:
        """Whether pictures show too much of the concept for a proof."""
        return bool(look.left[0]) and loop.bound(look.left, self.looker.sure) > self.options.erased

    def _others(self, look: Look, edit: Edit) -> Look:
        """The proof of other captions in place of the look's, by as many again where what was lost may be chance."""
        rest = self.looker.rest(edit, f"proof/{look.step}", self.options.proof, look.scale, whole=True)
        if loop.unclear(with_rest(look, rest), self.options.damage):
            rest += self.looker.rest(edit, f"again/{look.step}", self.options.proof, look.scale, whole=True)
        self._hold(rest.losses())
        return replace(with_rest(look, rest), proof=True)

    @property
    def enough(self) -> int:
        """Pictures of a proof: the more, the less of the concept is seen."""
        return math.ceil(self.options.proof / max(loop.BLIND, self.looker.sure))

    def _push(self, left: Left) -> None:
        pushes, latents = left.leaks()
        if pushes:
            self.pushing.add(self.model, pushes, latents)

    def _hold(self, latents: Mapping[str, Tensor]) -> None:
        if latents:
            self.holding.add(self.model, [*latents], torch.stack([*latents.values()]))

    def _stray(self, step: int) -> None:
        """Of many other captions, those whose predictions have moved most, by the weights that learn, are held from now
        on."""
        what = f"stray/{step}"
        fresh = self.looker.harmless(self.looker.rng(what), FRESH)
        self._hold(self.looker.pictured(self.holding.strayed(self.student, fresh, MORE, self.looker.rng(what)), what))
        self.holding.weigh(self.student)

    def _shares(self, look: Look) -> tuple[float, float]:
        """Of the concept by name, and unsaid, at the look before; at first, of the base's pictures."""
        if last := self._before(look)[-1:]:
            return loop.share(last[0].named), loop.share(last[0].unsaid)
        priors = [prior for own in self.looker.hiding for _, _, prior in own]
        return 1.0, sum(priors) / max(1, len(priors))

    def _before(self, look: Look) -> list[Look]:
        """The looks at earlier steps, each at its best strength."""
        return [one for one in self.looks if one.step < look.step and one.done != TRIED]

    def _excess(self, look: Look) -> float:
        return loop.excess(look, self.options.erased, self.options.damage)

    def _adapt(self, look: Look) -> str:
        """η, w and the pace of the next steps, and what was done in words."""
        before, aims = (*self.pushing.eta, self.weight, self.pace), (self.options.erased, self.options.damage)
        shares = zip(self.pushing.eta, (look.named, look.unsaid), self._shares(look), strict=True)
        said, unsaid = (loop.stronger(eta, left, before, look, *aims) for eta, left, before in shares)
        self.pushing.eta = said, unsaid
        self.weight = loop.heavier(self.weight, self.options.keep_weight, look, self.options.damage)
        self.pace = loop.slower(self.pace, look, *aims) if self.settling is None else self._again(look)
        return loop.change(before, (*self.pushing.eta, self.weight, self.pace))

    def _again(self, look: Look) -> float:
        """The pace after settling in vain: most of it once more, unless much of the concept is there."""
        settle = self.options.settle
        self.settling = None if loop.clearly(look.left, self.options.erased) else look.step - settle // 3
        return 1.0 if self.settling is None else loop.calming(settle // 3, settle)

    @property
    def weight(self) -> float:
        """w."""
        return self.regression.parts["keep"][0]

    @weight.setter
    def weight(self, w: float) -> None:
        self.regression.parts = {**self.regression.parts, "keep": (w, self.holding)}

    # ------------------------------------------------------------------------------------------------ the end

    def chosen(self, edit: Edit) -> Edit:
        """The edit as it was best, at its best strength, with what was seen in its provenance."""
        if self.best is None:
            return edit
        k, delta = self.best
        look = self.looks[k]
        scale = look.scale if self.ended == PROVEN else self._scale(look, replace(edit, delta=Composed(delta)))
        return replace(
            edit, delta=Composed(delta).scaled(scale), provenance={**edit.provenance, "loop": self.history()}
        )

    def _scale(self, look: Look, edit: Edit) -> float:
        """The strength of an edit that misses least; each is looked at on the same captions and seeds."""
        last, tries = self.looks[-1].seconds, list[Look]()
        for scale in SCALES:
            left = self.looker.left(edit, f"proof/{look.step}", self.enough, scale)
            rest = self.looker.rest(edit, f"proof/{look.step}", self.options.proof, scale, whole=True)
            when = {"step": look.step, "seconds": last, "proof": True, "scale": scale, "done": TRIED}
            tries.append(summed(left, rest, **when))
        best = min(tries, key=self._excess)
        self.looks += [replace(one, done="the result") if one is best else one for one in tries]
        return best.scale

    def history(self) -> dict[str, Any]:
        """What was seen and done, and the captions that were held and pushed."""
        tried = [asdict(t) for t in self.looker.tried]
        return {
            "ended": self.ended, "sure": self.looker.sure,
            "judge": self.looker.witness.about(), "tried": tried,
            "hiding": self.looker.hiding, "also": self.looker.also,
            "held": self.holding.captions, "pushed": [*dict.fromkeys(push.p for push in self.pushing.pushes)],
            "looks": [look.row() for look in self.looks],
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------------ snapshots

    def state(self) -> dict[str, Tensor]:
        if not self.looker.tried:
            return {}
        words = {
            **self.history(), "eta": self.pushing.eta, "weight": self.weight, "pace": self.pace,
            "best": self.best and self.best[0], "settling": self.settling,
            "pushes": [asdict(push) for push in self.pushing.pushes], "shown": self.pushing.shown,
            "prefer": self.looker.prefer, "vocabulary": self.looker.vocabulary,
        }  # fmt: skip
        text = torch.frombuffer(bytearray(json.dumps(words).encode()), dtype=torch.uint8)
        best = {f"best.{name}": d for name, d in (self.best[1] if self.best else {}).items()}
        return {"words": text, **best, **{f"parts.{k}": v for k, v in self.regression.state().items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        words = json.loads(state["words"].cpu().numpy().tobytes())
        self.looker.tried = [Tried(**row) for row in words["tried"]]
        self.looker.hiding = [[(slot, word, prior) for slot, word, prior in own] for own in words["hiding"]]
        self.looker.also = words["also"]
        self.looks, self.ended = [Look.of(row) for row in words["looks"]], words["ended"]
        parts, pushes = _under("parts.", state), [Push(**row) for row in words["pushes"]]
        first, self.looker.vocabulary = First(pushes, parts["erase.clean"], words["shown"]), words["vocabulary"]
        self._build(first, words["held"], parts["keep.clean"])
        self.looker.prefer = words["prefer"]
        self.regression.restore(parts)
        self.pushing.eta, self.weight, self.pace = (words["eta"][0], words["eta"][1]), words["weight"], words["pace"]
        self.settling = words["settling"]
        self.best = None if words["best"] is None else (words["best"], _under("best.", state))


def stored(edit: Edit) -> Mapping[str, Tensor]:
    """What the edit's differences are made of."""
    assert isinstance(edit.delta, Composed), "as a trained method makes it"
    return edit.delta.stored


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def about(left: Left) -> dict[str, Any]:
    """What was seen of the concept, as a look has it."""
    leaks = tuple(push.p for push in left.leaks()[0])
    return {"named": left.counts(unsaid=False), "unsaid": left.counts(unsaid=True), "leaks": leaks}


def summed(left: Left, rest: Rest, **when: Any) -> Look:
    """What was seen, in numbers."""
    return with_rest(Look(**about(left), lost=(0, 0), harmed={}, **when), rest)


def with_rest(look: Look, rest: Rest) -> Look:
    """The look with these pictures of others in place of its own."""
    bad = [text for text, words in zip(rest.captions, rest.lost, strict=True) if words]
    return replace(
        look, lost=(sum(map(len, rest.lost)), sum(map(len, rest.words))), gained=sum(map(len, rest.gained)),
        losses=tuple(bad), harmed=loop.harmed(rest.words, rest.lost, rest.gained),
    )  # fmt: skip


def told(look: Look) -> str:
    """A line about a look."""
    (left, n), (lost, m) = look.left, look.gone
    leaks = f" (such as “{look.leaks[0]}”)" if look.leaks else ""
    worst = ", ".join(f"{word} {a} of {b}" for word, a, b in look.worst)
    return (
        f"step {look.step}{strength(look)}: the concept in {left} of {n} pictures{leaks},"
        f" {lost} of {m} other words lost{f' ({worst})' if worst else ''}: {look.done}"
    )
