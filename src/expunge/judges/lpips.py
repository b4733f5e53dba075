"""LPIPS (Zhang et al. 2018, arXiv 1801.03924) with AlexNet's learned weights, by the package of that name.

It needs torchvision, so expunge never installs it: it is for machines where it works already.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ExpungeError
from ..judge import Eye


class Lpips(Eye):
    kind: ClassVar[str] = "lpips"
    about: ClassVar[str] = "LPIPS with AlexNet, where the package lpips works"

    @cached_property
    def network(self) -> Any:
        try:
            import lpips
        except (ImportError, RuntimeError) as error:
            raise ExpungeError(
                f"the package lpips does not work here ({error}); choose the eye smallworld or clip"
            ) from error
        return lpips.LPIPS(net="alex", verbose=False).eval()

    def version(self) -> str:
        _ = self.network
        return version("lpips")

    def features(self, images: Tensor) -> Tensor:  # noqa: ARG002
        raise ExpungeError("lpips compares pictures and has no features; choose the eye smallworld, clip or inception")

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = self.network.to(a.device)(a, b)
        return found.flatten()
