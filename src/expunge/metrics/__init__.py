"""The registry of metrics: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..judges import made
from ..metric import Metric
from .alignment import Alignment
from .average import Average
from .contrast import Contrast
from .frechet import Frechet
from .kernel import Kernel
from .lost import Lost
from .perceptual import Perceptual

KINDS = (Frechet, Kernel, Perceptual, Alignment, Contrast, Lost, Average)
METRICS: dict[str, type[Metric]] = {m.kind: m for m in KINDS}


def metric(spec: Mapping[str, Any]) -> Metric:
    """A metric from its `kind` and options. Raises ExpungeError if there is none such."""
    return made(METRICS, spec, "metric")
