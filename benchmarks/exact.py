"""What attention in fp32 saves of a training step on a CPU, where all else is in bf16.

    python benchmarks/exact.py [--rounds 10]

The small world's denoiser, forward and backward through the weights that the presets train, with attention as it is
(`expunge.exact`) and in bf16, in turns in one process: milliseconds of a row, the median of the rounds, and the ratio
with its smallest and largest of a round. Below it attention alone, of other shapes, also of those that are left in
bf16. As many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from expunge.exact import ExactAttention
from expunge.families import load
from expunge.scope import select

BATCHES = (1, 4, 8, 20)
SHAPES = (
    (20, 4, 256, 256, 16),
    (20, 4, 256, 32, 16),
    (4, 8, 1024, 1024, 40),
    (1, 8, 4096, 4096, 40),
    (4, 8, 1024, 77, 40),
)
"""Rows, heads, places that ask, places or tokens that are asked, and the size of a head."""


def timed(work: Callable[[], torch.Tensor]) -> float:
    begun = time.perf_counter()
    work().backward()
    return 1000 * (time.perf_counter() - begun)


def line(name: str, rows: int, work: Callable[[bool], torch.Tensor], rounds: int) -> str:
    """A row of the table: `work` is asked for attention in fp32, or not."""
    pairs = [(timed(lambda: work(False)) / rows, timed(lambda: work(True)) / rows) for _ in range(rounds + 1)][1:]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    return (
        f"| {name} | {slow:.1f} | {fast:.1f} | {statistics.median(ratios):.2f}× [{ratios[0]:.2f}, {ratios[-1]:.2f}] |"
    )


def step(n: int) -> Callable[[bool], torch.Tensor]:
    """The small world's loss of n rows."""
    model = load("smallworld", device="cpu", precision="mixed")
    weights = {k: w.detach().requires_grad_() for k, w in select(model.networks(), "xattn", model.layout).items()}
    x_t, said = model.noise(n, torch.Generator().manual_seed(0)), model.encode(["a car"]).repeat(n)
    args, kwargs = model.denoise(x_t, torch.full((n,), 500), said)

    def loss(exact: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16), ExactAttention() if exact else nullcontext():
            out: torch.Tensor = torch.func.functional_call(model.denoiser, weights, args, kwargs)[0]
        return out.float().square().mean()

    return loss


def attention(n: int, heads: int, asking: int, asked: int, size: int) -> Callable[[bool], torch.Tensor]:
    """The sum of what attention of this shape gives."""
    q, k, v = (torch.randn(n, heads, m, size).bfloat16().requires_grad_() for m in (asking, asked, asked))

    def total(exact: bool) -> torch.Tensor:
        own = (x.float() if exact else x for x in (q, k, v))
        return F.scaled_dot_product_attention(*own).float().square().sum()

    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    print(f"| {torch.get_num_threads()} threads | bf16, ms a row | fp32, ms a row | ratio |\n|---|---|---|---|")
    for n in BATCHES:
        print(line(f"a training step of {n}", n, step(n), rounds), flush=True)
    for shape in SHAPES:
        rows, heads, asking, asked, size = shape
        name = f"attention alone: {rows} × {heads} heads of {size}, {asking:,} places to {asked:,}"
        print(line(name, rows, attention(*shape), rounds), flush=True)


if __name__ == "__main__":
    main()
