"""Judge: pictures to verdicts, and eye: pictures to features. Images are (n, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from .errors import ExpungeError, unknown

Verdict = dict[str, float | str]
"""What a picture shows: a class, or a number such as a probability, for each thing that the judge looks for."""


class Instrument(BaseModel, ABC):
    """What looks at pictures: its fields are its options, its weights are opened on first use.

    Raises ExpungeError, on first use, if they are not there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    about: ClassVar[str]

    def version(self) -> str:
        """What besides the options decides on verdicts: versions, and a hash of the weights."""
        return "1"

    def provenance(self) -> dict[str, str]:
        """All that decides on verdicts."""
        return {"kind": self.kind, "options": self.model_dump_json(), "version": self.version()}

    def identity(self) -> str:
        """A short hash of `provenance`: equal instruments, equal verdicts."""
        return hashlib.sha256(json.dumps(self.provenance(), sort_keys=True).encode()).hexdigest()[:12]


class Judge(Instrument):
    """Says what pictures show."""

    @abstractmethod
    def look(self, images: Tensor) -> list[Verdict]:
        """A verdict for each image; all have the same keys."""

    def veils(self, verdict: Verdict) -> bool:  # noqa: ARG002
        """Whether a picture of this verdict is to be blurred until somebody asks to see it."""
        return False


def holds(verdict: Verdict, key: str, expected: str | float) -> bool:
    """Whether the verdict has that text at `key`, or a number above it."""
    found = verdict[key]
    return found == expected if isinstance(expected, str) else float(found) > expected


def check_key(judge: str, verdict: Verdict, key: str, expected: str | float) -> None:
    """Raises ExpungeError, with the nearest name, unless verdicts like this one can be asked so."""
    if key not in verdict:
        raise unknown(f"key of the judge {judge}:", key, verdict)
    if isinstance(expected, str) != isinstance(verdict[key], str):
        kind = "a text: use equals" if isinstance(verdict[key], str) else "a number: use above"
        raise ExpungeError(f"{key!r} of the judge {judge} is {kind}")


class Eye(Instrument):
    """Gives pictures features, in which pictures that look alike are near."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """(n, d), float32."""

    def layers(self, images: Tensor) -> Sequence[Tensor]:  # noqa: ARG002
        """Activations (n, c, h, w) on the way, from fine to coarse. Raises ExpungeError if it shows none."""
        raise ExpungeError(f"{self.kind} cannot compare two pictures; choose the eye smallworld, clip or lpips")

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Perceptual distance of pairs: shape (n,), 0 for equal pictures.

        As LPIPS (Zhang et al. 2018, arXiv 1801.03924, eq. 1) with all weights 1: activations of unit length in each
        place, their squared differences averaged over places and layers.
        """
        found = [
            (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean((1, 2))
            for x, y in zip(self.layers(a), self.layers(b), strict=True)
        ]
        return torch.stack(found).mean(0)


class Reader(Eye):
    """An eye that puts texts among its features."""

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, d), to compare with features, which are of unit length as well."""
