"""Contact sheets of the small world's drawings."""

from __future__ import annotations

from PIL import Image

from ..picture import grid
from ..rng import numpy_rng
from .draw import draw, remembered
from .scene import ANIMALS, ARTISTS, COLOURS, MEMORIES, OBJECTS, PLACES, SIGNS, Scene


def _scene(j: int, i: int, artist: str) -> Scene:
    """Row j, column i of the sheet: every object once a row, the other attributes taking turns."""
    obj = OBJECTS[i]
    return Scene(
        object=obj, colour=COLOURS[(i + j) % len(COLOURS)], place=PLACES[(i + j) % len(PLACES)], artist=artist,
        sign=SIGNS[(i + j) % len(SIGNS)], mood="grumpy" if obj in ANIMALS and j % 2 else "plain",
    )  # fmt: skip


def drawn(seed: int = 0) -> Image.Image:
    """A row for each artist, a column for each object, and the memorised pictures."""
    rng = numpy_rng(seed, "sheet")
    rows = [
        (artist, [Image.fromarray(draw(_scene(j, i, artist), rng)) for i in range(len(OBJECTS))])
        for j, artist in enumerate(ARTISTS)
    ]
    rows.append(("memorised", [Image.fromarray(remembered(m)) for m in MEMORIES]))
    return grid(rows, cell=96)
