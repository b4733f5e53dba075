"""The small world: an embedded miniature of Stable Diffusion in which every concept has an exact judge."""

from __future__ import annotations

from pathlib import Path

from ..errors import ExpungeError


def path() -> Path:
    """The folder of the shipped pipeline, which `DiffusionPipeline.from_pretrained` loads; `judge` lies beside it."""
    folder = Path(__file__).parent / "weights"
    if not (folder / "model_index.json").is_file():
        raise ExpungeError("the small world's weights are not installed; build them with `expunge world build`")
    return folder


def gold() -> Path:
    """The folder of the gold standard's denoiser: the same training on drawings that never show the hazard sign."""
    return path() / "unet_gold"
