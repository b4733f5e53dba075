"""Witness: says of pictures whether a concept is there, and whether they still show what they were asked for.

    smallworld                       the small world's exact judge
    clip[,model=…]                   CLIP, zero-shot: the concept's name against the names most like it
    JUDGE,key=…,above=…|equals=…     any judge, as --filter takes it

One that is not exact is tried first on the base model's own pictures, with the concept and without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .errors import ExpungeError
from .filter import Filter
from .judge import Reader
from .judges import eye, filtering
from .judges.clip import Clip
from .judges.world import World
from .loop import interval
from .picture import correlation
from .recipe import called
from .smallworld.draw import SIZE
from .smallworld.reading import expected, named
from .smallworld.scene import MEMORIES

Missed = list[set[str]]
"""Of each picture, the words that it does not show."""
Base = Callable[[Sequence[int]], Tensor]
"""Draws the base's pictures of these rows."""


class Witness(ABC):
    """Images are (n, 3, H, W) in [-1, 1]; `which` is the number of a concept. An `exact` one misses nothing."""

    exact: ClassVar[bool] = False

    @abstractmethod
    def evidence(self, images: Tensor, which: int) -> Tensor:
        """(n,): above 0 where the concept is there, as far as it can tell before it was tried."""

    def check(self, blank: Tensor) -> None:
        """Opens its weights, and looks at a blank picture. Raises ExpungeError if it cannot tell what it is asked."""
        self.evidence(blank, 0)

    @abstractmethod
    def words(self, caption: str) -> list[str]:
        """What of a caption it looks for."""

    @abstractmethod
    def changed(self, images: Tensor, captions: Sequence[str], base: Base, *, whole: bool) -> tuple[Missed, Missed]:
        """What of captions is not shown, and is by the base's pictures of the same rows; and what is the other way
        round, if the `whole` of it is asked for, which takes the base's pictures of all rows."""

    @abstractmethod
    def shown(self, images: Tensor, asked: Sequence[tuple[int, str]], among: Sequence[str]) -> list[bool]:
        """Whether the picture of each row shows all that the name beside it says, `among` other texts; not where nobody
        can read it."""

    def telling(self, name: str) -> list[str]:
        """What it looks for where something of this name was."""
        return [name]

    @abstractmethod
    def about(self) -> str:
        """Who looks, in words."""


@dataclass
class Exact(Witness):
    """The small world's judge."""

    names: Sequence[str]
    judge: World = field(default_factory=World)
    exact = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if not named(name)]
        if unknown:
            raise ExpungeError(f"the small world's judge does not know {unknown[0]!r}; use --judge clip")

    def evidence(self, images: Tensor, which: int) -> Tensor:
        if images.shape[-1] != SIZE:
            told = f"looks at {SIZE} × {SIZE} pixels, and this model draws {images.shape[-1]}; use --judge clip"
            raise ExpungeError(f"the small world's judge {told}")
        there = self.shown(images, [(k, self.names[which]) for k in range(len(images))])
        return torch.tensor([1.0 if seen else -1.0 for seen in there])

    def words(self, caption: str) -> list[str]:
        return [told(*pair) for pair in expected(caption).items()]

    def missed(self, images: Tensor, captions: Sequence[str], among: Sequence[str] = ()) -> Missed:  # noqa: ARG002
        pairs = zip(self.judge.look(images), map(expected, captions), strict=True)
        return [{told(h, value) for h, value in wanted.items() if verdict[h] != value} for verdict, wanted in pairs]

    def changed(self, images: Tensor, captions: Sequence[str], base: Base, *, whole: bool) -> tuple[Missed, Missed]:
        return since(self.missed, images, captions, base, whole=whole)

    def shown(
        self,
        images: Tensor,
        asked: Sequence[tuple[int, str]],
        among: Sequence[str] = (),  # noqa: ARG002
    ) -> list[bool]:
        seen, wanted = self.judge.look(images) if asked else [], {name: named(name) for _, name in asked}
        pairs = ((seen[k], wanted[name]) for k, name in asked)
        return [bool(own) and all(verdict[head] == value for head, value in own.items()) for verdict, own in pairs]

    def telling(self, name: str) -> list[str]:
        return [told(*pair) for pair in named(name).items()]

    def about(self) -> str:
        return "the small world's exact judge"


def told(head: str, value: str) -> str:
    """A class in words: a memorised picture by its caption."""
    return MEMORIES[int(value)].caption if head == "memory" else value


def since(
    missed: Callable[[Tensor, Sequence[str], Sequence[str]], Missed],
    images: Tensor,
    captions: Sequence[str],
    base: Base,
    *,
    whole: bool,
) -> tuple[Missed, Missed]:
    """What is missed and was not by the base, and the other way round; but for the `whole` of it, the base draws only
    those of which anything is missed, and nothing is known of the others."""
    found = missed(images, captions, captions)
    rows = [i for i, words in enumerate(found) if words or whole]
    before = missed(base(rows), [captions[i] for i in rows], captions) if rows else []
    known = dict(zip(rows, before, strict=True))
    lost = [words - known.get(i, set()) for i, words in enumerate(found)]
    return lost, [known[i] - words if whole else set() for i, words in enumerate(found)]


