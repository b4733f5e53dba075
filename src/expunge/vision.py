"""What vision networks of transformers need: weights by path or hub id, and pictures of their size and colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import smallworld
from .errors import ExpungeError
from .files import hash_tensors, home, parsed
from .model import quiet


@dataclass(frozen=True)
class Look:
    """Side in pixels, and the mean and standard deviation of each channel, of values in [0, 1]."""

    side: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, H, W) in [-1, 1] as the network sees them: the shorter side resized, the middle cut out."""
        x = images.float()
        h, w = x.shape[2:]
        scale = self.side / min(h, w)
        if scale != 1:
            size = [max(self.side, round(k * scale)) for k in (h, w)]
            x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        top, left = ((k - self.side) // 2 for k in x.shape[2:])
        x = (x[:, :, top : top + self.side, left : left + self.side] + 1) / 2
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std


def where(model: str) -> str:
    """The small world's own CLIP, a local folder, or a hub id."""
    return str(smallworld.sound("clip") / "clip") if model == "smallworld" else str(home(model))


@cache
def opened(kind: str, model: str, what: str) -> Any:
    """A network of transformers' class `kind`, in fp32, or its tokenizer: the same object each time.

    Raises ExpungeError if it cannot be had, or holds pickles only.
    """
    import transformers

    more = {} if "Tokenizer" in kind else {"dtype": torch.float32, "use_safetensors": True}
    try:
        with quiet():
            found = getattr(transformers, kind).from_pretrained(where(model), **more)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExpungeError(
            f"cannot open {what} {model!r}: {reason}; give a folder with safetensors or a hub id"
        ) from error
    return found.eval().requires_grad_(False) if isinstance(found, torch.nn.Module) else found


def look_of(model: str, side: int, folder: str = "") -> Look:
    """How the model's pictures are prepared: by its preprocessor_config.json, in that folder of it, if there is one."""
    from transformers.utils.hub import cached_file

    optional = {"_raise_exceptions_for_missing_entries": False}
    file = cached_file(where(model), "preprocessor_config.json", subfolder=folder, **optional)
    if file is None:
        return Look(side)
    about = parsed(Path(file).read_bytes(), file)
    try:
        return Look(side, *(tuple(map(float, about.get(f"image_{key}", (0.5,) * 3))) for key in ("mean", "std")))
    except (AttributeError, TypeError, ValueError) as error:
        raise ExpungeError(f"{file} says no means and deviations: {error}; download the model again") from error


@cache
def hashed(network: torch.nn.Module) -> str:
    """A hash of the weights."""
    return hash_tensors(dict(network.state_dict()))[:16]
