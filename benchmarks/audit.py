"""How long an audit takes: so many pictures of the small world for the base and for each of two edits, to its report.

    python benchmarks/audit.py [--pictures 2000] [--kill 60] [--json FILE]

The edits are closed forms, made first. With --kill the audit is killed by kill -9 after so many seconds and started
again, and the seconds are those of both; without, it runs through. Prints the seconds and pictures a second, and the
seconds of a second audit, which finds every picture and verdict there. That a kill changes no score is tested
(tests/test_audit.py).
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
        took = killed + expunge(*asked)
        count, page = json.loads((out / "scores.json").read_text())["pictures"], (out / "report.html").stat().st_size
        row = {
            "pictures": 3 * count, "seconds": round(took), "a second": round(3 * count / took, 1),
            "again, seconds": round(expunge(*asked)), "page, kB": page // 1000,
        }  # fmt: skip
    print("  ".join(f"{k}: {v}" for k, v in row.items()))
    if given.json:
        given.json.write_text(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
