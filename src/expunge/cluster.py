"""A Ray cluster: items of work go to its workers, files come back. No disk is shared, and a worker may die.

What is drawn there has the same bits, since a worker does what one process does, with the same batches.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from .errors import ExpungeError, Interrupted
from .families import load
from .files import append, whole
from .journal import NAME
from .model import Model
from .signals import obey, stop_signals

RETRIES = 5
"""How often an item is begun again after its worker died."""


@dataclass(frozen=True)
class Opening:
    """How a worker opens a model: the arguments of `load`."""

    model: str
    device: str = "auto"
    precision: str = "auto"
    offload: bool = False


@dataclass(frozen=True)
class Job:
    """`work(model, item, folder)` leaves an item's files in an empty folder; whence they go to `out`.

    The lines of a journal among them go to the end of `log`.
    """

    opening: Opening
    work: Callable[[Model, Any, Path], object]
    items: Sequence[Any]
    out: Path
    log: Path | None = None


def spread(jobs: Sequence[Job], label: str, *, address: str | None = None, gpu: bool = False) -> None:
    """Runs all items on the cluster at `address`, or on this machine's cores; `gpu` gives each worker one.

    On SIGINT or SIGTERM what has come back is kept, and Interrupted raised. Raises ExpungeError if Ray is missing or
    cannot be reached, for what a worker raises, and for an item whose workers died too often.
    """
    todo = [(job, item) for job in jobs for item in job.items]
    if not todo:
        return
    with connected(address) as ray, stop_signals() as received, tqdm(total=len(todo), desc=label, unit="part") as bar:
        remote = ray.remote(num_gpus=int(gpu), max_retries=RETRIES, retry_exceptions=[Interrupted])(worked)
        works = {id(job): ray.put(job.work) for job in jobs}
        waiting = {remote.remote(job.opening, works[id(job)], item): job for job, item in todo}
        while waiting:
            ready, _ = ray.wait([*waiting], timeout=1)
            for one in ready:
                keep(fetched(ray, one), waiting.pop(one))
                bar.update()
            obey(received, len(todo) - len(waiting), len(todo), "parts")


def worked(opening: Opening, work: Callable[[Model, Any, Path], object], item: Any) -> dict[str, bytes]:
    """An item's files by name: what a worker does."""
    with TemporaryDirectory() as folder:
        work(opened(opening), item, Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@lru_cache(maxsize=1)
def opened(opening: Opening) -> Model:
    """The model, once for each process."""
    return load(**asdict(opening))


def keep(files: Mapping[str, bytes], job: Job) -> None:
    """Each file whole, but for a journal's lines, which follow those that are there."""
    for name, data in files.items():
        if name != NAME or not job.log:
            with whole(job.out / name) as temporary:
                temporary.write_bytes(data)
    if job.log and NAME in files:
        append(job.log, files[NAME].decode().splitlines())


def fetched(ray: Any, one: Any) -> dict[str, bytes]:
    """What has come back. Raises ExpungeError in a worker's stead."""
    try:
        found: dict[str, bytes] = ray.get(one)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ExpungeError):
            raise ExpungeError(f"on a worker: {error.cause}") from error
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise ExpungeError(f"a part was begun {RETRIES + 1} times and its worker died each time: {reason}") from error
    return found


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster or to one that ends with the block and that only this machine can reach.

    Raises ExpungeError if it is not installed, or nobody answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all of Ray's ports on the loopback address
    try:
        import ray
    except ImportError as error:
        raise ExpungeError("Ray is not installed: pip install 'expunge[ray]'") from error
    own = {} if address else {"include_dashboard": False}
    try:
        knock(address or "")
        ray.init(address=address or "local", logging_level="ERROR", log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExpungeError(f"cannot reach Ray at {address}: {reason}; give its head as HOST:PORT") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Raises OSError or ValueError if nobody listens at HOST:PORT: Ray would ask for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()
