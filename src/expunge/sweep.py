"""Sweep: erasures over a grid of settings, and one audit of all of them.

about: ESD's η
concepts: [car]
runs: [{preset: esd-x, options: {lr: 1e-3, steps: 120}}]
grid: {eta: [1, 3, 5], seed: [0, 1]}     # any of the method's options, and concepts, seed
snapshots: [30, 60]                      # also the edit after so many steps
guidance: [negative]                     # more rows of the audit
audit: {protocol: smallworld-objects, limit: 200}

Frozen predictions that runs share are made once: ESD's runs that differ in η, rate or scope alone ask the frozen model
the same questions at the same points. So are embeddings of texts. Shards, workers and later sweeps on one disk share
them in the user's cache, under a limit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .cluster import Job, Opening
from .concept import Concept
from .edit import Edit
from .erasure import Plan, build_method, cache_folder, concepts_of, make_plan, snapshot_path
from .erasure import run as erase
from .errors import ExpungeError
from .lock import locked
from .method import Method
from .model import Model
from .protocol import Protocol, changed, protocol
from .recipe import Recipe, mapping, preset, validated
from .team import ALONE
from .training import Snapshots, fingerprint
from .variant import Variant, combined

Grid = dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]
Strict = ConfigDict(frozen=True, extra="forbid")


class Run(BaseModel):
    """A preset or a method, with options of its own, and a grid of its own."""

    model_config = Strict

    name: str | None = Field(None, description="what its rows are called; none: the preset or method")
    preset: str | None = Field(None, description="one of `expunge presets`")
    method: str | None = Field(None, description="a method, where there is no preset")
    options: dict[str, Any] = Field({}, description="fields of the method")
    concepts: tuple[str, ...] = Field((), description="what to erase; none: the sweep's")
    grid: Grid = Field({}, description="values of options; all combinations are run")

    @model_validator(mode="after")
    def _one(self) -> Run:
        if (self.preset is None) == (self.method is None):
            raise ValueError("a run has a preset or a method")
        return self

    @property
    def called(self) -> str:
        return self.name or self.preset or str(self.method)

    def recipe(self) -> Recipe:
        """Raises ExpungeError if there is no such preset."""
        return preset(self.preset) if self.preset else Recipe(method=str(self.method))


class Audited(BaseModel):
    """How the rows are audited."""

    model_config = Strict

    protocol: str = Field(description="one of `expunge protocols`, or a file")
    limit: int | None = Field(None, ge=1, description="at most so many pictures a row")
    set: dict[str, Any] = Field({}, description="options of the protocol by dotted name")


class Sweep(BaseModel):
    """What is run, and how it is judged."""

    model_config = Strict

    about: str = Field("", description="one line for people")
    source: str = Field("", description="paper whose table or figure this is like")
    model: str = Field("smallworld", description="the base")
    concepts: tuple[str, ...] = Field((), description="what to erase, as on the command line")
    runs: tuple[Run, ...] = Field(min_length=1)
    grid: Grid = Field({}, description="values of options for all runs")
    snapshots: tuple[int, ...] = Field((), description="steps after which the edit is kept as well")
    guidance: tuple[str, ...] = Field((), description="rows without training, as NAME or 'TITLE = NAME + NAME'")
    others: tuple[str, ...] = Field((), description="other whole models as rows")
    audit: Audited | None = Field(None, description="the audit of all rows; none: edits alone")
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    share: bool = Field(True, description="make frozen predictions once for all runs; false: to compare times")
    cache: int = Field(1024, ge=0, description="MiB of them kept on disk for shards and later sweeps; 0: none")

    def judged_by(self) -> Protocol | None:
        return changed(protocol(self.audit.protocol), None, self.audit.set) if self.audit else None


LONGEST = 120
"""Letters of a file's name."""

LARGEST = 10_000
"""Erasures of one sweep: beyond are slips of the pen."""


