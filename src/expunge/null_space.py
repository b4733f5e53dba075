"""Null space: weights that read the text learn only what fixed captions can hardly see.

    W = W₀ + ΔW (I − V Vᵀ)        so that ‖(W − W₀) e‖ ≤ τ ‖W − W₀‖ ‖e‖ for every token embedding e of the captions

V (d, r) are the leading right singular vectors of the captions' token embeddings (n, d), as few as leave no embedding
more than τ of its length: the approximate null space of Adam-NSCL (Wang et al. 2021, arXiv 2103.07113), there of a
network's earlier tasks, here of what must be read as before. A bias is read by every caption, so it stays.

The first token of a causal text encoder has the same embedding in every caption, the empty one included, and padding's
lie near each other. That steps along those, which all predictions share, are what made an erasure wander is a guess;
that fixing the empty caption helped is measured (docs/speed.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .errors import ExpungeError
from .model import Model

TAU = 0.1


def projector(embeddings: Tensor) -> Tensor:
    """I − V Vᵀ (d, d) in fp32 on the CPU, of the embeddings (n, d)."""
    e = embeddings.cpu().double()
    vectors = torch.linalg.svd(e, full_matrices=False).Vh
    along = (e @ vectors.T).square()
    left = along.sum(1, keepdim=True) - along.cumsum(1)  # of ‖e‖², after so many vectors
    v = vectors[: int((left > TAU**2 * along.sum(1, keepdim=True)).any(0).sum()) + 1]
    free: Tensor = torch.eye(e.shape[1], dtype=e.dtype) - v.T @ v
    return free.float()


def readers(model: Model, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Those of the weights that read the text, and which of its embeddings. Raises ExpungeError if there are none."""
    found = {name: source for part, source in model.layout.reads.items() for name in weights if part in name}
    if not found:
        raise ExpungeError(
            "fixed captions need weights that read the text itself, and the scope has none; leave fixed out, or use a"
            " scope such as reads-text"
        )
    return found


def projectors(model: Model, weights: Mapping[str, Tensor], captions: Sequence[str]) -> dict[str, Tensor]:
    """What the changes of those that read the text are multiplied with, each where its weight is."""
    reads, said = readers(model, weights), model.encode(captions).tensors
    free = {source: projector(said[source].flatten(0, -2)) for source in {*reads.values()}}
    return {
        name: free[source].to(weights[name].device) if weights[name].ndim > 1 else still(weights[name])
        for name, source in reads.items()
    }


def still(bias: Tensor) -> Tensor:
    """The projector (n, n) of what does not move at all."""
    return torch.zeros(1, 1, device=bias.device).expand(len(bias), len(bias))
