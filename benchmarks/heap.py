"""What it saves on a CPU that commands keep freed memory for what comes next (`expunge.heap`).

    python benchmarks/heap.py [--rounds 5] [--rows 64 20]

The small world's denoiser in processes that take turns, with it and without, of as many threads as OMP_NUM_THREADS
says: milliseconds of a row, the least of a few; of the kernel's processor time for it; and pages that were asked for,
medians of the rounds; and the ratio of the first with its smallest and largest of a round. First a pass as of pictures,
of the first number of rows; then one with its backward pass, of the second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from expunge.families import load
from expunge.heap import keep_freed

TIMES = 12


def spent(work: Callable[[], object], rows: int) -> tuple[float, float, float]:
    """Milliseconds at least, the kernel's on the mean, and pages that were asked for, of a row."""
    work()
    before, took = resource.getrusage(resource.RUSAGE_SELF), list[float]()
    for _ in range(TIMES):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    after, n = resource.getrusage(resource.RUSAGE_SELF), TIMES * rows
    kernel, pages = after.ru_stime - before.ru_stime, after.ru_minflt - before.ru_minflt
    return 1000 * min(took) / rows, 1000 * kernel / n, pages / n


def measured(rows: list[int]) -> list[tuple[float, float, float]]:
    """Of a pass, and of one with its backward pass."""
    model = load("smallworld", device="cpu")
    weights = {k: w.detach().requires_grad_() for k, w in model.parameters().items()}

    def loss(n: int) -> torch.Tensor:
        x_t, said = model.noise(n, torch.Generator().manual_seed(0)), model.encode(["a car"]).repeat(n)
        return model.predict(x_t, torch.full((n,), 500), said, weights).square().mean()

    with torch.no_grad():
        first = spent(lambda: loss(rows[0]), rows[0])
    return [first, spent(lambda: loss(rows[1]).backward(), rows[1])]


def asked(keep: bool, rows: list[int]) -> list[list[float]]:
    """As another process measures it."""
    command = [sys.executable, __file__, "--one", str(int(keep)), "--rows", *map(str, rows)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found: list[list[float]] = json.loads(subprocess.run(command, env=env, capture_output=True, check=True).stdout)
    return found


def line(name: str, pairs: list[tuple[list[float], list[float]]]) -> str:
    ratios = sorted(a[0] / b[0] for a, b in pairs)
    told = [[statistics.median(column) for column in zip(*side, strict=True)] for side in zip(*pairs, strict=True)]
    cells = " | ".join(f"{least:.1f} ({kernel:.1f}; {pages:,.0f})" for least, kernel, pages in told)
    return f"| {name} | {cells} | {statistics.median(ratios):.2f}× [{ratios[0]:.2f}, {ratios[-1]:.2f}] |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs=2, default=[64, 20])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        if options.one:
            keep_freed()
        print(json.dumps(measured(options.rows)))
        return
    rounds = [(asked(False, options.rows), asked(True, options.rows)) for _ in range(options.rounds)]
    print("| ms a row (the kernel; pages) | given back | kept | ratio |\n|---|---|---|---|")
    names = (f"a pass of {options.rows[0]}", f"forward and backward of {options.rows[1]}")
    for k, name in enumerate(names):
        print(line(name, [(a[k], b[k]) for a, b in rounds]))


if __name__ == "__main__":
    main()
