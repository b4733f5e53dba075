"""Null space: weights that read the text learn only what fixed captions cannot see.

    W = W₀ + ΔW (I − V Vᵀ)        so that W e = W₀ e for every embedding e in the span of V

V (d, r) are the right singular vectors of the captions' token embeddings (n, d) whose singular value is above TOLERANCE
of the largest: the approximate null space of Adam-NSCL (Wang et al. 2021, arXiv 2103.07113), there of a network's
earlier tasks, here of what must be read as before. A bias is read by every caption, so it stays.

Nearly every caption begins and ends in the embeddings of the empty one, which are also the largest. A step of Adam's
along them changes every prediction; across them, the concept's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .errors import ExpungeError
from .model import Model

TOLERANCE = 0.05


def projector(embeddings: Tensor) -> Tensor:
    """I − V Vᵀ (d, d) in fp32, of the embeddings (n, d)."""
    _, values, vectors = torch.linalg.svd(embeddings.double(), full_matrices=False)
    v = vectors[values > TOLERANCE * values.max()]
    free: Tensor = torch.eye(v.shape[1], dtype=v.dtype, device=v.device) - v.T @ v
    return free.float()


def projectors(model: Model, weights: Mapping[str, Tensor], captions: Sequence[str]) -> dict[str, Tensor]:
    """Of those weights that read the text, what their changes are multiplied with.

    Raises ExpungeError if there are none.
    """
    found = model.encode(captions).tensors
    free = {source: projector(found[source].flatten(0, -2)) for source in {*model.layout.reads.values()}}
    reads = {name: source for part, source in model.layout.reads.items() for name in weights if part in name}
    if not reads:
        raise ExpungeError(
            "fixed captions need weights that read the text itself, and the scope has none; leave fixed out, or use a"
            " scope such as reads-text"
        )
    return {name: free[source] if weights[name].ndim > 1 else still(weights[name]) for name, source in reads.items()}


def still(bias: Tensor) -> Tensor:
    """The projector (n, n) of what does not move at all."""
    return torch.zeros(1, 1, device=bias.device).expand(len(bias), len(bias))
