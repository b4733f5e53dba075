"""The registry of metrics: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import unknown
from ..judges import eye
from ..metric import Metric
from ..recipe import validated
from .alignment import Alignment
from .contrast import Contrast
from .frechet import Frechet
from .kernel import Kernel
from .lost import Lost
from .perceptual import Perceptual

METRICS: dict[str, type[Metric]] = {m.kind: m for m in (Frechet, Kernel, Perceptual, Alignment, Contrast, Lost)}


def metric(spec: Mapping[str, Any]) -> Metric:
    """A metric from its `kind` and options. Raises ExpungeError if there is none such."""
    options = dict(spec)
    kind = str(options.pop("kind", None))
    if kind not in METRICS:
        raise unknown("metric", kind, METRICS)
    if isinstance(options.get("eye"), str | Mapping):
        options["eye"] = eye(options["eye"])
    return validated(METRICS[kind], options, f"metric {kind}")
