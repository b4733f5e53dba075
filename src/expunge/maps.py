"""Where a picture's words live: attention maps while it is drawn (ESD, Gandikota et al. 2023, Figure 3).

    cross   a_w = mean over heads, layers of one size, and steps, of Σ_j∈w A_j
    self    S a_w,   S the same mean of the picture's attention to itself

A_j are the shares that the picture's places give to token j. Sizes are brought to the finest and averaged. The prompt's
own half of the guided prediction is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .attention import attends, layers, reflects, tokens, watched
from .concept import said_at
from .edit import Edit
from .errors import ExpungeError
from .files import whole
from .generation import Request, Settings, images, to_pil
from .model import Model
from .picture import grid

MOST = 1024
"""Places of the largest map of a picture's attention to itself: larger ones would not fit."""


@dataclass(frozen=True)
class Maps:
    """A picture of one model, and for each word its maps (side, side): shares of the attention of each place.

    `through` is empty where the picture's places are more than MOST.
    """

    model: str
    picture: Image.Image
    cross: dict[str, Tensor]
    through: dict[str, Tensor]


class Average:
    """The mean of maps (n, heads, places, columns) over heads and calls, of the last row, by the number of places."""

    def __init__(self, columns: slice) -> None:
        self.columns = columns
        self.sums: dict[int, Tensor] = {}
        self.calls: dict[int, int] = {}

    def __call__(self, maps: Tensor) -> Tensor:
        own = maps[-1, :, :, self.columns].float().mean(0)
        self.sums[len(own)] = self.sums.get(len(own), torch.zeros_like(own)) + own
        self.calls[len(own)] = self.calls.get(len(own), 0) + 1
        return own.new_zeros(0)

    def means(self) -> dict[int, Tensor]:
        return {places: total / self.calls[places] for places, total in self.sums.items()}


def looked(model: Model, prompt: str, words: Sequence[str], settings: Settings, seed: int, name: str = "base") -> Maps:
    """Draws the prompt's picture and watches. Raises ExpungeError for a word that the prompt does not say."""
    marks = {word: marked(model, prompt, word) for word in words}
    text = model.positions
    crosswise, inside = Average(slice(0, text)), Average(slice(text, None) if model.layout.joint else slice(None))
    with ExitStack() as watching:
        watching.enter_context(watched(model, layers(model, attends), text, crosswise))
        watching.enter_context(watched(model, layers(model, reflects), text, inside, MOST))
        image = next(images(model, [Request(prompt, seed)], settings, label=f"{name}: drawing"))[0]
    cross, own = crosswise.means(), inside.means()
    shares = {word: {n: m[:, mark.to(m.device)].sum(1) for n, m in cross.items()} for word, mark in marks.items()}
    through = {word: {n: own[n] @ a for n, a in maps.items() if n in own} for word, maps in shares.items()}
    return Maps(
        name,
        to_pil(image),
        {w: together(m) for w, m in shares.items()},
        {w: together(m) for w, m in through.items() if m},
    )


def marked(model: Model, prompt: str, word: str) -> Tensor:
    """Marks of the word's tokens, wherever the prompt says it. Raises ExpungeError if it does not."""
    places = said_at(prompt, word) if word.strip() else []
    if not places:
        raise ExpungeError(f"the prompt {prompt!r} does not say {word!r}; give one of its words to --word")
    return torch.stack([tokens(model, prompt, start, end) for start, end in places]).any(0)


def together(maps: dict[int, Tensor]) -> Tensor:
    """Maps by number of places, as one square of the finest side."""
    side = round(max(maps) ** 0.5)
    squares = [m.view(1, 1, round(n**0.5), -1) for n, m in maps.items()]
    return torch.stack([F.interpolate(s, (side, side), mode="bilinear") for s in squares]).mean(0)[0, 0].cpu()


def compared(
    model: Model, prompt: str, words: Sequence[str], settings: Settings, seed: int, edits: Sequence[tuple[Edit, float]]
) -> list[Maps]:
    """The base, and the base with each edit, at the same seed."""
    rows = [looked(model, prompt, words, settings, seed)]
    for edit, scale in edits:
        with edit.on(model, scale):
            name = edit.name if scale == 1 else f"{edit.name}:{scale:g}"
            rows.append(looked(model, prompt, words, settings, seed, name))
    return rows


def measured(share: Tensor) -> dict[str, float]:
    """The mean share over all places, and the share of the place that looks most."""
    return {"mean": float(share.mean()), "most": float(share.max())}


def draw(rows: Sequence[Maps], path: Path) -> None:
    """A row for each model: its picture, and each word's two maps, from dark to light; one scale for a column."""
    columns = [
        (kind, word) for word in rows[0].cross for kind in ("cross", "through") if word in getattr(rows[0], kind)
    ]
    ends = {(kind, w): limits([getattr(r, kind)[w] for r in rows]) for kind, w in columns}
    said = {"cross": "cross-attention", "through": "through self-attention"}
    heads = [f"{w}: {said[kind]}, {ends[kind, w][0]:.1%} to {ends[kind, w][1]:.1%}" for kind, w in columns]
    titles = [(text, 1) for text in ["picture", *heads]]
    pictures = [(r.model, [r.picture, *(heat(getattr(r, k)[w], ends[k, w]) for k, w in columns)]) for r in rows]
    with whole(path) as temporary:
        grid(pictures, titles=titles, cell=300).save(temporary, format="PNG")


def limits(maps: Sequence[Tensor]) -> tuple[float, float]:
    return min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)


def heat(share: Tensor, ends: tuple[float, float]) -> Image.Image:
    """Shares between two ends from black to white, through colours of rising lightness."""
    from matplotlib import colormaps

    low, high = ends
    colours = colormaps["magma"](((share - low) / max(high - low, 1e-9)).clamp(0, 1).numpy(), bytes=True)
    return Image.fromarray(colours[:, :, :3])
