"""Random generators derived from (seed, purpose, rank, step): no global state, so a resumed run repeats itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, purpose: str, *, rank: int = 0, step: int = 0) -> int:
    """A 63-bit seed that is a pure function of its arguments."""
    text = f"{seed}/{purpose}/{rank}/{step}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def torch_rng(seed: int, purpose: str, *, rank: int = 0, step: int = 0) -> torch.Generator:
    """A CPU generator: noise is drawn on the CPU so that seeds mean the same on every device."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, rank=rank, step=step))


def numpy_rng(seed: int, purpose: str, *, rank: int = 0, step: int = 0) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(derive(seed, purpose, rank=rank, step=step))
