"""Looking: what the model draws of captions, and what the witness says of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from . import loop
from .asking import ALIAS, Asking
from .beside import Beside, on
from .concept import says
from .edit import Edit
from .generation import Request, Settings, latents
from .pushing import First, Push
from .rng import derive
from .steering import Steering
from .training import fitted
from .witness import Base, Tried

HIDES, ASKED = 0.25, 16
"""A suspected word brings a concept along if more than so much of that many pictures show it."""


@dataclass(frozen=True)
class Left:
    """Pictures that a concept may be left in: their pushes, whether it is `there`, and their latents."""

    pushes: Sequence[Push]
    there: Sequence[bool]
    latents: Tensor

    def leaks(self) -> tuple[list[Push], Tensor]:
        """The pushes that still show a concept, and the latents of those pictures."""
        rows = [k for k, bad in enumerate(self.there) if bad]
        return [self.pushes[k] for k in rows], self.latents[rows]

    def counts(self, *, unsaid: bool) -> tuple[int, int]:
        """Pictures that show a concept, of those that say it, or that bring it along."""
        own = [bad for push, bad in zip(self.pushes, self.there, strict=True) if push.unsaid == unsaid]
        return sum(own), len(own)


@dataclass(frozen=True)
class Undone:
    """What another edit erased, in the picture of a caption: the words that tell it, whether it is there `now`, and
    whether it `was` in the base's with that edit."""

    row: int
    words: Sequence[str]
    now: bool
    was: bool


@dataclass(frozen=True)
class Rest:
    """Pictures of other captions: their words, those that are `lost` and, if that was looked for, `gained`, and latents
    of the base's that can be held."""

    captions: Sequence[str]
    words: Sequence[Sequence[str]]
    lost: Sequence[Collection[str]]
    gained: Sequence[Collection[str]]
    base: Mapping[int, Tensor]

    def __add__(self, more: Rest) -> Rest:
        n = len(self.captions)
        base = {**self.base, **{n + k: z for k, z in more.base.items()}}
        lost, gained = [*self.lost, *more.lost], [*self.gained, *more.gained]
        return Rest([*self.captions, *more.captions], [*self.words, *more.words], lost, gained, base)

    def counted(self, undone: Sequence[Undone], *, whole: bool) -> Rest:
        """With what other edits erased the other way round: it is lost where it comes back, and gained where it goes
        for good."""
        words, lost, gained = [*self.words], [{*own} for own in self.lost], [{*own} for own in self.gained]
        for one in undone:
            k, own = one.row, {*one.words}
            if one.now or one.was:
                words[k] = [*dict.fromkeys([*words[k], *one.words])]
            if one.now and not one.was:
                lost[k], gained[k] = lost[k] | own, gained[k] - own
            elif one.was and not one.now:
                lost[k], gained[k] = lost[k] - own, gained[k] | (own if whole else set())
        return replace(self, words=words, lost=lost, gained=gained)

    def losses(self) -> dict[str, Tensor]:
        """The captions of which anything was lost that can be held, each with the latent of the base's picture."""
        return {self.captions[k]: self.base[k] for k, bad in enumerate(self.lost) if bad and k in self.base}


