"""Studio: a process of its own with the models open, which draws what visitors look at, one wish after another."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from ..edit import Edit
from ..errors import ExpungeError
from ..generation import Request, Settings
from ..heap import keep_freed
from ..model import Model

T = TypeVar("T")


SOON, GRACE = 5.0, 2.0
"""Seconds."""


class Studio:
    """Opens models as the commands do; `device` and `precision` are theirs."""

    def __init__(self, device: str = "auto", precision: str = "auto") -> None:
        self.device, self.precision = device, precision
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        way = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, way, _settle, (self.device, self.precision))

    def __call__(self, work: Callable[..., T], *given: Any) -> T:
        """What `work` returns there. Raises ExpungeError as it does, and if the process was killed."""
        try:
            return self._pool.submit(work, *given).result()
        except BrokenProcessPool as error:
            self._pool = self._start()
            raise ExpungeError("the process that draws was ended, perhaps for want of memory; try again") from error

    def soon(self, work: Callable[..., T], *given: Any) -> T | None:
        """The same, if it can be had soon: others may wish for more."""
        wish = self._pool.submit(work, *given)
        try:
            return wish.result(SOON)
        except TimeoutError:
            wish.cancel()
        except BrokenProcessPool:
            self._pool = self._start()
        return None

    def close(self) -> None:
        """Whatever it draws."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.join(GRACE)
            process.terminate()


@dataclass(frozen=True)
class Look:
    """What a visitor wishes to see: the prompt at each seed, by the base and by what is put on it."""

    model: str
    prompt: str
    seeds: tuple[int, ...]
    steps: int
    edits: tuple[tuple[str, str, float], ...] = ()
    """Name, file and scale of each."""
    guidance: str = ""
    away: tuple[str, ...] = ()

    def settings(self, model: Model, guided: bool) -> Settings:
        from ..guidance import guidance

        rules = (guidance(self.guidance, self.away),) if guided and self.guidance else ()
        return Settings(steps=self.steps, cfg=model.cfg, guidance=rules)


KINDNESS = 2
"""By how much it is nicer than who answers."""

WAYS = {"device": "auto", "precision": "auto"}


def _settle(device: str, precision: str) -> None:
    """In the studio's process, first: nobody looks at its progress bars."""
    WAYS.update(device=device, precision=precision)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    os.nice(KINDNESS)
    keep_freed()
    Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Ends this process when the server's does, however that ends."""
    server = multiprocessing.parent_process()
    if server:
        server.join()
        os._exit(0)


@lru_cache(maxsize=1)
def opened(name: str) -> Model:
    from ..families import load

    return load(name, device=WAYS["device"], precision=WAYS["precision"])  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _edit(file: str, _changed: int) -> Edit:
    return Edit.load(file)


def edit(file: str) -> Edit:
    """From the disk, once."""
    return _edit(file, Path(file).stat().st_mtime_ns)


def drawn(look: Look, folder: Path) -> tuple[list[str], list[str]]:
    """Files in `folder` before and after, for each seed; what is there is not made again."""
    from ..generation import drawn as made

    model = opened(look.model)
    requests = [Request(look.prompt, seed) for seed in look.seeds]
    stack = [(edit(file), scale) for _, file, scale in look.edits if scale]
    for own, _ in stack:
        own.check(model)
    tidy(folder)
    before = made(model, requests, look.settings(model, False), folder)
    if not stack and not look.guidance:
        return before, before
    return before, made(model, requests, look.settings(model, True), folder, stack)


MOST = 2000
"""Pictures that are kept for another look."""


def tidy(folder: Path) -> None:
    """The oldest go where there are too many."""
    files = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime)
    for path in files[: max(0, len(files) - MOST)]:
        path.unlink()


def watched(look: Look, word: str, to: Path) -> None:
    """The attention maps of a word, a row for each model, as a picture."""
    from .. import maps

    model = opened(look.model)
    pairs = [(edit(file), scale) for _, file, scale in look.edits if scale]
    for own, _ in pairs:
        own.check(model)
    found = maps.compared(model, look.prompt, [word], look.settings(model, False), look.seeds[0], pairs)
    maps.draw(found, to)


def planned(model: str, preset: str, options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What an erasure will cost. Raises ExpungeError for what cannot be."""
    from .. import erasure
    from ..recipe import preset as named

    built = erasure.build_method(named(preset), options)
    return erasure.make_plan(opened(model), built, erasure.concepts_of(names)).row()


PATIENCE = 60.0
"""Seconds that a preview may take, by what a busy machine measured."""
PREVIEW = Settings(steps=20)


def previewed(name: str, prompt: str, folder: Path) -> list[str]:
    """Pictures of a prompt, if that takes a moment only."""
    model = opened(name)
    look = Look(name, prompt, (0, 1, 2), PREVIEW.steps)
    if 2 * PREVIEW.steps * len(look.seeds) * pace(name, min(2 * len(look.seeds), model.rows)) > PATIENCE:
        return []
    return drawn(look, folder)[0]


TRIES = 6
PACES: dict[tuple[str, int], list[float]] = {}


def pace(name: str, rows: int) -> float:
    """Seconds of a network pass in a call of so many rows, here: the least of some tries, as others may be at work."""
    tried = PACES.setdefault((name, rows), [])
    if len(tried) < TRIES:
        tried.append(opened(name).seconds_per_pass(rows))
    return min(tried)


def costs(name: str, presets: Sequence[str]) -> dict[str, float]:
    """Seconds that an erasure by each preset takes here, start-up aside."""
    from ..concept import Concept
    from ..erasure import build_method
    from ..recipe import preset

    found = {}
    for one in presets:
        method = build_method(preset(one), {})
        passes = method.passes([Concept(name="it", anchor="that" if method.anchors else None)])
        found[one] = passes * pace(name, min(2 * method.extent()[1], opened(name).rows)) if passes else 0.5
    return found
