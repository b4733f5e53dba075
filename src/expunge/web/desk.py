"""Desk: what all parts of the page share."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ..errors import ExpungeError
from .line import Line
from .shelf import Shelf, about
from .studio import Studio

P = ParamSpec("P")
T = TypeVar("T")

TEXT = 4000
"""Letters that a visitor may write in one field, at most."""


@dataclass(frozen=True)
class Desk:
    """`models` are what the server was started with; `line` is the device's, `files` is for what needs none.

    `ways` are options of every command: the device, and the precision.
    """

    shelf: Shelf
    line: Line
    files: Line
    studio: Studio
    models: Sequence[str]
    ways: tuple[str, ...]
    address: str
    loopback: bool

    def model(self, name: object) -> str:
        """Raises ExpungeError unless the server was started with it."""
        if name not in self.models:
            raise ExpungeError("there is no such model: choose one of the list")
        return str(name)

    def runs(self, *kinds: str) -> list[tuple[str, str]]:
        """Jobs as choices, the newest first."""
        found = [job for job in self.shelf.jobs() if job.kind in kinds]
        return [(f"{job.id}: {job.title} · {about(job.made)}", job.id) for job in found]


def told(work: Callable[P, T]) -> Callable[P, T]:
    """What a visitor did wrong is said on the page, in one line."""

    @wraps(work)
    def inner(*given: P.args, **named: P.kwargs) -> T:
        try:
            return work(*given, **named)
        except ExpungeError as error:
            raise gr.Error(html.escape(" ".join(str(error).split())), title="Not so", print_exception=False) from None

    return inner


def written(text: object, what: str) -> str:
    """What a visitor wrote. Raises ExpungeError for what is no text, or too long."""
    if not isinstance(text, str) or len(text) > TEXT or "\0" in text:
        raise ExpungeError(f"{what} is a text of at most {TEXT:,} letters")
    return text.strip()


def names(text: object) -> list[str]:
    """Concepts, one a line or parted by commas. Raises ExpungeError if there is none."""
    found = [part.strip() for line in written(text, "what to erase").splitlines() for part in line.split(",")]
    if not any(found):
        raise ExpungeError("nothing to erase: write a word, such as car")
    return [part for part in found if part]


def number(value: object, low: int, high: int, what: str) -> int:
    """Raises ExpungeError for what is no whole number between them."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise ExpungeError(f"{what} is a whole number from {low:,} to {high:,}")
    return int(value)


def typed(id: str, label: str = "The same on the command line") -> gr.Textbox:
    """A place for a command line, to copy."""
    return gr.Textbox(
        label=label, lines=1, max_lines=6, interactive=False, buttons=["copy"], elem_id=id, elem_classes="x-typed"
    )


QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events that answer at once."""
DIRECT: dict[str, Any] = {**QUIET, "queue": False}
"""Of events that touch the disk alone: they wait for nobody."""
DRAWING: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "studio", "api_visibility": "private"}
"""Of events that draw: one after another, and the page shows the place in the line."""


def halting(desk: Desk, runs: gr.Dropdown, stop: gr.Button, resume: gr.Button, timer: gr.Timer) -> None:
    """Buttons that stop the run that is chosen, and let it go on."""

    @told
    def halt(id: Any) -> None:
        desk.line.stop(desk.shelf.job(id))

    @told
    def go_on(id: Any) -> Any:
        desk.line.resume(desk.shelf.job(id))
        return gr.Timer(active=True)

    stop.click(halt, runs, **DIRECT)
    resume.click(go_on, runs, timer, **DIRECT)
