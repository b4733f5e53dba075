"""What guidance costs beside plain classifier-free guidance: network passes and time, as ratios in one run.

    python benchmarks/guidance.py [--steps 50] [--batch 8] [--rounds 5] [--json FILE]

Each round samples the same noise plainly, under each preset, and by diffusers' deprecated pipelines in turn; printed
are medians over the rounds of the ratio to the plain run of the same round, and their range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from expunge.families import load
from expunge.generation import Settings, passes, rollout
from expunge.guidance import PRESETS, guidance
from expunge.model import Model
from expunge.steering import Steering

CONCEPT = "hazard sign"
PROMPT = "a red car in the city"


def ours(model: Model, settings: Settings, batch: int) -> Callable[[], Any]:
    steering = Steering.of(model, settings.guidance)
    prompts = model.encode([PROMPT] * batch)

    def run() -> None:
        rollout(model, prompts, steering, [torch.Generator().manual_seed(i) for i in range(batch)], settings)

    return run


def theirs(model: Model, name: str, settings: Settings, batch: int, **more: Any) -> Callable[[], Any]:
    """A deprecated pipeline of diffusers on the same networks; it decodes as well, a small part of its time."""
    import diffusers

    parts = {k: getattr(model.pipeline, k) for k in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    with warnings.catch_warnings(action="ignore"):
        pipeline = getattr(diffusers, name)(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.safety_concept = CONCEPT

    def run() -> None:
        seeds = [torch.Generator().manual_seed(i) for i in range(batch)]
        how = {"num_inference_steps": settings.steps, "guidance_scale": settings.cfg, "generator": seeds}
        with warnings.catch_warnings(action="ignore"):
            pipeline([PROMPT] * batch, **how, output_type="np", **more)

    return run


def seconds(run: Callable[[], Any]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load("smallworld", device="cpu", precision="fp32")
    plain = Settings(steps=options.steps)
    asked = {"plain": plain} | {n: Settings(steps=options.steps, guidance=(guidance(n, [CONCEPT]),)) for n in PRESETS}
    runs = {name: ours(model, settings, options.batch) for name, settings in asked.items()}
    runs["diffusers' SLD"] = theirs(model, "StableDiffusionPipelineSafe", plain, options.batch)
    runs["diffusers' SEGA"] = theirs(
        model, "SemanticStableDiffusionPipeline", plain, options.batch,
        editing_prompt=[CONCEPT], reverse_editing_direction=[True],
    )  # fmt: skip
    runs["plain"]()
    times = [{name: seconds(run) for name, run in runs.items()} for _ in range(options.rounds)]
    rows = []
    for name in runs:
        ratios = [t[name] / t["plain"] for t in times]
        count = passes(1, asked[name]) / passes(1, plain) if name in asked else None
        rows.append(
            {"name": name, "passes": count, "ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
        )
        told = f"{count:.2f}" if count else "1.50"
        print(
            f"{name:18} passes {told}  time {rows[-1]['ratio']:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
