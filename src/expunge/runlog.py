"""Run log: what a run did at each step, as JSON lines beside its edit, and to trackers.

{"run": {"base": …, "method": …, "options": …, "concepts": …, "seed": …}, "processes": 1}
{"step": 1, "loss": 0.01, "rate": 1e-05, "passes": 36, "calls": 4, "seconds": 1.2, "memory": 812345678,
 "terms": {"erase": 0.01}}
…
{"edit": "6cdf…", "passes": 380, "calls": 16, "seconds": 2.4, "memory": 812345678}

Passes, calls and seconds are those since the run began, over kills and resumes; memory is the largest so far, in bytes:
of tensors on CUDA, of the process elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .edit import Edit
from .errors import ExpungeError, unknown
from .files import append, write_text
from .journal import lines, peak
from .method import Counted
from .team import Team
from .training import Trainer


@dataclass
class RunLog:
    """An `on_step` that writes a line a step. `about` is what determines the run.

    A resumed run goes on after the step of its snapshot; what an earlier run of other options left is replaced.
    """

    path: Path
    about: Mapping[str, Any]
    device: torch.device
    team: Team
    trackers: Sequence[Any] = ()
    _begun: bool = False

    def __call__(self, trainer: Trainer, loss: float) -> None:
        assert isinstance(trainer.extra, Counted)
        self._begin(trainer.step)
        found = {"loss": loss, "rate": trainer.rate, **trainer.extra.cost(), "memory": peak(self.device)}
        self._add({"step": trainer.step, **found, "terms": trainer.terms})
        for tracker in self.trackers:
            tracker.log(found, step=trainer.step)

    def _begin(self, step: int = 0) -> None:
        """The first line, and those of the steps before this one, if this run made them."""
        if self._begun:
            return
        self._begun, head = True, json.dumps({"run": self.about, "processes": self.team.size}, default=str)
        old = lines(self.path)
        same = bool(old) and json.loads(head)["run"] == old[0].get("run")
        kept = [json.dumps(line) for line in old[1:] if same and line.get("step", step) < step]
        if self.team.main:
            write_text(self.path, "\n".join([head, *kept]) + "\n")
        for tracker in self.trackers:
            tracker.start()

    def _add(self, found: Mapping[str, Any]) -> None:
        if self.team.main:
            append(self.path, [json.dumps(found)])

    def end(self, edit: Edit) -> None:
        """The last line."""
        self._begin()
        self._add({"edit": edit.hash, **edit.provenance.get("cost", {}), "memory": peak(self.device)})

    def close(self) -> None:
        for tracker in self.trackers if self._begun else ():
            tracker.finish()


def trackers(names: Sequence[str], out: Path) -> list[Any]:
    """Accelerate's trackers of those names; they keep what they keep on disk in `runs`, beside the edit.

    Raises ExpungeError for one that Accelerate does not know, or that is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, map(str, LOGGER_TYPE_TO_CLASS))
        if name not in [kind.value for kind in get_available_trackers()]:
            raise ExpungeError(f"the tracker {name!r} is not installed; pip install {name}, or leave --report-to out")
    kinds = [LOGGER_TYPE_TO_CLASS[name] for name in names]
    where = {"logging_dir": out.parent / "runs"}
    return [kind(out.stem, **(where if kind.requires_logging_directory else {})) for kind in kinds]
