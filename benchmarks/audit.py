"""How long an audit takes: so many pictures of the small world for the base and for each of two edits, to its report.

    python benchmarks/audit.py [--pictures 2000] [--kill 60] [--json FILE]

The edits are closed forms, made first. With --kill the audit is killed by kill -9 after so many seconds and started
again; its time is both together. Prints seconds, pictures a second, what the kill cost, and checks that the scores are
the same as those of a second, untouched look at the same pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def expunge(*arguments: str, seconds: float | None = None) -> float:
    """Runs a command, or kills it after so many seconds; how long it took."""
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "expunge", *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return time.monotonic() - start


def scores(out: Path) -> object:
    return json.loads((out / "scores.json").read_text())["scores"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kill", type=float)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, edits = Path(folder) / "audit", [Path(folder) / f"{name}.safetensors" for name in ("car", "Marlow")]
        for path in edits:
            expunge("erase", path.stem, "--method", "uce-2024", "--out", str(path))
        asked = ["audit", "--limit", str(given.pictures), "--set", "images=100", "--out", str(out)]
        asked += [part for path in edits for part in ("--edit", str(path))]
        killed = expunge(*asked, seconds=given.kill) if given.kill else 0.0
        made = len(list((out / "images").glob("*.png")))
        took = killed + expunge(*asked)
        found, first = scores(out), (out / "report.html").stat().st_size
        again = expunge(*asked)
        row = {
            "pictures": 3 * given.pictures, "seconds": round(took), "a second": round(3 * given.pictures / took, 1),
            "made before the kill": made, "again": round(again), "same scores": scores(out) == found,
            "page, MB": round(first / 1e6, 1),
        }  # fmt: skip
    print("  ".join(f"{k}: {v}" for k, v in row.items()))
    if given.json:
        given.json.write_text(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
