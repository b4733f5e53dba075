"""Inception v3's features, which FID is defined on (Heusel et al. 2017, arXiv 1706.08500), from a user's TorchScript.

Such a file (the widespread `inception-2015-12-05.pt`) is a program: it runs only where that is allowed.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..errors import ExpungeError
from ..files import hash_file
from ..judge import Eye


class Inception(Eye):
    kind: ClassVar[str] = "inception"
    about: ClassVar[str] = "Inception v3's features, from a TorchScript file"

    file: str = Field(description="the TorchScript file: called with uint8 pictures and return_features=True")
    allow_code: bool = Field(False, description="run the program that the file is")

    @cached_property
    def network(self) -> Any:
        if not self.allow_code:
            raise ExpungeError(f"{self.file} is a program; allow_code=true runs it, if you trust where it is from")
        try:
            return torch.jit.load(self.file, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            raise ExpungeError(f"{self.file} is no TorchScript file: {str(error).splitlines()[0]}") from error

    def version(self) -> str:
        return hash_file(Path(self.file))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        found: Tensor = self.network.to(images.device)(pixels, return_features=True)
        return found.float()
