"""A command line that waits: a process with everything imported, which runs the first one that it is told.

python -m expunge.cli.spare: a line of JSON on stdin, [arguments, folder], is run in that folder as `expunge ARGUMENTS`.
There it leaves what was said in told.txt, and in the end its exit status in end.json; while it runs, its process id is
in pid, and the folder's "job" is locked. If stdin ends first, so does it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ..collecting import uncollected
from ..files import write_json, write_text
from ..lock import locked
from . import main

KINDNESS = 5
"""By how much it is nicer than who answers people."""


def warm() -> None:
    """Imports what commands import: opening the small world does."""
    with uncollected():
        from .. import auditing, erasure, formats, report  # noqa: F401
        from ..families import load

        load("smallworld", device="cpu")


def run(arguments: Sequence[str], folder: Path) -> int:
    """The command's exit status."""
    os.chdir(folder)
    with locked(Path("job")):
        write_text(Path("pid"), str(os.getpid()))
        told = os.open("told.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(told, 1)
        os.dup2(told, 2)
        code = status(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        write_json(Path("end.json"), {"code": code})
    return code


def status(arguments: Sequence[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    return 1


if __name__ == "__main__":
    os.nice(KINDNESS)
    warm()
    line = sys.stdin.readline()
    if line:
        wanted, place = json.loads(line)
        sys.exit(run(wanted, Path(place)))
