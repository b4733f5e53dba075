"""How far names are from each other in a model's own text encoders.

distance(a, b) = 1 − cos(m_a, m_b),   m the mean embedding of a text's own tokens
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..attention import tokens
from ..model import Model


@torch.no_grad()
def embedded(model: Model, texts: Sequence[str]) -> Tensor:
    """(n, d), of unit length."""
    rows = [model.encode([text]).tensors["text"][0].float() for text in texts]
    return F.normalize(
        torch.stack([row[tokens(model, text).to(row.device)].mean(0) for row, text in zip(rows, texts, strict=True)])
    )


def distances(model: Model, texts: Sequence[str], erased: Sequence[str]) -> dict[str, float]:
    """Of each text from the nearest of the erased; none where either are."""
    if not texts or not erased:
        return {}
    nearest = (embedded(model, texts) @ embedded(model, erased).T).max(1).values
    return {text: 1 - float(cosine) for text, cosine in zip(texts, nearest, strict=True)}
