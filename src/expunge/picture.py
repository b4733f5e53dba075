"""Before and after: grids of images at equal seeds, with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from .errors import ExpungeError

if TYPE_CHECKING:
    from torch import Tensor


def read(path: Path) -> Image.Image:
    """A picture in RGB. Raises ExpungeError if it is missing, damaged, or no picture."""
    try:
        with Image.open(path, formats=FORMATS) as first:
            first.verify()  # a PNG's checksums, which nothing else looks at
        with Image.open(path, formats=FORMATS) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ExpungeError(
            f"cannot read the picture {path}: {error}; expected a whole PNG or JPEG file. If it is one of ours,"
            " remove it, and it is made again"
        ) from error


FORMATS = ("PNG", "JPEG", "WEBP")


def opened(path: Path, side: int | None = None) -> Tensor:
    """A picture as a square of that many pixels, or as it is: float32 (1, 3, H, W) in [-1, 1].

    Raises ExpungeError if it is missing or no picture.
    """
    import numpy as np
    import torch

    picture = read(path)
    picture = picture.resize((side, side), Image.Resampling.LANCZOS) if side else picture
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, row by row: (n, d) and (n, d), or (1, d), to (n,) in [-1, 1]; 0 where a row is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    found: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-6)
    return found


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def grid(
    rows: Sequence[tuple[str, Sequence[Image.Image]]], *, titles: Sequence[tuple[str, int]] = (), cell: int = 112
) -> Image.Image:
    """Labelled rows of pictures. `titles` head the columns: (text, number of columns it spans)."""
    label, head, gap = 190, 30 if titles else 0, 4
    columns = max(len(pictures) for _, pictures in rows)
    sheet = Image.new("RGB", (label + columns * (cell + gap), head + len(rows) * (cell + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    x = label
    for text, span in titles:
        pen.text((x + 2, 6), text, fill="black", font=_font(16))
        x += span * (cell + gap)
    for j, (text, pictures) in enumerate(rows):
        y = head + j * (cell + gap)
        pen.multiline_text((6, y + 8), _wrapped(text, 24), fill="black", font=_font(13))
        for i, picture in enumerate(pictures):
            sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (label + i * (cell + gap), y))
    return sheet


def _wrapped(text: str, width: int) -> str:
    from textwrap import fill

    return fill(text, width)
