"""How fast audits' pictures are made: expunge.generate against the stock pipeline called prompt by prompt.

    python benchmarks/generation.py [--pictures 64] [--steps 25] [--rounds 3] [--json FILE]

The small world's captions, each with a seed of its own; the same scheduler, steps, guidance scale, prompts and seeds on
both sides, both from noise to PNG files. Each round runs the stock pipeline as `from_pretrained` opens it (fp32), the
same under the bf16 autocast that "mixed" is, and expunge.generate in both precisions. Printed are medians over the
rounds of pictures a second and of the ratios to the stock pipeline of the same round, and how far the pictures are from
the stock fp32 pipeline's: the largest and the mean difference of a channel of a pixel, in steps of 1/255, and of how
many the world's judge reads every attribute alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from expunge import smallworld
from expunge.families import load
from expunge.generation import Request, Settings, generate
from expunge.model import Model, quiet
from expunge.smallworld.judge import load_judge
from expunge.smallworld.scene import ARTISTS, COLOURS, OBJECTS, PLACES, describe

STOCK = "stock, fp32"
Run = Callable[[Path], Sequence[Path]]


def asked(pictures: int) -> list[Request]:
    """Distinct captions, as protocols ask for them."""
    texts = [
        describe(o, colour=c, place=p, artist=a) for a in ARTISTS for o in OBJECTS for c in COLOURS for p in PLACES
    ]
    return [Request(text, seed) for seed, text in enumerate(texts[:: max(1, len(texts) // pictures)][:pictures])]


def stock(requests: Sequence[Request], settings: Settings, mixed: bool) -> Run:
    """diffusers as its documentation has it, a prompt at a time."""
    from diffusers import DiffusionPipeline

    with quiet():
        pipeline = DiffusionPipeline.from_pretrained(smallworld.path(), safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def run(out: Path) -> list[Path]:
        paths = [out / f"{i}.png" for i in range(len(requests))]
        for request, path in zip(requests, paths, strict=True):
            rng = torch.Generator().manual_seed(request.seed)
            with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
                made = pipeline(
                    request.prompt, num_inference_steps=settings.steps, guidance_scale=settings.cfg, generator=rng
                )
            made.images[0].save(path)
        return paths

    return run


def ours(model: Model, requests: Sequence[Request], settings: Settings) -> Run:
    return lambda out: [out / row["file"] for row in generate(model, requests, settings, out)]


def timed(run: Run) -> tuple[float, np.ndarray[Any, Any]]:
    """Seconds, and the pictures (n, H, W, 3) that are on the disk after them."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        paths = run(Path(folder))
        took = time.monotonic() - start
        return took, np.stack([np.asarray(Image.open(path)) for path in paths]).astype(int)


@torch.no_grad()
def read(pictures: np.ndarray[Any, Any]) -> list[list[int]]:
    """What the judge sees in each picture, attribute by attribute."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.stack([scores.argmax(1) for scores in load_judge(smallworld.path())(pixels).values()], 1).tolist()


def row(name: str, runs: Sequence[dict[str, Any]], pictures: int) -> dict[str, Any]:
    """Medians over the rounds."""
    own, plain = runs[-1][name][1], runs[-1][STOCK][1]
    apart, alike = np.abs(own - plain), sum(a == b for a, b in zip(read(own), read(plain), strict=True))
    ratios = [run[STOCK][0] / run[name][0] for run in runs]
    return {
        "name": name, "a second": statistics.median(pictures / run[name][0] for run in runs),
        "ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)],
        "largest": int(apart.max()), "mean": float(apart.mean()), "alike": alike,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    requests, settings = asked(given.pictures), Settings(steps=given.steps)
    runs: dict[str, Run] = {STOCK: stock(requests, settings, False), "stock, mixed": stock(requests, settings, True)}
    for precision in ("fp32", "mixed"):
        runs[f"expunge, {precision}"] = ours(load("smallworld", precision=precision), requests, settings)
    for warm in (stock(requests[:1], settings, True), ours(load(), requests[:1], settings)):
        timed(warm)
    done = [{name: timed(run) for name, run in runs.items()} for _ in range(given.rounds)]
    rows = [row(name, done, len(requests)) for name in runs]
    print(f"{len(requests)} pictures of {settings.steps} steps, {torch.get_num_threads()} threads")
    print(f"{'':15} pictures/s  times the stock's     apart: largest  mean, of 255  judged alike")
    for r in rows:
        low, high = r["range"]
        print(
            f"{r['name']:15} {r['a second']:10.2f}  {r['ratio']:5.2f} [{low:.2f}, {high:.2f}]"
            f" {r['largest']:16} {r['mean']:8.4f} {r['alike']:12}"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