@dataclass(frozen=True)
class Point:
    """One erasure of a sweep; `values` are what the grid says to that run."""

    run: str
    values: Mapping[str, Any]
    method: Method
    concepts: tuple[Concept, ...]
    seed: int

    @property
    def name(self) -> str:
        return " ".join([self.run, *(f"{k}={shown(v)}" for k, v in self.values.items())])

    @property
    def file(self) -> str:
        """The name, as far as a file may have it; a hash where it may not."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")
        told = plain.replace("-", " ") == re.sub(r"[-= ,]+", " ", self.name) and len(plain) < LONGEST
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        return f"{plain if told else f'{plain[:LONGEST]}-{digest}'}.safetensors"


def points(sweep: Sweep) -> list[Point]:
    """Every combination. Raises ExpungeError for an option that a method has not, no concept, or two of one name."""
    count = sum(math.prod(len(values) for values in {**sweep.grid, **own.grid}.values()) for own in sweep.runs)
    if count > LARGEST:
        raise ExpungeError(f"the sweep has {count:,} runs; at most {LARGEST:,} are one sweep: shorten its grid")
    found = [point(sweep, own, values) for own in sweep.runs for values in combinations({**sweep.grid, **own.grid})]
    files = Counter(p.file for p in found)
    twice = [p.name for p in found if files[p.file] > 1]
    if twice:
        raise ExpungeError(f"two runs of the sweep are called {twice[0]!r}; give one of them a name")
    late = [(p, k) for p in found for k in sweep.snapshots if not 0 < k <= p.method.extent()[0]]
    if late:
        run, k = late[0]
        raise ExpungeError(f"{run.name} has {run.method.extent()[0]} steps: there is no snapshot after {k}")
    return found


def combinations(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def point(sweep: Sweep, own: Run, values: Mapping[str, Any]) -> Point:
    """One combination of one run."""
    options = {k: v for k, v in values.items() if k not in ("concepts", "seed")}
    method = build_method(own.recipe(), {**own.options, **options})
    told, seed = values.get("concepts", own.concepts or sweep.concepts), values.get("seed", sweep.seed)
    named = [told] if isinstance(told, str) else told
    if not isinstance(named, list | tuple) or not all(isinstance(text, str) for text in named):
        raise ExpungeError(f"concepts of {own.called} are {told!r}: give a name, or a list of names")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ExpungeError(f"a seed of {own.called} is {seed!r}: give a whole number from 0")
    concepts = concepts_of(named)
    if not concepts:
        raise ExpungeError(f"{own.called} erases nothing: give the sweep concepts")
    return Point(own.called, values, method, concepts, seed)


def shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def plans(sweep: Sweep, base: Model) -> list[Plan]:
    """What each run costs, were nothing shared. Raises ExpungeError for what cannot be."""
    return [make_plan(base, p.method, p.concepts) for p in points(sweep)]


@dataclass(frozen=True)
class Made:
    """An edit of a sweep, the run that it is of, and after how many steps."""

    point: Point
    steps: int
    row: Variant


def edits(sweep: Sweep, base: Model, out: Path) -> list[Made]:
    """Runs what `out` does not hold yet; a killed sweep goes on where it was.

    Raises ExpungeError if another run writes there.
    """
    with locked(out, folder=True):
        runs(sweep, lacking(sweep, base, out), base, out)
    return there(sweep, out)


def part(sweep: Sweep, base: Model, out: Path, shard: tuple[int, int]) -> None:
    """Runs what `out` does not hold yet of one part of the erasures, beside others that run theirs."""
    with locked(out, folder=True, shared=True):
        runs(sweep, lacking(sweep, base, out, shard), base, out)


def runs(sweep: Sweep, asked: Iterable[Point], base: Model, out: Path) -> None:
    """Runs these, which share what they can."""
    base.cache = base.cache or cache_folder()
    with base.remembering(disk=sweep.cache * 2**20) if sweep.share else nullcontext():
        for p in asked:
            run(sweep, p, base, out)


def jobs(sweep: Sweep, base: Model, out: Path, opening: Opening) -> list[Job]:
    """What `out` does not hold yet, for a cluster: an erasure an item."""
    return [Job(opening, partial(run_there, sweep), [*lacking(sweep, base, out)], out)]


def run_there(sweep: Sweep, base: Model, p: Point, folder: Path) -> None:
    runs(sweep, [p], base, folder)


def lacking(sweep: Sweep, base: Model, out: Path, shard: tuple[int, int] = (0, 1)) -> Iterator[Point]:
    """The shard's erasures of which `out` does not hold all edits."""
    for p in points(sweep)[shard[0] :: shard[1]]:
        if absent(sweep, p, base, out) or not same(out / p.file, p, base):
            yield p


