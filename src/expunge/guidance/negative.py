"""Negative prompt: the concept takes the empty prompt's place.

    e = e(x_t, c) + s [e(x_t, p) − e(x_t, c)]

Several concepts are one prompt, joined by commas. Without guidance (s = 1) it does nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..guided import Guidance, Presets
from ..steering import Step


class Negative(Guidance):
    kind = "negative"
    presets: ClassVar[Presets] = {"negative": {}}

    @property
    def negative(self) -> str:
        return ", ".join(self.concepts)

    def change(self, step: Step, state: Any) -> tuple[None, Any]:  # noqa: ARG002
        return None, state
