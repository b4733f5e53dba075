"""Whether a long run leaks: resident memory after 2,000 steps against that after 200, on the small world.

    python benchmarks/leak.py [--steps 2000] [--json FILE]

By `erasure.run`, as `expunge erase` does it, with its log and snapshots, for each trajectory and with captions to keep.
Goal: within 2%.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from expunge.concept import Concept
from expunge.erasure import run
from expunge.families import load
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.training import Trainer

PAGE = 4096


def resident() -> int:
    """Bytes of this process in memory."""
    return PAGE * int(Path("/proc/self/statm").read_text().split()[1])


def held(model: Model, trajectory: str, steps: int) -> dict[str, Any]:
    method = ESD(steps=steps, grid=5, latents=4, trajectory=trajectory, keep=("a cat", "a boat"), keep_batch=1)  # type: ignore[arg-type]
    found: dict[int, int] = {}

    def look(trainer: Trainer, _: float) -> None:
        if trainer.step in (steps // 10, steps):
            found[trainer.step] = resident()

    with tempfile.TemporaryDirectory() as folder:
        run(model, method, [Concept(name="car")], Path(folder) / "car.safetensors", on_step=look)
    early, late = found.values()
    return {"trajectory": trajectory, "steps": steps, "early": early, "late": late, "growth": late / early - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load("smallworld")
    rows = [held(model, trajectory, options.steps) for trajectory in ("fresh", "pool", "renoised")]
    print(f"{'x_t from':10} MiB after {options.steps // 10:5} steps  after {options.steps:5}  growth")
    for row in rows:
        print(f"{row['trajectory']:10} {row['early'] / 2**20:21.0f} {row['late'] / 2**20:12.0f}  {row['growth']:+.2%}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
