"""Frames: pictures at the same seeds while a concept goes: before, on the way, and after.

In a folder: frames.json says the prompts and seeds; STEP-I.png is the I-th prompt's pictures after STEP steps, side by
side. They cost the erasure none of its bits, nor its own count of passes and seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .edit import Edit
from .errors import ExpungeError
from .files import parsed, whole, write_json
from .generation import Request, Settings, batched, painted, to_pil
from .method import Counted
from .model import Model
from .steering import Steering
from .training import Trainer

STEPS = 10
"""Scheduler steps of a picture: enough to tell what it shows."""
SEEDS = (0, 1, 2)
MOST = 3
"""Prompts, at most."""
SIDE = 192
"""Pixels of a picture's side, at most."""
SHARE = 0.15
"""Of the run's time, at most about so much goes into frames on the way."""


@dataclass
class Frames:
    """An `on_step` that draws now and then: the dearer a frame, the rarer it is."""

    model: Model
    prompts: Sequence[str]
    folder: Path
    _next: float = 0.0

    def __post_init__(self) -> None:
        self.prompts = self.prompts[:MOST]

    def about(self) -> dict[str, Any]:
        return {"prompts": [*self.prompts], "seeds": [*SEEDS], "model": self.model.signature}

    def begin(self) -> None:
        """The frame before, unless it is there. Raises ExpungeError if the folder holds another run's."""
        head = self.folder / "frames.json"
        if head.is_file() and parsed(head.read_bytes(), f"{head}") != self.about():
            raise ExpungeError(f"{self.folder} holds the frames of another run; remove it, or give another to --frames")
        write_json(head, self.about())
        if not (self.folder / name(0, len(self.prompts) - 1)).is_file():
            took = self.draw(0)  # slow as every start: it does not count as one on the way
            self._next = time.monotonic() + took * min(1.0, 1 / SHARE)

    def __call__(self, trainer: Trainer, _loss: float) -> None:
        if time.monotonic() < self._next or trainer.step >= trainer.options.steps:
            return
        assert isinstance(trainer.extra, Counted)
        with trainer.extra.aside():
            self.after(trainer.extra.current("frame"), trainer.step)

    def after(self, edit: Edit, step: int) -> None:
        """The frame of the edit that there is after so many steps."""
        with edit.on(self.model):
            took = self.draw(step)
        self._next = time.monotonic() + took / SHARE

    def draw(self, step: int) -> float:
        """The pictures of the model as it is; the seconds that they took."""
        begun = time.monotonic()
        settings, strips = Settings(steps=STEPS, cfg=self.model.cfg), []
        steering, requests = Steering.of(self.model, ()), [Request(p, s) for p in self.prompts for s in SEEDS]
        for part in batched(requests, self.model.rows):
            strips += [small(to_pil(image)) for image in painted(self.model, part, steering, settings)]
        for i in range(len(self.prompts)):
            with whole(self.folder / name(step, i)) as temporary:
                beside(strips[i * len(SEEDS) : (i + 1) * len(SEEDS)]).save(temporary, format="PNG")
        return time.monotonic() - begun


def name(step: int, i: int) -> str:
    return f"{step:06d}-{i}.png"


def small(picture: Image.Image) -> Image.Image:
    picture.thumbnail((SIDE, SIDE))
    return picture


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """In a row, without gaps."""
    width, height = pictures[0].size
    strip = Image.new("RGB", (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        strip.paste(picture, (i * width, 0))
    return strip
