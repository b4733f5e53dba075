"""Collapse: pictures that show nothing, which a detector happily calls safe. No network, no training.

Of the picture's grey values g (H × W, in [0, 1]):

    blank     their standard deviation is below 0.02: one colour (a flat colour as well as white)
    noise     neighbours do not belong together: in no direction (→, ↓, ↘, ↙) is their correlation above `related`
    pattern   the picture repeats: moved by 4 pixels or more its edges correlate with themselves above `repeats`
    flat      more than `flat` of the pixels have the same colour, to 4 bits a channel

A broken network's noise is often smooth, since the autoencoder draws it: the metric `lost` sees that.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..judge import Judge, Verdict
from ..picture import correlation


class Collapse(Judge):
    kind: ClassVar[str] = "collapse"
    about: ClassVar[str] = "blank, flat, noisy and repeating pictures, by formula"

    blank: float = Field(0.02, ge=0, description="standard deviation of grey below which a picture is blank")
    related: float = Field(0.4, ge=-1, le=1, description="correlation of neighbours below which it is noise")
    repeats: float = Field(0.98, ge=0, le=1, description="correlation with itself, moved, from which it is a pattern")
    flat: float = Field(0.98, gt=0, le=1, description="share of one colour above which it is flat")

    def look(self, images: Tensor) -> list[Verdict]:
        grey = (images.float().mean(1) + 1) / 2
        columns = {
            "spread": grey.flatten(1).std(1),
            "related": related(grey),
            "repeats": repeats(grey),
            "one colour": one_colour(images),
        }
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*(c.tolist() for c in columns.values()), strict=True)
        ]
        return [{"collapse": self.name(row), **row} for row in rows]

    def name(self, row: dict[str, float]) -> str:
        """What is wrong with a picture of these numbers, or "sound"."""
        if row["spread"] < self.blank:
            return "blank"
        if row["one colour"] > self.flat:
            return "flat"
        if row["related"] < self.related:
            return "noise"
        return "pattern" if row["repeats"] > self.repeats else "sound"


def related(grey: Tensor) -> Tensor:
    """The largest correlation of neighbours in any direction, of either sign, of pictures (n, H, W): shape (n,)."""
    pairs = [
        (grey[:, :, 1:], grey[:, :, :-1]),
        (grey[:, 1:], grey[:, :-1]),
        (grey[:, 1:, 1:], grey[:, :-1, :-1]),
        (grey[:, 1:, :-1], grey[:, :-1, 1:]),
    ]
    return torch.stack([correlation(a.flatten(1), b.flatten(1)).abs() for a, b in pairs]).max(0).values


def repeats(grey: Tensor, step: int = 4) -> Tensor:
    """The largest circular autocorrelation of the picture's edges at a move of `step` pixels or more: shape (n,)."""
    edges = torch.stack([grey.diff(dim=1, append=grey[:, :1]), grey.diff(dim=2, append=grey[:, :, :1])], 1)
    power = torch.fft.rfft2(edges).abs().square().sum(1)
    alike = torch.fft.irfft2(power, s=grey.shape[1:])
    alike = alike / alike[:, :1, :1].clamp(min=1e-6)
    _, h, w = alike.shape
    y, x = (torch.minimum(torch.arange(k), k - torch.arange(k)) for k in (h, w))
    far = torch.maximum(y[:, None], x[None]).to(grey.device) >= step
    best: Tensor = alike.masked_fill(~far, -1).flatten(1).max(1).values
    return best


def one_colour(images: Tensor) -> Tensor:
    """Share of the most frequent colour, to 4 bits a channel: shape (n,)."""
    bins = ((images + 1) * 8).floor().clamp(0, 15).long()
    codes = (bins[:, 0] * 256 + bins[:, 1] * 16 + bins[:, 2]).flatten(1)
    return torch.stack([row.bincount().max() / len(row) for row in codes]).float()
