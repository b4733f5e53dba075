"""Paint: the picture of a check."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

SMALLEST = 256
"""Pixels in which its text can be read."""


def check(want: int, size: tuple[int, int]) -> bytes:
    """A PNG that says what to choose, of that size or of its shape."""
    scale = max(1.0, SMALLEST / size[0])
    width, height = round(size[0] * scale), round(size[1] * scale)
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).multiline_text(
        (width / 2, height / 2), f"This is a check.\nPlease choose {want}.", fill="black", anchor="mm", align="center",
        font=ImageFont.load_default(width / 12),
    )  # fmt: skip
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
