"""Loop: pictures of the model as it learns, what they show, and what is done about it.

After every few dozen steps a look: pictures of fresh captions with the concept, and of others that say nothing of it.

- Captions that still bring the concept, and others that lost what they showed, are trained on from then on: the first
  on the very picture that the model drew, and more often than the rest, the others on the base's. Of many more captions
  those are held whose predictions have moved most, and each as often as its own have.
- While too much stays, or anything does and no more is lost than may be, the push η grows, but not where the concept
  goes by itself; while too much is lost, of all words or of one, the weight w of what must stay, and where that is not
  one word alone, steps become shorter. Words that were lost twice in three looks are looked at more often.
- If a look, and more pictures of the concept, find little of both, the model settles: steps become shorter and shorter,
  and w holds more. Then a larger look proves it, on fresh captions and seeds, and on as many again where that tells too
  little; where it finds a little too much, of a slightly stronger edit, too. If one is proven, the run is over; if none
  is, by little, most of the settling is done again.

If it never does, the best that was seen is the result, at the strength that is best of a few.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .score import rate

GROWTH = 1.5
"""By how much η and w grow at a time."""
LEAST_ETA, MOST_ETA, MOST_WEIGHT = 0.5, 8.0, 16.0
FALLS = 1 / 3
"""What is left of what was, where the concept goes by itself."""
PACE, LEAST_PACE = 0.6, 0.1
"""By how much steps become shorter at a time, and at most."""


FIRM, LEAST_CALM = 2.0, 0.05
"""How many times w holds what must stay while the model settles, and the pace at its end."""
BLIND = 0.25
"""Who sees less of the concept than this proves nothing."""
WORST, SEVERAL = 0.05, 3
"""A word suffers if it is lost at least so many times, and the lower bound of its share is above this."""
RECENT = 3
"""Looks that tell together which words are lost again and again."""
HITS, SUSPECT, MOST_SUSPECTS = 2, 0.15, 6
"""A word may bring a concept along if at least so many of its pictures, and more than this share of them, show it."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What pictures showed after so many steps: how many of them still the concept (by name, or unsaid), and how many
    words of the others' captions no longer, less those that it `gained`, if that was looked for; which captions; and
    what was done. `harmed` are words that were lost more often than gained."""

    step: int
    seconds: float
    proof: bool
    scale: float = 1.0
    named: tuple[int, int]
    unsaid: tuple[int, int] = (0, 0)
    lost: tuple[int, int]
    gained: int = 0
    leaks: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    harmed: Mapping[str, tuple[int, int]]
    eta: tuple[float, float] = (1.0, 1.0)
    weight: float = 1.0
    pace: float = 1.0
    done: str = ""

    @property
    def left(self) -> tuple[int, int]:
        """Pictures with the concept, of all that asked for it or brought it along."""
        return self.named[0] + self.unsaid[0], self.named[1] + self.unsaid[1]

    @property
    def gone(self) -> tuple[int, int]:
        """Words that were lost, less those that were gained, of all."""
        return max(0, self.lost[0] - self.gained), self.lost[1]

    @property
    def worst(self) -> list[tuple[str, int, int]]:
        """The three words that were lost most often, how many times, and of how many."""
        return [(word, *pair) for word, pair in [*self.harmed.items()][:3]]

    def row(self) -> dict[str, Any]:
        """As JSON has it, with shares and their intervals."""
        return {**asdict(self), "left": interval(*self.left), "gone": interval(*self.gone)}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Look:
        """Undoes `row`."""
        pairs = {k: tuple(row[k]) for k in ("named", "unsaid", "lost", "leaks", "losses", "eta")}
        harmed = {word: (n[0], n[1]) for word, n in row["harmed"].items()}
        rest = {k: row[k] for k in ("step", "seconds", "proof", "scale", "gained", "weight", "pace", "done")}
        return cls(**{**rest, **pairs, "harmed": harmed})


def interval(hits: int, n: int) -> tuple[float, float, float]:
    """A share and its 95% interval (Wilson 1927)."""
    found = rate(hits, max(n, 1), metric="", subject="", model="", higher_is_better=False)
    return found.value, found.low, found.high


def fewest(aim: float) -> int:
    """Pictures, none with the concept, of which the upper bound is no more than this."""
    z2 = 1.96**2
    n = math.ceil(z2 * (1 - aim) / aim)
    return next(k for k in range(n, 2 * n + 9) if interval(0, k)[2] <= aim)


def share(pair: tuple[int, int]) -> float:
    return pair[0] / max(1, pair[1])


def suffering(look: Look) -> dict[str, float]:
    """Words that are lost too often by themselves, and by how much more than may be chance."""
    lows = {word: interval(*pair)[1] for word, pair in look.harmed.items() if pair[0] >= SEVERAL}
    return {word: low - WORST for word, low in lows.items() if low > WORST}


def excess(look: Look, erased: float, damage: float) -> float:
    """By how much a look misses its aims: 0 for none."""
    worst = max(suffering(look).values(), default=0.0)
    return max(0.0, share(look.left) - erased) + max(0.0, share(look.gone) - damage) + worst


def harmless(look: Look, damage: float) -> bool:
    """Whether no more is lost than may be, of all words together and of each."""
    return share(look.gone) <= damage and not suffering(look)


def bound(left: tuple[int, int], sure: float) -> float:
    """The upper bound of what is left, where `sure` is the share of it that is seen; 1 if that is little."""
    return min(1.0, interval(*left)[2] / sure) if sure >= BLIND else 1.0


def near(left: tuple[int, int], more: int, erased: float, sure: float) -> bool:
    """Whether so many more pictures, none with the concept, would prove what these do not."""
    return bound(left, sure) > erased >= bound((left[0], left[1] + more), sure)


def proven(look: Look, erased: float, damage: float, sure: float = 1.0) -> bool:
    """Whether the upper bound of what is left is below its aim, and no more is lost than may be."""
    return bound(look.left, sure) <= erased and harmless(look, damage)


def promising(look: Look, erased: float, damage: float) -> bool:
    """Whether more pictures are worth it: what is left may be little enough, and what was lost, too."""
    return scarce(look, erased) and not harmful(look, damage)


def scarce(look: Look, erased: float) -> bool:
    """Whether what is left may be little enough."""
    return not clearly(look.left, erased)


def ready(look: Look, erased: float, damage: float) -> bool:
    """Whether it is time to settle."""
    return share(look.left) <= erased and not harmful(look, damage)


def clearly(pair: tuple[int, int], aim: float) -> bool:
    """Whether a share is above its aim, and not by chance."""
    return interval(*pair)[1] > aim


def harmful(look: Look, damage: float) -> bool:
    """Whether clearly more is lost than may be, of all words together or of one."""
    return clearly(look.gone, damage) or bool(suffering(look))


def unclear(look: Look, damage: float) -> bool:
    """Whether more is lost than may be, but that may be chance."""
    return not harmless(look, damage) and not harmful(look, damage)


def together(look: Look, named: tuple[int, int], unsaid: tuple[int, int], leaks: Sequence[str]) -> Look:
    """A look with more pictures of the concept."""
    sums = [(a[0] + b[0], a[1] + b[1]) for a, b in ((look.named, named), (look.unsaid, unsaid))]
    return replace(look, named=sums[0], unsaid=sums[1], leaks=(*look.leaks, *leaks))


def stronger(eta: float, left: tuple[int, int], before: float, look: Look, erased: float, damage: float) -> float:
    """η after a look: it grows while too much is left, or anything is and no more is lost than may be; but not where
    it fell to a third of the share `before`, and is on its way."""
    slack = left[0] > 0 and harmless(look, damage)
    falls = share(left) <= FALLS * before
    return eta if falls or not (slack or clearly(left, erased)) else min(MOST_ETA, max(LEAST_ETA, eta * GROWTH))


def heavier(weight: float, start: float, look: Look, damage: float) -> float:
    """w after a look: it grows while too much is lost, and falls back to its start."""
    if harmful(look, damage) or (look.proof and not harmless(look, damage)):
        return min(MOST_WEIGHT, weight * GROWTH)
    return max(start, weight / GROWTH)


def slower(pace: float, look: Look, erased: float, damage: float) -> float:
    """The pace after a look: shorter steps where all that is wrong is how much was lost, longer ones while the concept
    is there. One word that suffers needs to be learned again instead."""
    if clearly(look.left, erased):
        return min(1.0, pace / PACE)
    return max(LEAST_PACE, pace * PACE) if clearly(look.gone, damage) else pace


def calming(steps: int, of: int) -> float:
    """The pace after so many steps of settling: it falls to almost nothing."""
    return max(LEAST_CALM, 1 - steps / of)


def harmed(
    words: Sequence[Sequence[str]], lost: Sequence[Collection[str]], gained: Sequence[Collection[str]] = ()
) -> dict[str, tuple[int, int]]:
    """How much more often each word was lost than gained, of how many pictures that were asked for it; the worst first,
    of those with any."""
    asked, gone, back = (Counter(word for own in rows for word in own) for rows in (words, lost, gained))
    return {w: (n, asked[w]) for w, n in sorted((gone - back).items(), key=lambda kv: (-kv[1] / asked[kv[0]], kv[0]))}


def again(looks: Sequence[Look]) -> list[str]:
    """Words that were lost now, and twice in the last looks together: of a rare word one look shows too few."""
    hits = Counter[str]()
    for look in looks[-RECENT:]:
        hits.update({word: n for word, (n, _) in look.harmed.items()})
    return [word for word in (looks[-1].harmed if looks else ()) if hits[word] > 1]


def suspects(rows: Sequence[Mapping[str, str]], shown: Sequence[bool]) -> list[tuple[str, str]]:
    """Words, each after its slot, that may bring a concept along, the likeliest first.

    `rows` are the words, by slot, of captions that do not say it; those with some of whose pictures it is `shown`.
    """
    said = [[*words.values()] for words in rows]
    counts = harmed(said, [own if there else [] for own, there in zip(said, shown, strict=True)])
    found = [(hits, word) for word, (hits, n) in counts.items() if hits >= HITS and hits / n > SUSPECT]
    slots = {word: slot for words in rows for slot, word in words.items()}
    return [(slots[word], word) for _, word in sorted(found, key=lambda pair: -pair[0])][:MOST_SUSPECTS]


def strength(look: Look) -> str:
    """Of the edit, in words, where it was looked at with another than its own."""
    return "" if look.scale == 1 else f", at {look.scale:g} times its strength"


def change(before: Sequence[float], after: Sequence[float]) -> str:
    """What was done to η, where the concept is said and unsaid, to w, and to the pace, in words."""
    names = ("η", "η unsaid", "w", "pace")
    told = [f"{n} {a:.3g} → {b:.3g}" for n, a, b in zip(names, before, after, strict=True) if a != b]
    return ", ".join(told) or "goes on"
