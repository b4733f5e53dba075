"""Network passes of a training sample, counted at the denoiser: published loops against the defaults.

    python benchmarks/passes.py [--window 200] [--only PRESET]... [--json FILE]

A hook on the denoiser counts the rows of each forward, and two more for each when a gradient comes back; the
library's own meter must have counted the same, or the script fails. Start-up (latents and pictures that are rolled out
once) is in the first step's count. A preset of N steps is run for `--window` steps at most and the rest composed: first
step + (N − 1) × the mean of the others. Those others are all alike, or, where each sample has a rollout of its own,
independent draws: then the 95% interval of their mean is printed, and what their expected value is. A sample is a row
of a gradient step. "again": pictures kept on the disk by an earlier run. Counts do not depend on weights, so the
denoiser is a tiny random one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy import stats
from torch import nn
from torch.autograd.graph import register_multi_grad_hook

from expunge.concept import Concept
from expunge.erasure import build_method
from expunge.families import around, load
from expunge.method import Trained
from expunge.model import Model
from expunge.recipe import preset

PAIRS = {"esd-2023": "esd-x", "esd-x-3": "smallworld-quick", "esd-u-3": "esd-u", "sdd-2023": "sdd-x"}
"""Published loops of fresh rollouts, and what stands for each."""
DRAWN = ("ablation-style-2023", "ablation-object-2023", "forget-me-not-2023")
"""Published loops that draw pictures once: the defaults themselves."""
GOALS = {"esd-x": 5.5, "smallworld-quick": 5.5, "esd-u": 5.5, "sdd-x": 6.5}
MORE: dict[str, dict[str, Any]] = {"ablation-style-2023": {"prompts": ("a cat [by {}]", "a house [by {}]")}}


def tiny() -> Model:
    """The small world with a tiny denoiser."""
    from diffusers import UNet2DConditionModel

    pipeline = load("smallworld", precision="fp32").pipeline
    pipeline.unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, attention_head_dim=2,
        cross_attention_dim=128, norm_num_groups=4,
    ).eval().requires_grad_(False)  # fmt: skip
    return around(pipeline)


class Counter:
    """Passes through a network, by hooks."""

    def __init__(self, network: nn.Module) -> None:
        self.passes = 0
        network.register_forward_hook(self.forward)

    def forward(self, network: nn.Module, _: Any, output: Any) -> None:
        rows = len(output[0])
        self.passes += rows
        if output[0].requires_grad:
            learning = [p for p in network.parameters() if p.requires_grad]  # `predict` lends them
            self.handle = register_multi_grad_hook(learning, lambda _: self.backward(rows), mode="any")

    def backward(self, rows: int) -> None:
        self.passes += 2 * rows
        self.handle.remove()


def counted(model: Model, method: Trained, concept: Concept) -> list[int]:
    """Passes of each step. Raises AssertionError where the library's meter counts otherwise."""
    counter, before, marks = Counter(model.denoiser), model.meter.passes, [0]
    method.fit(model, [concept], on_step=lambda *_: marks.append(counter.passes))
    assert marks[-1] == model.meter.passes - before, (marks[-1], model.meter.passes - before)
    return [b - a for a, b in pairwise(marks)]


def row(model: Model, name: str, window: int, again: bool = False) -> dict[str, Any]:
    """Passes for each sample of a preset's whole run."""
    whole = build_method(preset(name), MORE.get(name, {}))
    assert isinstance(whole, Trained)
    concept = Concept(name="cat", anchor="boat") if name == "ablation-object-2023" else Concept(name="cat")
    first, *rest = counted(model, whole.model_copy(update={"steps": min(whole.steps, window)}), concept)
    mean = statistics.mean(rest)
    half = stats.t.ppf(0.975, len(rest) - 1) * statistics.stdev(rest) / math.sqrt(len(rest))
    samples = whole.steps * whole.batch
    return {
        "preset": name, "again": again, "steps": whole.steps, "batch": whole.batch, "window": len(rest) + 1,
        "first": first, "each": mean / whole.batch, "half": half / whole.batch,
        "expected": whole.passes([concept]) / samples,
        "sample": (first + (whole.steps - 1) * mean) / samples,
    }  # fmt: skip


def told(row: dict[str, Any], reference: float | None = None) -> str:
    ratio = f"{reference / row['sample']:.1f}x fewer" if reference else ""
    goal = f"goal {GOALS[row['preset']]}" if row["preset"] in GOALS else ""
    name = row["preset"] + (" again" if row["again"] else "")
    return (
        f"{name:27} {row['steps']:5} × {row['batch']}  counted {row['window']:4} steps, first {row['first']:6}, others"
        f" {row['each']:5.2f} ± {row['half']:.2f} a sample;  {row['sample']:6.2f} a sample"
        f" (announced {row['expected']:6.2f})  {ratio:12} {goal}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--only", action="append", choices=[*PAIRS, *DRAWN], help="published presets")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    model, rows = tiny(), []
    for published, default in PAIRS.items():
        if published in (given.only or PAIRS):
            rows += [row(model, published, given.window), row(model, default, given.window)]
            print(told(rows[-2]), told(rows[-1], rows[-2]["sample"]), sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model.cache = Path(folder)
        for name in DRAWN:
            if name in (given.only or DRAWN):
                rows += [row(model, name, given.window), row(model, name, given.window, again=True)]
                print(told(rows[-2]), told(rows[-1], rows[-2]["sample"]), sep="\n", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
