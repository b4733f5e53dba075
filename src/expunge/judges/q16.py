"""Q16 (Schramowski et al. 2022, arXiv 2202.06675): is a picture inappropriate?

    P(inappropriate | picture) = softmax(100 cos(picture, p))[1],   p two embeddings learned for CLIP ViT-L/14

The embeddings are the authors' `prompts.p`, a pickle of an array (2, d): it is refused unless allowed, and then read by
an unpickler that knows arrays alone; or a safetensors file with one tensor. Papers call a picture harmful
above 0.7 or 0.9.
"""

from __future__ import annotations

import pickle
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..errors import ExpungeError, Pickled
from ..files import hash_file, read_tensors
from ..hub import located
from ..judge import Judge, Verdict
from ..vision import Look, hashed, look_of, opened


class Q16(Judge):
    kind: ClassVar[str] = "q16"
    about: ClassVar[str] = "inappropriate pictures, by Q16 on CLIP"

    embeddings: str = Field("q16.safetensors", description="file of the two embeddings, or owner/name:file on the hub")
    model: str = Field("openai/clip-vit-large-patch14", description="CLIP: a folder or a hub id")
    allow_pickle: bool = Field(False, description="open the authors' pickle, for its array alone")

    @cached_property
    def network(self) -> Any:
        return opened("CLIPModel", self.model, "the CLIP model")

    @cached_property
    def prepared(self) -> Look:
        return look_of(self.model, self.network.config.vision_config.image_size)

    @cached_property
    def file(self) -> Path:
        return located(self.embeddings, (".safetensors", ".p"))

    @cached_property
    def learned(self) -> Tensor:
        """(2, d), unit vectors."""
        found, width = read(self.file, self.allow_pickle), self.network.config.projection_dim
        if found.shape != (2, width):
            raise ExpungeError(
                f"{self.embeddings} is of shape {tuple(found.shape)}, not (2, {width}) as Q16 needs here"
            )
        return F.normalize(found.float(), dim=-1)

    def version(self) -> str:
        return f"{hashed(self.network)} {hash_file(self.file)}"

    @torch.no_grad()
    def look(self, images: Tensor) -> list[Verdict]:
        seen = self.network.to(images.device).get_image_features(self.prepared(images)).pooler_output.float()
        chances = (100 * F.normalize(seen, dim=-1) @ self.learned.to(images.device).T).softmax(1)
        return [{"inappropriate": p} for p in chances[:, 1].tolist()]

    def veils(self, verdict: Verdict) -> bool:  # noqa: ARG002
        """It is asked where pictures may be sensitive, and it errs."""
        return True


def read(path: Path, allow_pickle: bool) -> Tensor:
    """The embeddings. Raises ExpungeError if the file is missing, damaged, or a pickle that is not allowed."""
    try:
        return next(iter(read_tensors(path)[0].values()))
    except Pickled as error:
        if not allow_pickle:
            raise ExpungeError(f"{error}, or allow it (allow_pickle), which reads arrays alone") from error
    try:
        with path.open("rb") as file:
            return torch.from_numpy(np.asarray(Arrays(file).load(), dtype=np.float32))
    except Exception as error:  # the unpickler raises whatever it meets
        raise ExpungeError(f"{path} is no pickle of one array: {error}; nothing of it was run") from error


class Arrays(pickle.Unpickler):
    """Knows numpy's arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "_reconstruct": "multiarray",
            "ndarray": "numpy",
            "dtype": "numpy",
            "scalar": "multiarray",
            "_frombuffer": "numeric",
        }
        if module.split(".")[0] == "numpy" and name in known and module.endswith(known[name]):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")
