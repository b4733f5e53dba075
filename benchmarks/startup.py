"""How long until expunge does something: `--help` until it is printed, `erase` on the small world until it learns.

    python benchmarks/startup.py [--rounds 5] [--json FILE]

In each round, one after the other, each in a process of its own: `expunge --help`; the libraries alone (torch and
diffusers' pipeline, which are what they are); and `expunge erase car` by the preset smallworld-object until it tells
its cost (libraries and model are there, and a pass was timed), and until the first gradient step is done (the preset's
58 clean latents are rolled out by then). Printed are the least, the median and the most seconds of each.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOALS = {"--help": 0.3, "first gradient step": 6.0}
LIBRARIES = "import torch; from diffusers import StableDiffusionPipeline"


def seconds(*arguments: str) -> float:
    """How long Python takes for that."""
    start = time.monotonic()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.monotonic() - start


def erase() -> dict[str, float]:
    """Seconds until the cost is told and until the progress bar counts a step, as one reads them on the terminal."""
    start, marks, seen = time.monotonic(), {}, ""
    waits = {"cost told": "network passes", "first gradient step": r" [1-9]\d*/\d+ \["}
    with tempfile.TemporaryDirectory() as folder:
        out = ["--method", "smallworld-object", "--out", f"{folder}/car.safetensors"]
        command = [sys.executable, "-m", "expunge", "erase", "car", *out]
        with subprocess.Popen(command, stderr=subprocess.PIPE, bufsize=0) as process:
            assert process.stderr
            while len(marks) < len(waits) and (more := process.stderr.read(4096)):
                seen += more.decode(errors="ignore")
                marks |= {
                    k: time.monotonic() - start for k, v in waits.items() if k not in marks and re.search(v, seen)
                }
            process.terminate()
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rounds = [
        {"--help": seconds("-m", "expunge", "--help"), "libraries alone": seconds("-c", LIBRARIES), **erase()}
        for _ in range(given.rounds)
    ]
    rows = []
    for name in rounds[0]:
        took = [r[name] for r in rounds]
        rows.append({"name": name, "median": statistics.median(took), "range": [min(took), max(took)]})
        goal = f"goal {GOALS[name]} s" if name in GOALS else ""
        print(f"{name:20} {min(took):6.2f} {rows[-1]['median']:6.2f} {max(took):6.2f} s  {goal}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