@dataclass
class ZeroShot(Witness):
    """CLIP (Radford et al. 2021): cos(picture, the concept's name) − max cos(picture, another's), of the likest names.

    A picture shows its caption, as a whole, if that is in the nearest tenth of all captions looked at.
    """

    names: Sequence[str]
    rivals: Sequence[Sequence[str]]
    reader: Reader

    def evidence(self, images: Tensor, which: int) -> Tensor:
        texts = self.reader.texts([self.names[which], *self.rivals[which]])
        near = self.reader.features(images) @ texts.to(images.device).T
        return (near[:, 0] - near[:, 1:].amax(1)).cpu()

    def words(self, caption: str) -> list[str]:
        return [caption]

    def missed(self, images: Tensor, captions: Sequence[str], among: Sequence[str]) -> Missed:
        there = self.shown(images, [*enumerate(captions)], among)
        return [set() if near else {text} for text, near in zip(captions, there, strict=True)]

    def changed(self, images: Tensor, captions: Sequence[str], base: Base, *, whole: bool) -> tuple[Missed, Missed]:
        return since(self.missed, images, captions, base, whole=whole)

    def shown(self, images: Tensor, asked: Sequence[tuple[int, str]], among: Sequence[str]) -> list[bool]:
        known = [*dict.fromkeys([*among, *(text for _, text in asked)])]
        if not asked:
            return []
        near = (self.reader.features(images) @ self.reader.texts(known).to(images.device).T)[[k for k, _ in asked]]
        own = near[torch.arange(len(asked)), torch.tensor([known.index(text) for _, text in asked])]
        found: list[bool] = ((near > own[:, None]).sum(1) < max(1, len(known) // 10)).tolist()
        return found

    def about(self) -> str:
        return f"{self.reader.kind}, zero-shot"


ALIKE = 0.5
"""Least correlation of a picture's pixels with the base's, where nobody can read."""


@dataclass
class ByJudge(Witness):
    """A judge for the concept; whether others stay says a `reader`, or, without one, how alike the pictures are."""

    judge: Filter
    reader: ZeroShot | None = None

    def check(self, blank: Tensor) -> None:
        self.judge.check(blank)
        if self.reader:
            self.reader.check(blank)

    def evidence(self, images: Tensor, which: int) -> Tensor:  # noqa: ARG002, it stands for all of them
        return torch.tensor([1.0 if found else -1.0 for found in self.judge(images)])

    def words(self, caption: str) -> list[str]:
        return [caption]

    def changed(self, images: Tensor, captions: Sequence[str], base: Base, *, whole: bool) -> tuple[Missed, Missed]:
        if self.reader:
            return self.reader.changed(images, captions, base, whole=whole)
        before = base(range(len(captions)))
        alike = correlation(images.flatten(1).float(), before.flatten(1).float()).tolist()
        lost = [{text} if near < ALIKE else set[str]() for text, near in zip(captions, alike, strict=True)]
        return lost, [set() for _ in captions]

    def shown(self, images: Tensor, asked: Sequence[tuple[int, str]], among: Sequence[str]) -> list[bool]:
        return self.reader.shown(images, asked, among) if self.reader else [False] * len(asked)

    def about(self) -> str:
        others = self.reader.about() if self.reader else "likeness to the base's pictures"
        return f"{self.judge.judge.kind}, {self.judge.key}; others by {others}"


def witness(
    judge: str, reader: str | None, names: Sequence[str], rivals: Sequence[Sequence[str]], model: str = "smallworld"
) -> Witness:
    """Who looks; the safety checker is that of `model` unless it names another. Raises ExpungeError if there is no such
    judge, or it cannot tell."""
    reads = judge == World.kind or (judge.split(",")[0] == Clip.kind and "key=" not in judge)
    if reader and reads:
        raise ExpungeError(f"--judge {judge} reads captions itself; leave the reader out")
    if judge == World.kind:
        return Exact(names)
    if reads:
        return ZeroShot(names, rivals, reading(judge))
    return ByJudge(filtering(judge, model), ZeroShot(names, rivals, reading(reader)) if reader else None)


def reading(spec: str) -> Reader:
    """An eye that reads, "clip,model=…"."""
    name, options = called(spec, f"the judge {spec}:")
    found = eye({"kind": name, **options})
    if not isinstance(found, Reader):
        raise ExpungeError(f"{found.kind} reads no captions; choose clip")
    return found


@dataclass(frozen=True)
class Tried:
    """What a witness is worth: the threshold, and of the base's own pictures the shares it calls right."""

    threshold: float
    sensitivity: float
    specificity: float
    n: int

    @property
    def sure(self) -> float:
        """The lower bound (95%, Wilson) of the sensitivity."""
        return interval(round(self.sensitivity * self.n), self.n)[1]

    @classmethod
    def of(cls, there: Tensor, gone: Tensor) -> Tried:
        """The threshold that tells both apart best (Youden's J), of those between two values; 0 if none is better."""
        values = torch.tensor(sorted({*there.tolist(), *gone.tolist()}))
        cuts = [0.0, *((values[1:] + values[:-1]) / 2).tolist()]
        best = max(cuts, key=lambda c: float((there > c).float().mean() + (gone <= c).float().mean()))
        return cls(best, float((there > best).float().mean()), float((gone <= best).float().mean()), len(there))
