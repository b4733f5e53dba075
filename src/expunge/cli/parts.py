"""How work is divided: by --shard, among torchrun's processes, or over a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExpungeError, unknown
from .app import processes, say, show

if TYPE_CHECKING:
    from ..cluster import Job
    from ..model import Model

Shard = Annotated[str, typer.Option(help="i/n: make the i-th of n parts; then run without it to finish the whole")]
Engine = Annotated[str, typer.Option(help="local, or ray: parts go to a cluster's workers (extra: ray)")]
Address = Annotated[
    str | None, typer.Option(help="HOST:PORT of Ray's head [a cluster of this machine's cores, while it runs]")
]


@dataclass(frozen=True)
class Parts:
    """What the three options say. Raises ExpungeError if they cannot be together."""

    shard: str
    engine: str
    address: str | None

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise unknown("engine", self.engine, ["local", "ray"])
        if self.address and self.engine == "local":
            raise ExpungeError("--address is that of a Ray cluster: add --engine ray")
        if self.engine == "ray" and (self.shard or processes()[1] > 1):
            raise ExpungeError("--engine ray divides the work itself: leave --shard and torchrun out")
        self.own()

    def own(self) -> tuple[int, int]:
        """This process's part, as (0, 4) of the first of four: each of torchrun's processes has a part of a shard."""
        (i, n), (rank, world) = sharded(self.shard), processes()
        return i * world + rank, n * world

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all, and finishes what was made in parts."""
        return processes()[0] == 0

    def made(
        self, out: Path, make: Callable[[tuple[int, int]], object], jobs: Callable[[], Sequence[Job]], base: Model
    ) -> bool:
        """Makes this process's part, or `jobs` on Ray; whether it is this process that finishes the whole.

        `jobs` are what `out` lacks. Raises ExpungeError if a cluster's files are not those that it was asked for.
        """
        if self.engine == "ray":
            self.spread(out, jobs, gpu=base.device.type == "cuda")
        elif self.own()[1] > 1:
            from ..team import here

            if self.leads and processes()[1] > 1:
                say(f"{processes()[1]} processes, each with a part of its own")
            make(self.own())
            here(base.device).highest(0)  # all are done
        return self.leads and not self.shard

    def spread(self, out: Path, jobs: Callable[[], Sequence[Job]], *, gpu: bool) -> None:
        from ..cluster import spread
        from ..lock import locked

        with locked(out, folder=True):
            spread(jobs(), "on Ray", address=self.address, gpu=gpu)
            if any(job.items for job in jobs()):
                raise ExpungeError(
                    "the workers' files are not those that were asked for: give --precision and --device, and let all"
                    " machines have the same model and the same versions of expunge and torch"
                )

    def tell(self, out: Path, as_json: bool) -> None:
        """What a part was, and how to go on."""
        i, n = self.own()
        if as_json and self.leads:
            show({"out": str(out), "part": i + 1, "of": n})
        elif self.leads:
            print(f"{out}  (part {i + 1} of {n} is made; the same command without --shard once all are there)")


def sharded(text: str) -> tuple[int, int]:
    """ "2/3" as (1, 3)."""
    i, slash, n = text.partition("/")
    if not text:
        return 0, 1
    if not (slash and i.isdecimal() and n.isdecimal() and len(text) < 20 and 1 <= int(i) <= int(n)):
        raise ExpungeError(f"--shard {text} should be i/n, such as 1/4, with i from 1 to n")
    return int(i) - 1, int(n)
