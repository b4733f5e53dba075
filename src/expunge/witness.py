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

import torch
from torch import Tensor

from .errors import ExpungeError
from .filter import Filter
from .judge import Reader, Verdict
from .judges import eye, filtering
from .judges.clip import Clip
from .judges.world import World
from .picture import correlation
from .recipe import called
from .smallworld.reading import expected

Base = Callable[[Sequence[int]], Tensor]
"""The base model's pictures of the same rows."""


class Witness(ABC):
    """Images are (n, 3, H, W) in [-1, 1]; `which` is the number of a concept."""

    exact = False

    @abstractmethod
    def evidence(self, images: Tensor, which: int) -> Tensor:
        """(n,): above 0 where the concept is there, as far as it can tell before it was tried."""

    @abstractmethod
    def lost(self, images: Tensor, captions: Sequence[str], base: Base) -> list[bool]:
        """Which do not show what they should, and the base's do."""

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
        unknown = [name for name in self.names if not expected(name)]
        if unknown:
            raise ExpungeError(f"the small world's judge does not know {unknown[0]!r}; use --judge clip")

    def evidence(self, images: Tensor, which: int) -> Tensor:
        wanted = expected(self.names[which])
        return torch.tensor([1.0 if shows(verdict, wanted) else -1.0 for verdict in self.judge.look(images)])

    def fits(self, images: Tensor, captions: Sequence[str], among: Sequence[str] = ()) -> list[bool]:  # noqa: ARG002
        return [shows(v, expected(text)) for v, text in zip(self.judge.look(images), captions, strict=True)]

    def lost(self, images: Tensor, captions: Sequence[str], base: Base) -> list[bool]:
        return missing(self.fits, images, captions, base)

    def about(self) -> str:
        return "the small world's exact judge"


def shows(verdict: Verdict, wanted: dict[str, str]) -> bool:
    return all(verdict[head] == value for head, value in wanted.items())


Fits = Callable[[Tensor, Sequence[str], Sequence[str]], list[bool]]
"""Which images show their captions, among others."""


def missing(fits: Fits, images: Tensor, captions: Sequence[str], base: Base) -> list[bool]:
    """Which do not fit their captions, though the base's do; the base draws only what did not fit."""
    bad = [i for i, fine in enumerate(fits(images, captions, captions)) if not fine]
    before = fits(base(bad), [captions[i] for i in bad], captions) if bad else []
    gone = {i for i, fine in zip(bad, before, strict=True) if fine}
    return [i in gone for i in range(len(captions))]


@dataclass
class ZeroShot(Witness):
    """CLIP (Radford et al. 2021): cos(picture, the concept's name) − max cos(picture, another's), of the likest names.

    A picture fits its caption if that is in the nearest tenth of all captions looked at.
    """

    names: Sequence[str]
    rivals: Sequence[Sequence[str]]
    reader: Reader

    def evidence(self, images: Tensor, which: int) -> Tensor:
        texts = self.reader.texts([self.names[which], *self.rivals[which]])
        near = self.reader.features(images) @ texts.to(images.device).T
        return (near[:, 0] - near[:, 1:].amax(1)).cpu()

    def fits(self, images: Tensor, captions: Sequence[str], among: Sequence[str]) -> list[bool]:
        known = [*dict.fromkeys([*among, *captions])]
        near = self.reader.features(images) @ self.reader.texts(known).to(images.device).T
        own = near[torch.arange(len(captions)), torch.tensor([known.index(text) for text in captions])]
        return ((near > own[:, None]).sum(1) < max(1, len(known) // 10)).tolist()

    def lost(self, images: Tensor, captions: Sequence[str], base: Base) -> list[bool]:
        return missing(self.fits, images, captions, base)

    def about(self) -> str:
        return f"{self.reader.kind}, zero-shot"


ALIKE = 0.5
"""Least correlation of a picture's pixels with the base's, where nobody can read."""


@dataclass
class ByJudge(Witness):
    """A judge for the concept; whether others stay says a `reader`, or, without one, how alike the pictures are."""

    judge: Filter
    reader: ZeroShot | None = None

    def evidence(self, images: Tensor, which: int) -> Tensor:  # noqa: ARG002, it stands for all of them
        return torch.tensor([1.0 if found else -1.0 for found in self.judge(images)])

    def lost(self, images: Tensor, captions: Sequence[str], base: Base) -> list[bool]:
        if self.reader:
            return self.reader.lost(images, captions, base)
        before = base(range(len(captions)))
        return (correlation(images.flatten(1).float(), before.flatten(1).float()) < ALIKE).tolist()

    def about(self) -> str:
        others = self.reader.about() if self.reader else "likeness to the base's pictures"
        return f"{self.judge.judge.kind}, {self.judge.key}; others by {others}"


def witness(judge: str, reader: str | None, names: Sequence[str], rivals: Sequence[Sequence[str]]) -> Witness:
    """Who looks. Raises ExpungeError if there is no such judge, or it cannot tell."""
    if judge == World.kind:
        return Exact(names)
    if judge.split(",")[0] == Clip.kind and "key=" not in judge:
        return ZeroShot(names, rivals, reading(judge))
    return ByJudge(filtering(judge), ZeroShot(names, rivals, reading(reader)) if reader else None)


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

    @classmethod
    def of(cls, there: Tensor, gone: Tensor) -> Tried:
        """The threshold that tells both apart best (Youden's J), of those between two values; 0 if none is better."""
        values = torch.tensor(sorted({*there.tolist(), *gone.tolist()}))
        cuts = [0.0, *((values[1:] + values[:-1]) / 2).tolist()]
        best = max(cuts, key=lambda c: float((there > c).float().mean() + (gone <= c).float().mean()))
        return cls(best, float((there > best).float().mean()), float((gone <= best).float().mean()), len(there))
