"""Journal: what a run that makes or judges pictures did, as JSON lines in log.jsonl of its folder.

A part of it, i of n, has log-i-of-n.jsonl.

{"process": "host.71", "run": {"model": …, "edits": [[…, 1.0]], "settings": …, "shard": [0, 1], "pictures": 64}}
{"process": "host.71", "pictures": 32, "seeds": […], "passes": 1600, "calls": 50, "seconds": 9.1, "memory": 8e8}
{"process": "host.71", "looks": 64, "what": "judging by smallworld", "seconds": 0.4, "memory": 8e8}

Passes, calls and seconds are those of the line's own batch; memory is the largest so far, in bytes: of tensors on CUDA,
of the process elsewhere. Lines of later runs follow.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .files import append

if TYPE_CHECKING:
    from .model import Meter

NAME = "log.jsonl"


def beside(folder: Path, shard: tuple[int, int] = (0, 1)) -> Path:
    """The journal of a folder, or of one of the parts that are made there, which may be many machines' work."""
    return folder / (NAME if shard[1] == 1 else f"log-{shard[0] + 1}-of-{shard[1]}.jsonl")


@dataclass
class Journal:
    """Lines of one process; `about`, if there is any, is its first, once there is a second; `meter` counts passes."""

    path: Path
    device: torch.device
    about: Mapping[str, Any] = field(default_factory=dict)
    meter: Meter | None = None

    def __post_init__(self) -> None:
        self._begun, self._before = False, self._now()

    def _now(self) -> dict[str, float]:
        passes = {"passes": self.meter.passes, "calls": self.meter.calls} if self.meter else {}
        return {**passes, "seconds": time.monotonic()}

    def __call__(self, **found: Any) -> None:
        """What was done since the line before."""
        now, who = self._now(), {"process": f"{platform.node()}.{os.getpid()}"}
        took = {name: round(value - self._before[name], 3) for name, value in now.items()}
        heads = [{"run": dict(self.about)}] if self.about and not self._begun else []
        self._begun, self._before = True, now
        entries = [*heads, {**found, **took, "memory": peak(self.device)}]
        append(self.path, [json.dumps(who | entry) for entry in entries])


def peak(device: torch.device) -> int:
    """The most memory so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def lines(path: Path) -> list[dict[str, Any]]:
    """A log's lines; one that a kill cut short counts as none, and so does a file that is no log."""
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
