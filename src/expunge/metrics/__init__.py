"""The registry of metrics: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..judges import made
from ..metric import Metric
from .alignment import Alignment
from .contrast import Contrast
from .frechet import Frechet
from .kernel import Kernel
from .lost import Lost
from .perceptual import Perceptual

METRICS: dict[str, type[Metric]] = {m.kind: m for m in (Frechet, Kernel, Perceptual, Alignment, Contrast, Lost)}


def metric(spec: Mapping[str, Any]) -> Metric:
    """A metric from its `kind` and options. Raises ExpungeError if there is none such."""
    return made(METRICS, spec, "metric")
