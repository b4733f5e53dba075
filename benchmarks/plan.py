"""What a thousand concepts cost on a cluster, on paper: counted passes and operations, and stated assumptions.

    python benchmarks/plan.py [--concepts 1000] [--pictures 30000] [--use 0.35] [--peak 989e12] [--price 3]

Counted here: operations of one pass of the denoiser (PyTorch's FlopCounterMode on networks of the published shapes
without weights, 512 px for Stable Diffusion 1 and 1024 px for XL), and of a picture's decoding. From the presets:
passes of an erasure, as `expunge erase` tells them beforehand. Assumed, and to be replaced by what your own cluster
does: the share of a GPU's peak that such networks reach (--use), that peak in operations a second (--peak: an H100's,
dense bf16), and the price of an hour (--price). A row of an audit is one model's pictures of 50 steps under guidance,
100 passes each; the base's row is made once for all edits on the same prompts and seeds. Judging is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from size import sd1, sdxl
from torch.utils.flop_counter import FlopCounterMode

from expunge.concept import Concept
from expunge.erasure import build_method
from expunge.recipe import preset

STEPS = 50
SIZES: dict[str, tuple[Callable[[], Any], int]] = {"SD 1": (sd1, 64), "SDXL": (sdxl, 128)}
PRESETS = ("esd-2023", "esd-x", "sdd-2023", "sdd-x", "uce-2024")
Row = dict[str, Any]


def operations(make: Callable[[], Any], side: int) -> tuple[float, float]:
    """Of one pass of the denoiser, and of decoding one picture."""
    with torch.device("meta"):
        pipeline = make()
        x, t = torch.empty(1, 4, side, side), torch.tensor(1)
        texts = torch.empty(1, 77, pipeline.unet.config.cross_attention_dim)
        more = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
    return counted(lambda: pipeline.unet(x, t, texts, added_cond_kwargs=more)), counted(lambda: pipeline.vae.decode(x))


def counted(run: Callable[[], Any]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def passes(name: str) -> int:
    """Of one erasure."""
    return build_method(preset(name), {}).passes([Concept(name="a")])


def rows(a_pass: float, decoding: float, concepts: int, pictures: int) -> list[Row]:
    """Operations of each job."""
    a_picture = 2 * STEPS * a_pass + decoding
    found = [
        {"job": f"{concepts} erasures by {name}", "operations": concepts * passes(name) * a_pass}
        for name in PRESETS
        if passes(name)
    ]
    found.append({"job": f"one row of {pictures} pictures", "operations": pictures * a_picture})
    found.append({"job": f"the base's row and {concepts} more", "operations": (concepts + 1) * pictures * a_picture})
    small = 300
    found.append({"job": f"{concepts + 1} rows of {small} pictures", "operations": (concepts + 1) * small * a_picture})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=30000)
    parser.add_argument("--use", type=float, default=0.35)
    parser.add_argument("--peak", type=float, default=989e12)
    parser.add_argument("--price", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table: list[Row] = []
    for size, (make, side) in SIZES.items():
        a_pass, decoding = operations(make, side)
        print(f"{size}: {a_pass / 1e12:.2f} T operations a pass, {decoding / 1e12:.2f} T a decoding")
        for row in rows(a_pass, decoding, options.concepts, options.pictures):
            hours = row["operations"] / (options.use * options.peak) / 3600
            print(f"  {row['job']:36} {hours:12,.2f} GPU hours {hours * options.price:14,.0f} in money")
            table.append({"size": size, **row, "hours": hours, "money": hours * options.price})
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
