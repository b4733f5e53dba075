"""The one training loop: optimiser, schedule, EMA, guards, snapshots, resume, progress.

A step is a pure function of (parameters, optimiser, EMA, extra state, step number): every random number comes
from (seed, purpose, rank, step). A snapshot holds exactly these, so a resumed run ends in the same bits.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from .errors import ExpungeError, Interrupted
from .files import read_tensors, write_tensors
from .signals import stop_signals
from .team import ALONE, Team

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Training(BaseModel):
    """How parameters move. Source of the defaults: the published ESD loop (Adam, constant rate)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(1000, ge=0, description="gradient steps")
    lr: float = Field(1e-5, gt=0, description="learning rate at its peak")
    optimiser: Literal["adam", "adamw"] = Field("adam", description="adam, or adamw with decoupled weight decay")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's averaging factors")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient; none: no clipping")
    schedule: Literal["constant", "cosine"] = Field("constant", description="shape of the rate after warm-up")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises linearly to lr")
    ema: float | None = Field(None, gt=0, lt=1, description="momentum of the weight average that is the result")
    ema_ramp: bool = Field(False, description="let the momentum rise as (1 + step)/(10 + step) up to ema")

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, …: linear warm-up, then constant or half a cosine down to 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return self.lr
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))


class Stateful(Protocol):
    """Anything besides the parameters that a step reads and writes, such as a pool of trajectories."""

    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor]) -> None: ...


Terms = Mapping[str, Tensor]
"""Named scalar terms of a loss; their sum is minimised."""


