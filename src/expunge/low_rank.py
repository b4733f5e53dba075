"""LoRA, low-rank adaptation (Hu et al. 2021, arXiv 2106.09685).

    W = W₀ + B A        A (r, in), B (out, r), B = 0 at the start

A convolution's kernel (out, in, k, k) counts as the matrix (out, in·k·k): A has shape (r, in, k, k), as in peft.
The scale α/r is 1. Vectors (biases, norms) have no rank and stay. peft's own layers would have to sit in the network,
which here is teacher and student at once, by two sets of weights; peft loads what is exported, and tests hold it equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

A, B = ".lora_A", ".lora_B"


def product(a: Tensor, b: Tensor) -> Tensor:
    """B A in the shape of the weight."""
    return (b.flatten(1) @ a.flatten(1)).view(len(b), *a.shape[1:])


def start(name: str, weight: Tensor, rank: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Factors of a matrix: A uniform in ±√(1/in) (Kaiming with a = √5, as peft), B zero."""
    bound = 1 / math.sqrt(weight[0].numel())
    a = (torch.rand((rank, *weight.shape[1:]), generator=rng) * 2 - 1) * bound
    b = torch.zeros((len(weight), rank, *(1 for _ in weight.shape[2:])))
    return {name + A: a.to(weight.device), name + B: b.to(weight.device)}


def truncate(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best A, B of that rank (Eckart & Young 1936), and the relative error ‖Δ − B A‖ / ‖Δ‖ that remains."""
    u, s, v = torch.linalg.svd(delta.flatten(1).double(), full_matrices=False)
    root = s[:rank].sqrt()
    left = float((s[rank:].square().sum() / s.square().sum().clamp(min=1e-300)).sqrt())
    a, b = (root[:, None] * v[:rank]).float(), (u[:, :rank] * root).float()
    return a.view(len(a), *delta.shape[1:]), b.view(*b.shape, *(1 for _ in delta.shape[2:])), left
