"""A process with everything imported and the small world open: by forking it starts command lines in milliseconds.

Each line on stdin is a JSON list of arguments and the file of stdout and stderr. It answers the child's process id,
then, once that has ended, its exit status (negative: the signal that killed it).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401

from expunge import auditing, demo, erasure, families, formats, report, sweep  # noqa: F401
from expunge.cli import main


def run(arguments: list[str], told: Path) -> None:
    """In the child: the command, with what it says in a file."""
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)  # makes its pool anew while it has one thread: several at once find none (PyTorch's race)
    try:
        main(arguments)
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))  # the parent's threads are not the child's to end


def say(value: int) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    opened = families.load("smallworld", precision="fp32")
    families.load = lambda *_, **__: opened  # type: ignore[assignment]
    say(0)
    for line in sys.stdin:
        arguments, told = json.loads(line)
        child = os.fork()
        if child == 0:
            run(arguments, Path(told))
        say(child)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