@dataclass
class Looker(Asking):
    """Draws pictures of captions, and asks the witness. `tried` and `hiding` are found by `search`, whose pictures are
    what training begins with; edits that are `stacked` may be on the model beside the one that is looked at."""

    tried: list[Tried] = field(default_factory=list)
    stacked: Beside = field(default_factory=Beside)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.witness = self.options.witness(self.model, self.concepts)
        self.settings = Settings(steps=self.options.picture_steps, cfg=self.model.cfg)

    def pictured(self, captions: Sequence[str], what: str) -> dict[str, Tensor]:
        """Those of these captions that can be held, each with the latent of the base's picture."""
        if not captions:
            return {}
        clean, images = self.drawn(captions, what)
        return {text: z for text, z, held in zip(captions, clean, self.free(captions, images), strict=True) if held}

    @property
    def sure(self) -> float:
        """The share of pictures with a concept that the witness sees at least (95%), of the one that it sees worst."""
        return 1.0 if self.witness.exact else min(tried.sure for tried in self.tried)

    def search(self) -> tuple[First, tuple[list[str], Tensor]]:
        """Tries the witness on the base's pictures, and finds the words in which the concepts hide.

        Returns what is pushed at first, and what is held with its latents.
        """
        others = [*dict.fromkeys(["", *self.kept, *self.others(self.rng("search"), self.options.search)])]
        captions, n = [*dict.fromkeys([*others, *self.vocabulary])], len(others)
        clean, images = self.drawn(captions, "search")
        words = [self.lexicon.known(text) for text in others]
        parts = [part for i in range(len(self.concepts)) for part in self._searched(i, words, images[:n])]
        first = First(
            [push for part in parts for push in part.pushes], torch.cat([part.clean for part in parts]),
            [there for part in parts for there in part.shown],
        )  # fmt: skip
        held = self._held(captions, clean, images)
        self.vocabulary = [word for word in self.vocabulary if word in held[0]]
        return first, held

    def _held(self, captions: Sequence[str], clean: Tensor, images: Tensor) -> tuple[list[str], Tensor]:
        """What can be held of these, and what the user wants kept."""
        own, free = {"", *self.kept}, self.free(captions, images)
        rows = [k for k, text in enumerate(captions) if free[k] or text in own]
        return [captions[k] for k in rows], clean[rows]

    def free(self, captions: Sequence[str], images: Tensor) -> list[bool]:
        """Which can be held: captions that bring no concept along, and whose pictures show none."""
        along = [word for own in self.hiding for _, word, _ in own]
        shown = [self.shows(images, i) for i in range(len(self.concepts))]
        there = [any(own) for own in zip(*shown, strict=True)]
        return [not bad and not any(says(text, w) for w in along) for text, bad in zip(captions, there, strict=True)]

    def _searched(self, i: int, words: Sequence[Mapping[str, str]], gone: Tensor) -> Iterator[First]:
        """Of concept i: pushes of captions that say it, and of some that bring it along."""
        n = self.options.each(self.concepts)
        said = [self.alone(i), *self.said(self.rng(f"try/{i}"), i, n - 1)]
        clean, images = self.drawn([push.p for push in said], f"try/{i}")
        self.tried.append(Tried.of(self._seen(images, i, n), self.witness.evidence(gone, i)))
        named = [(self.lexicon.slot(word), word) for word in self.options.hides]
        suspects = [*named, *(loop.suspects(words, self.shows(gone, i)) if self.places[i].there else [])]
        self.also.append([])
        self.hiding.append(self._hiding([*dict.fromkeys(suspects)], i))
        along = [*self._along(i, n)]
        rows = [k for k, push in enumerate(said) if not any(says(push.r, word) for word in self.also[i])]
        yield First([said[k] for k in rows], clean[rows], [1.0] * len(rows))
        yield from along

    def _seen(self, images: Tensor, i: int, n: int) -> Tensor:
        """The evidence of concept i in pictures that show it: of a caption by itself there are more, for who is not
        exact."""
        more = [] if self.witness.exact else [self.alone(i).p] * (n - len(images))
        found = self.witness.evidence(images, i)
        return torch.cat([found, self.witness.evidence(self.drawn(more, f"tried/{i}")[1], i)]) if more else found

    def _along(self, i: int, n: int) -> Iterator[First]:
        """Of captions that bring concept i along, and of those that say another name of it."""
        unsaid = self.unsaid(self.rng(f"along/{i}"), i, n)
        if unsaid:
            clean, images = self.drawn([push.p for push in unsaid], f"along/{i}")
            shown = [float(there) for there in self.shows(images, i)]
            found = self._informed(unsaid, shown, i)
            rows = [k for k, push in enumerate(found) if not any(says(push.p, word) for word in self.also[i])]
            yield First([found[k] for k in rows], clean[rows], [shown[k] for k in rows])
        rng = self.rng(f"alias/{i}")
        alias = [push for place in self.aliases(i) for push in (self.bare(place), *self.pairs(rng, place, n - 1))]
        if alias:
            yield First(alias, self.drawn([push.p for push in alias], f"alias/{i}")[0], [1.0] * len(alias))

    def _informed(self, unsaid: Sequence[Push], shown: Sequence[float], i: int) -> list[Push]:
        """The pushes with better priors of the words in which concept i hides, of so many more pictures, which tell of
        other names, too."""
        found, better, low = self.hiding[i], dict[str, float](), dict[str, float]()
        for _, word, prior in found:
            more = [there for push, there in zip(unsaid, shown, strict=True) if says(push.p, word)]
            better[word], low[word], _ = loop.interval(round(ASKED * prior + sum(more)), ASKED + len(more))
        self.hiding[i] = [(slot, word, better[word]) for slot, word, _ in found]
        self.also[i] = self._other_names(i, low)
        return [replace(push, prior=max(p for w, p in better.items() if says(push.p, w))) for push in unsaid]

    def _other_names(self, i: int, low: Mapping[str, float]) -> list[str]:
        """Words that stand where concept i does and nearly always show it, by the lower bounds of how often; none that
        the user says more of."""
        own = {*self.places[i].there}
        wanted = [*self.options.hides, *(word for text in self.kept for word in self.lexicon.known(text).values())]
        return [word for slot, word, _ in self.hiding[i] if low[word] > ALIAS and slot in own and word not in wanted]

    def _hiding(self, suspects: Sequence[tuple[str, str]], i: int) -> list[tuple[str, str, float]]:
        """The suspects that bring concept i along by themselves, where none that was found stands beside them, and how
        often they do; those that the user named do it if they ever do."""
        found: list[tuple[str, str, float]] = []
        for slot, word in suspects:
            names, beside = [*self.names, *(w for _, w, _ in found)], {slot: [word]}
            drawn = self.lexicon.others(self.rng(f"suspect/{i}/{word}"), 8 * ASKED, names, beside)
            asked = [text for text in drawn if self.lexicon.known(text).get(slot) == word][:ASKED]
            shown = self.shows(self.drawn(asked, f"suspect/{i}/{word}")[1], i) if asked else []
            least = 0 if word in self.options.hides else HIDES * len(shown)
            found += [(slot, word, sum(shown) / len(shown))] if sum(shown) > least else []
        return found

    def shows(self, images: Tensor, i: int) -> list[bool]:
        """Which show concept i."""
        found: list[bool] = (self.witness.evidence(images, i) > self.tried[i].threshold).tolist()
        return found

    def drawn(self, captions: Sequence[str], what: str, rows: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Latents and images of the model as it is, of all rows or some; `what` and a row's number make its noise."""
        rows = range(len(captions)) if rows is None else rows
        asked = [Request(captions[k], derive(self.seed, f"loop/{what}", step=k)) for k in rows]
        made: list[tuple[Tensor, Tensor]] = []
        with tqdm(total=len(asked), desc="looking", unit="image", leave=False, disable=not self.model.team.main) as bar:
            for i in range(0, len(asked), self.model.rows):
                own = asked[i : i + self.model.rows]
                made.append(fitted(partial(self._batch, own), self.model.lighter, bar))
                bar.update(len(own))
        return torch.cat([z for z, _ in made]), torch.cat([images for _, images in made])

    def among(
        self, captions: Sequence[str], what: str, rows: Sequence[int] | None = None, edit: Edit | None = None,
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """As `drawn`, under `scale` times the edit and the stacked ones; without it, under those of them that have to
        do with a caption."""
        rows, parts = range(len(captions)) if rows is None else rows, dict[int, tuple[Tensor, Tensor]]()
        seen = self.stacked.quarters(rows, what) if edit else self.stacked.having(captions, what, rows)
        for edits, own in seen:
            with on(self.model, [*edits, *([(edit, scale)] if edit else [])]):
                parts |= zip(own, zip(*self.drawn(captions, what, own), strict=True), strict=True)
        z, images = zip(*(parts[k] for k in rows), strict=True)
        return torch.stack(z), torch.stack(images)

    @torch.no_grad()
    def _batch(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
        z = latents(self.model, requests, Steering.of(self.model, self.settings.guidance), self.settings)
        return z, self.model.decode(z)

    def left(self, edit: Edit, what: str, pictures: int, scale: float = 1.0) -> Left:
        """So many pictures of fresh captions of the concepts, under `scale` times the edit: there is any of them."""
        rng, each, n = self.rng(what), max(2, -(-pictures // len(self.concepts))), range(len(self.concepts))
        wanted = [(i, push) for i in n for push in self.wanted(rng, i, each)]
        z, images = self.among([push.p for _, push in wanted], what, None, edit, scale)
        shown = zip(*(self.shows(images, i) for i in n), strict=True)
        return Left([push for _, push in wanted], [any(own) for own in shown], z)

    def rest(self, edit: Edit, what: str, pictures: int, scale: float = 1.0, *, whole: bool = False) -> Rest:
        """So many pictures of fresh other captions; for the `whole` of it, with what was gained, all of the base's."""
        what, base, known = f"{what}/others", dict[int, Tensor](), dict[int, Tensor]()
        captions = self.others(self.rng(what), pictures)
        _, images = self.among(captions, what, None, edit, scale)

        def before(rows: Sequence[int]) -> Tensor:
            new = [k for k in dict.fromkeys(rows) if k not in known]
            if new:
                own, found = self.among(captions, what, new)
                free = self.free([captions[k] for k in new], found)
                base.update({k: z for k, z, held in zip(new, own, free, strict=True) if held})
                known.update(zip(new, found, strict=True))
            return torch.stack([known[k] for k in rows])

        lost, gained = self.witness.changed(images, captions, before, whole=whole)
        rest = Rest(captions, [self.witness.words(text) for text in captions], lost, gained, base)
        return rest.counted(self._undone(rest, images, before, what, whole=whole), whole=whole)

    def _undone(self, rest: Rest, images: Tensor, before: Base, what: str, *, whole: bool) -> list[Undone]:
        """What edits beside this one erased that captions have to do with: where it is shown, something was lost, or,
        of the `whole`, everywhere."""
        seen = self.stacked.having(rest.captions, what, range(len(rest.captions)))
        gone = [(k, name) for edits, rows in seen for k in rows for edit, _ in edits for name in edit.erased]
        now = dict(zip(gone, self.witness.shown(images, gone, rest.captions), strict=True))
        asked = [(k, name) for k, name in gone if whole or now[k, name] or rest.lost[k]]
        known = [*dict.fromkeys(k for k, _ in asked)]
        pairs = [(known.index(k), name) for k, name in asked]
        was = self.witness.shown(before(known), pairs, rest.captions) if asked else []
        telling = {name: self.lexicon.telling(name) or self.witness.telling(name) for _, name in asked}
        return [Undone(k, telling[name], now[k, name], then) for (k, name), then in zip(asked, was, strict=True)]