class Trainer:
    """Parameters on their way. `parameters` are leaf fp32 tensors; `average` is their EMA, or None.

    `terms` are those of the last step's loss, `rate` its learning rate; `pace` is what the rate is multiplied by.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], options: Training, extra: Stateful | None = None, team: Team = ALONE
    ) -> None:
        self.parameters, self.options, self.extra, self.team = dict(parameters), options, extra, team
        self.step, self.rate, self.pace, self.terms = 0, options.rate(0), 1.0, dict[str, float]()
        kind = torch.optim.AdamW if options.optimiser == "adamw" else torch.optim.Adam
        self.optimiser: torch.optim.Optimizer = kind(
            self.parameters.values(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay,
            foreach=False,  # which would hold another copy of all parameters
        )  # fmt: skip
        start = {k: v.detach().clone() for k, v in self.parameters.items()}
        self.average: dict[str, Tensor] | None = start if options.ema else None

    def advance(self, pieces: Iterable[Terms]) -> float:
        """One gradient step on the sum of all terms; returns the loss. Raises ExpungeError if it is not finite."""
        self.learn(pieces)
        return self.move()

    def learn(self, pieces: Iterable[Terms]) -> None:
        """Gradients of the sum of all terms, a piece at a time: only one piece's activations are held.

        Where a piece fails, what the others come from is ended, too: it may have changed the model for the step.
        """
        self.optimiser.zero_grad(set_to_none=True)
        self.terms = {}
        with closing(pieces) if isinstance(pieces, Generator) else nullcontext():
            for terms in pieces:
                self._guard(terms)
                torch.stack([*terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
                for name, value in terms.items():
                    self.terms[name] = self.terms.get(name, 0.0) + value.item()
        self.team.average(self.parameters.values())

    def move(self) -> float:
        """The step along those gradients; returns the loss."""
        self._tame()
        self.rate = self.options.rate(self.step) * self.pace
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)  # now: the next forward pass needs the room
        self.step += 1
        self._follow()
        return sum(self.terms.values())

    def _guard(self, terms: Terms) -> None:
        bad = [name for name, value in terms.items() if not torch.isfinite(value)]
        if bad:
            raise ExpungeError(
                f"the loss term {bad[0]!r} is not finite at step {self.step}; nothing was saved after the last"
                " snapshot: lower lr or set clip"
            )

    def _tame(self) -> None:
        """Refuses a gradient that is not finite, so that no parameter ever becomes so, and clips it."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.options.clip or math.inf)
        if not torch.isfinite(norm):
            raise ExpungeError(f"the gradient is not finite at step {self.step}; lower lr, or use precision=fp32")

    @torch.no_grad()
    def _follow(self) -> None:
        if self.average is None or self.options.ema is None:
            return
        ramp = (1 + self.step) / (10 + self.step) if self.options.ema_ramp else 1.0
        momentum = min(self.options.ema, ramp)
        for name, average in self.average.items():
            average.lerp_(self.parameters[name].detach(), 1 - momentum)

    def result(self) -> dict[str, Tensor]:
        """The EMA where there is one, else the parameters: these tensors themselves, not copies."""
        return {k: v.detach() for k, v in (self.average or self.parameters).items()}

    def state(self) -> dict[str, Tensor]:
        """Everything the next step reads, as flat named tensors."""
        tensors = {f"parameter/{k}": v for k, v in self.parameters.items()}
        tensors |= {f"average/{k}": v for k, v in (self.average or {}).items()}
        for index, entry in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{key}": value for key, value in entry.items()}
        return tensors | {f"extra/{k}": v for k, v in (self.extra.state() if self.extra else {}).items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Undoes `state`, bit for bit."""
        part = _parts(tensors)
        for name, parameter in self.parameters.items():
            parameter.copy_(part["parameter"][name])
        for name, average in (self.average or {}).items():
            average.copy_(part["average"][name])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in part.get("optimiser", {}).items():
            index, key = name.split("/")
            entries.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": entries, "param_groups": self.optimiser.state_dict()["param_groups"]})
        if self.extra:
            self.extra.restore(part.get("extra", {}))
        self.step = step


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        head, rest = name.split("/", 1)
        parts.setdefault(head, {})[rest] = tensor
    return parts


class Snapshots:
    """One snapshot file, replaced whole; it belongs to the run that `fingerprint` names.

    Saving takes at most about `share` of the run's time: the dearer a snapshot, the rarer it is.
    """

    def __init__(self, path: Path, fingerprint: str, share: float = 0.05) -> None:
        self.path, self.fingerprint, self.share = path, fingerprint, share
        self._next = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def save(self, trainer: Trainer) -> None:
        start = time.monotonic()
        write_tensors(self.path, trainer.state(), {"step": str(trainer.step), "fingerprint": self.fingerprint})
        end = time.monotonic()
        self._next = end + (end - start) / self.share

    def load(self, trainer: Trainer) -> None:
        """Continues `trainer` from the file, if there is one. Raises ExpungeError if that holds less than is needed."""
        found = trainer.team.same(self.read)
        if found:
            try:
                trainer.restore(*found)
            except KeyError as error:
                raise ExpungeError(
                    f"{self.path} lacks {error}: another version of expunge began that run; remove it to start again"
                ) from error

    def read(self) -> tuple[dict[str, Tensor], int] | None:
        """State and step of the file, if there is one. Raises ExpungeError if it is damaged or of another run."""
        if not self.path.exists():
            return None
        try:
            tensors, metadata = read_tensors(self.path)
        except ExpungeError as error:
            raise ExpungeError(f"the snapshot is damaged, remove it to start again: {error}") from error
        if metadata.get("fingerprint") != self.fingerprint:
            raise ExpungeError(
                f"{self.path} is a snapshot of another run; remove it, or repeat that run's options to resume it"
            )
        return tensors, int(metadata["step"])


OnStep = Callable[[Trainer, float], None]
"""Called after each step with the trainer (its step, parameters and average) and the loss."""


Loss = Callable[[int], Iterable[Terms]]
"""A step's number to the named terms of its loss, in pieces that follow each other."""


def train(
    trainer: Trainer,
    loss: Loss,
    *,
    snapshots: Snapshots | None = None,
    on_step: OnStep | None = None,
    label: str = "training",
    note: Callable[[], str] = lambda: "",
    lighter: Callable[[], str] = lambda: "",
    over: Callable[[int], bool] = lambda _: False,
) -> dict[str, Tensor]:
    """Runs `trainer` to its last step, or until it is `over` after so many, and returns its result.

    `note` is shown beside the loss. Where memory runs out, `lighter` makes the next attempt at the step take less, and
    says how; what it says is shown; the empty string means that there is no way. On SIGINT or SIGTERM the step in
    progress is finished, a snapshot written, and Interrupted raised with exit code 130 or 143.
    """
    total, team = trainer.options.steps, trainer.team
    bar = tqdm(total=total, initial=trainer.step, desc=label, unit="step", disable=not team.main)
    with stop_signals() as received, bar:
        while not over(trainer.step) and trainer.step < total:
            fitted(lambda: trainer.learn(loss(trainer.step)), lighter, bar)
            value = trainer.move()
            bar.update()
            bar.set_postfix_str(f"loss {value:.4f}{note()}", refresh=False)
            if on_step:
                on_step(trainer, value)
            if snapshots and team.main and snapshots.due():
                snapshots.save(trainer)
            _obey(received, trainer, snapshots)
        _obey(received, trainer, snapshots)  # to a signal that came in the last look
    return trainer.result()


def _obey(received: Sequence[int], trainer: Trainer, snapshots: Snapshots | None) -> None:
    """Saves and raises Interrupted if a signal came, in any of the processes."""
    stop = trainer.team.highest(received[0] if received else 0)
    if stop and snapshots and trainer.team.main:
        snapshots.save(trainer)
    if stop:
        where = f"; resume from {snapshots.path}" if snapshots else ""
        raise Interrupted(f"stopped after step {trainer.step} of {trainer.options.steps}{where}", 128 + stop)


T = TypeVar("T")


def fitted(work: Callable[[], T], lighter: Callable[[], str], bar: tqdm[Any]) -> T:
    """Does the work, lighter each time that memory runs out."""
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            told = lighter() if out_of_memory(error) else ""
            if not told:
                raise
        bar.write(f"out of memory: {told}", file=sys.stderr)


def out_of_memory(error: Exception) -> bool:
    """Whether a device's memory, or this machine's, ran out; oneDNN says of it that it has no primitive."""
    from accelerate.utils.memory import should_reduce_batch_size

    told = isinstance(error, MemoryError) or "could not create a primitive" in str(error)
    return told or should_reduce_batch_size(error)


def fingerprint(value: Mapping[str, Any]) -> str:
    """A short hash of a run's description; equal descriptions, equal hashes."""
    import hashlib

    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