def absent(sweep: Sweep, p: Point, base: Model, out: Path) -> list[int]:
    """After how many steps there should be an edit and is none."""
    return [k for k in sweep.snapshots if not same(out / marked(p, k), p, base, k)]


def run(sweep: Sweep, p: Point, base: Model, out: Path) -> None:
    """One erasure, with its snapshots; an unfinished one goes on."""
    forget(out / p.file, p, base, absent(sweep, p, base, out))
    marks = {k: out / marked(p, k) for k in sweep.snapshots}
    erase(base, p.method, p.concepts, out / p.file, seed=p.seed, resume=True, marks=marks, team=ALONE)


def there(sweep: Sweep, out: Path) -> list[Made]:
    """The edits of a sweep whose runs are all done."""
    found = []
    for p in points(sweep):
        last = p.method.extent()[0]
        found += [Made(p, k, row(out / marked(p, k), f"{p.name} after {k}")) for k in sweep.snapshots if k < last]
        found.append(Made(p, last, row(out / p.file, p.name)))
    return found


def marked(p: Point, steps: int) -> str:
    """The file of the edit after so many steps."""
    return f"{Path(p.file).stem}.after-{steps}.safetensors"


def row(path: Path, name: str) -> Variant:
    return Variant(name, edits=((Edit.load(path), 1.0),))


def same(path: Path, p: Point, base: Model, after: int | None = None) -> bool:
    """Whether the file is an edit of that very run, after so many steps (None: all)."""
    if not path.exists():
        return False
    about = json.loads(json.dumps(p.method.describe(base, p.concepts, p.seed)))
    found = Edit.load(path).provenance
    return found.get("after") == after and all(found.get(key) == value for key, value in about.items())


def forget(path: Path, p: Point, base: Model, missing: Sequence[int]) -> None:
    """Removes the unfinished run if it is past a snapshot that is missing, or of other options."""
    unfinished = snapshot_path(path)
    about = fingerprint(p.method.describe(base, p.concepts, p.seed))
    try:
        found = Snapshots(unfinished, about).read()
    except ExpungeError:
        found = {}, sys.maxsize
    if found and found[1] >= min(missing, default=sys.maxsize):
        unfinished.unlink()


def rows(sweep: Sweep, trained: Sequence[Variant], others: Mapping[str, Model]) -> list[Variant]:
    """The rows of the audit: what needs no training, the edits, and other models."""
    told = [c.name for p in points(sweep) for c in p.concepts]
    steered = [combined(text, [*dict.fromkeys(told)]) for text in sweep.guidance]
    return [*steered, *trained, *(Variant(name, model=model) for name, model in others.items())]


def expected(sweep: Sweep) -> list[Variant]:
    """The rows of the edits before there are any, by name."""
    return [
        Variant(name)
        for p in points(sweep)
        for name in (*(f"{p.name} after {k}" for k in sweep.snapshots if k < p.method.extent()[0]), p.name)
    ]


FOLDER = Path(__file__).parent / "sweeps"


def names() -> list[str]:
    """The sweeps that come along."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def sweep(name: str) -> Sweep:
    """A shipped sweep by name, or a user's file. Raises ExpungeError if there is none, or for a bad key or value."""
    return validated(Sweep, mapping(name, FOLDER, "sweep"), name)
