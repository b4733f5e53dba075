"""Trajectories: how x_t is reached, and what it costs.

Training needs pairs (x_t, t) and the frozen predictions e*(x_t, ·) there. The published loops roll each x_t out of
fresh noise: n/2 guided steps of 2 passes for one sample. Here:

- `Fresh`: that reference; independent samples, dear ones.
- `Pool`: B trajectories at staggered times. The guided step that advances x_t needs just the frozen predictions
  that the target needs, so a sample costs no more than its own loss. Each trajectory restarts from fresh noise on
  a timestep grid with a fresh random offset.
- `Renoised`: K latents are rolled out once, coarsely, then diffused forward to any t, as concept ablation does.
- `Reused`: points of any of these, with their frozen predictions, drawn once and trained on repeatedly. For a
  frozen sampler they do not depend on the student.

Everything is a function of (seed, step) and of `state()`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .errors import ExpungeError
from .files import hash_tensors, read_tensors, write_tensors
from .model import Condition, Model, guide
from .rng import torch_rng

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Points:
    """Training points: latents x_t (n, c, h, w), times t (n,), each row's concept, and e*(x_t, ·) by role.

    `rolled` are predictions by the weights that roll out, where those are not the frozen ones.
    """

    x_t: Tensor
    t: Tensor
    which: Tensor
    frozen: dict[str, Tensor]
    rolled: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: Tensor) -> Points:
        frozen = {k: v[rows] for k, v in self.frozen.items()}
        return Points(self.x_t[rows], self.t[rows], self.which[rows], frozen)

    @staticmethod
    def cat(parts: list[Points]) -> Points:
        frozen = {k: torch.cat([p.frozen[k] for p in parts]) for k in parts[0].frozen}
        columns = [torch.cat([getattr(p, k) for p in parts]) for k in ("x_t", "t", "which")]
        return Points(columns[0], columns[1], columns[2], frozen)


@dataclass(frozen=True)
class Roles:
    """Conditions by role: "sample", which x_t is reached under, "empty", and others; a row for each concept, or one.

    `needs` names those whose frozen predictions training needs.
    """

    conditions: Mapping[str, Condition]
    needs: tuple[str, ...] = ("sample", "empty")

    @property
    def concepts(self) -> int:
        return len(self.conditions["sample"])

    def rows(self, role: str, which: Tensor) -> Condition:
        condition = self.conditions[role]
        return condition[which % len(condition)]


@torch.no_grad()
def frozen(
    model: Model, x_t: Tensor, t: Tensor, which: Tensor, roles: Roles, names: tuple[str, ...], weights: Weights | None
) -> dict[str, Tensor]:
    """Predictions of every named role at x_t in one call of the network."""
    condition = Condition.cat([roles.rows(name, which) for name in names])
    stacked = model.predict(x_t.repeat(len(names), 1, 1, 1), t.repeat(len(names)), condition, weights)
    return dict(zip(names, stacked.chunk(len(names)), strict=True))


@dataclass
class Trajectory(ABC):
    """Common settings: `grid` steps of the rollout, `batch` points a draw, `guidance` the CFG scale.

    `sampler` gives the weights that roll out (None: the frozen model); `jitter` moves t inside its grid interval;
    `scheduler` is "ddim", or "pipeline" for the pipeline's own. `answered` promises that the learner rolls out and that
    `seen` brings back what it predicts for "sample" at each batch, so that nobody predicts it twice. `frozen_empty`:
    the frozen model's "empty" guides the learner's rollout, which the target needs too, so that it is a pass less.
    """

    model: Model
    roles: Roles
    seed: int
    grid: int = 50
    batch: int = 1
    guidance: float = 3.0
    sampler: Callable[[], Weights | None] = lambda: None
    jitter: bool = False
    scheduler: str = "ddim"
    purpose: str = "erase"
    answered: bool = False
    frozen_empty: bool = False

    @abstractmethod
    def points(self, step: int) -> Points:
        """Points for a step, without frozen predictions for roles that the rollout did not need."""

    def draw(self, step: int) -> Points:
        """A batch of points with e* for every role that is needed."""
        points = self.points(step)
        names = tuple(n for n in self.roles.needs if n not in points.frozen)
        if not names:
            return points
        more = frozen(self.model, points.x_t, points.t, points.which, self.roles, names, None)
        return Points(points.x_t, points.t, points.which, points.frozen | more, points.rolled)

    def seen(self, e: Tensor) -> None:  # noqa: B027, most have no use for it
        """What the learner, as it was, predicts for "sample" at the points drawn last."""

    def state(self) -> dict[str, Tensor]:
        """What must be saved besides the step number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027, nothing to do without state
        """Continues from `state()`."""

    @property
    def stride(self) -> int:
        return self.model.horizon // self.grid

    def at(self, t: Tensor) -> Tensor:
        """The times of places on the grid: a flow begins where noise is pure, whatever its grid's offset."""
        top = t >= (self.grid - 1) * self.stride
        return t if self.model.pure is None else torch.where(top, self.model.pure, t)

    def rng(self, what: str, step: int) -> torch.Generator:
        return torch_rng(self.seed, f"{self.purpose}/{what}", step=step)

    def start(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Fresh noise and a uniformly drawn concept for n trajectories."""
        which = torch.randint(self.roles.concepts, (n,), generator=rng)
        return self.model.noise(n, rng), which

    def guided(self, e: Mapping[str, Tensor]) -> Tensor:
        """The prediction that rolls out; one with distilled guidance has it inside."""
        return guide(e["sample"], e["empty"], 1.0 if self.model.distilled else self.guidance)

    def advance(self, x_t: Tensor, t: Tensor, e: Mapping[str, Tensor]) -> Tensor:
        """The guided DDIM step of one grid interval."""
        return self.model.advance(self.guided(e), x_t, self.at(t), t - self.stride)

    def both(self, x_t: Tensor, t: Tensor, which: Tensor) -> dict[str, Tensor]:
        """The two predictions of a guided step, by the weights that roll out."""
        known = self.known(x_t, t, which, ("empty",)) if self.frozen_empty else {}
        return self.own(x_t, t, which, ("sample", "empty"), known)

    def known(self, x_t: Tensor, t: Tensor, which: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The frozen model's predictions."""
        return frozen(self.model, x_t, t, which, self.roles, names, None)

    def own(
        self, x_t: Tensor, t: Tensor, which: Tensor, names: tuple[str, ...], known: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Predictions by the weights that roll out, but for an "empty" that is `known`."""
        shared = {k: e for k, e in known.items() if k == "empty"}
        rest = tuple(name for name in names if name not in shared)
        return shared | (frozen(self.model, x_t, t, which, self.roles, rest, self.sampler()) if rest else {})

    @torch.no_grad()
    def roll(self, x: Tensor, which: Tensor, steps: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Row j after steps[j] grid steps from noise, and its time; offset (n,) shifts each row's grid."""
        t = offset + (self.grid - 1) * self.stride
        for i in range(int(steps.max())):
            rows = torch.nonzero(steps > i).flatten()
            e = self.both(x[rows], self.at(t[rows]), which[rows])
            x = x.index_copy(0, rows.to(x.device), self.advance(x[rows], t[rows], e))
            t = t.index_add(0, rows, torch.full_like(rows, -self.stride))
        return x, t


class Fresh(Trajectory):
    """The reference: each point is its own partial rollout to a uniformly drawn grid time."""

    def points(self, step: int) -> Points:
        rng = self.rng("fresh", step)
        x, which = self.start(self.batch, rng)
        if self.scheduler == "pipeline":
            return self._by_pipeline(x, which, rng)
        steps = torch.randint(self.grid, (self.batch,), generator=rng)
        x, t = self.roll(x, which, steps, torch.full_like(steps, min(1, self.stride - 1)))
        return Points(x, self._jittered(self.at(t), rng), which, {})

    def _jittered(self, t: Tensor, rng: torch.Generator) -> Tensor:
        if not self.jitter or self.model.pure is not None:  # a flow's x_t belongs to one time alone
            return t
        return t - t % self.stride + torch.randint(self.stride, t.shape, generator=rng)

    @torch.no_grad()
    def _by_pipeline(self, x: Tensor, which: Tensor, rng: torch.Generator) -> Points:
        """Any scheduler of the pipeline; the batch shares one time. Returns the network's (scaled) input as x_t."""
        sampler = self.model.sampler(self.grid, [rng] * len(x))
        steps = int(torch.randint(len(sampler.timesteps), (1,), generator=rng))
        x = x * sampler.sigma
        for i in range(steps):
            t = sampler.timesteps[i].cpu().expand(len(x))
            e = self.both(sampler.scale(x, i), t, which)
            x = sampler.step(self.guided(e), i, x)
        t = sampler.timesteps[steps].cpu().expand(len(x))
        return Points(sampler.scale(x, steps), self._jittered(t, rng), which, {})


PER_ROW = ("DDIMScheduler", "DDIMParallelScheduler")
"""Schedulers whose step is `Model.advance`: no history, so each row may be at its own time."""


def check_per_row(model: Model) -> None:
    """Raises ExpungeError, by name, for a pipeline scheduler that cannot step rows at different times."""
    scheduler = model.pipeline.scheduler
    name, config = type(scheduler).__name__, scheduler.config
    why = "keeps one time for a whole batch" if name not in PER_ROW else ""
    why = why or ("clips or thresholds x_0" if config.get("clip_sample") or config.get("thresholding") else "")
    if why:
        raise ExpungeError(f"{name} {why}; with scheduler=pipeline use trajectory=fresh, or scheduler=ddim")


class Pool(Trajectory):
    """Trajectories that train while they roll: every network pass is used twice."""

    _x: Tensor | None = None
    _t: Tensor
    _which: Tensor
    _waiting: tuple[dict[str, Tensor], int]

    def points(self, step: int) -> Points:
        if self._x is None:
            self._begin()
        assert self._x is not None
        x, t, which = self._x, self._t, self._which
        needs = tuple(dict.fromkeys((*self.roles.needs, "empty")))
        known = self.known(x, self.at(t), which, needs) if self.frozen_empty else {}
        e = self.own(x, self.at(t), which, ("empty",) if self.answered else ("sample", "empty"), known)
        if self.answered:
            self._waiting = e, step
        else:
            self._move(e, step)
        if self.sampler() is None:
            return Points(x, self.at(t), which, e)
        return Points(x, self.at(t), which, known, {k: v for k, v in e.items() if v is not known.get(k)})

    @torch.no_grad()
    def seen(self, e: Tensor) -> None:
        if self.answered:
            rest, step = self._waiting
            self._move({"sample": e, **rest}, step)

    def _move(self, e: Mapping[str, Tensor], step: int) -> None:
        assert self._x is not None
        self._x, self._t = self.advance(self._x, self._t, e), self._t - self.stride
        self._restart(step)

    def _begin(self) -> None:
        """Fresh noise, each trajectory rolled to its own place on the grid."""
        rng = self.rng("pool", 0)
        x, self._which = self.start(self.batch, rng)
        offset = torch.randint(self.stride, (self.batch,), generator=rng)
        steps = torch.arange(self.batch) * self.grid // self.batch
        self._x, self._t = self.roll(x, self._which, steps, offset)

    def _restart(self, step: int) -> None:
        done = torch.nonzero(self._t < 0).flatten()
        if len(done) == 0 or self._x is None:
            return
        rng = self.rng("restart", step)
        x, which = self.start(len(done), rng)
        offset = torch.randint(self.stride, (len(done),), generator=rng)
        self._x = self._x.index_copy(0, done.to(self._x.device), x)
        self._t = self._t.index_copy(0, done, offset + (self.grid - 1) * self.stride)
        self._which = self._which.index_copy(0, done, which)

    def state(self) -> dict[str, Tensor]:
        return {} if self._x is None else {"x": self._x, "t": self._t, "which": self._which}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self._x = state["x"].to(self.model.device)
            self._t, self._which = state["t"], state["which"]


ATTEMPTS = 8
"""How often a picture is drawn before its place is given to another."""


@dataclass
class Renoised(Trajectory):
    """`latents` clean latents rolled out once; points are forward-diffused copies at uniform times.

    Latents that `accept` (n, c, h, w) -> (n,) refuses are rolled out again from other noise, and if it refuses them to
    the end, copies of accepted ones take their places; `accepting` tells what it accepts. With `cached` they are kept
    in the model's cache.
    """

    latents: int = 16
    accept: Callable[[Tensor], Tensor] = lambda x: torch.ones(len(x), dtype=torch.bool)
    accepting: str = ""
    cached: bool = False
    _clean: Tensor | None = field(default=None, init=False)
    _of: Tensor = field(init=False)

    def points(self, step: int) -> Points:
        clean = self.clean()
        rng = self.rng("renoise", step)
        which = torch.randint(self.roles.concepts, (self.batch,), generator=rng)
        turn = torch.rand(self.batch, generator=rng)
        t = torch.randint(self.model.horizon, (self.batch,), generator=rng)
        shares = torch.bincount(self._which(), minlength=self.roles.concepts)[which]
        k = which + self.roles.concepts * (turn * shares).long()
        noise = self.model.noise(self.batch, rng)
        truth = self.model.truth(clean[k], noise, t)
        return Points(self.model.diffuse(clean[k], noise, t), t, self._of[k], {"truth": truth})

    def _which(self) -> Tensor:
        """Concepts take turns over the latents; each has at least one."""
        return torch.arange(max(self.latents, self.roles.concepts)) % self.roles.concepts

    def clean(self) -> Tensor:
        """The clean latents (K, c, h, w), from the model's cache if they were rolled out before."""
        if self._clean is None:
            folder = self.model.cache if self.cached else None
            self.restore(self._kept(folder / f"{self._key()}.safetensors") if folder else self._drawn())
        assert self._clean is not None
        return self._clean

    def _kept(self, file: Path) -> dict[str, Tensor]:
        """What the file holds, or fresh ones, which it will hold; a cache that cannot be used is none."""
        team = self.model.team
        held = team.same(lambda: self._held(file))
        drawn = held or self._drawn()
        if team.main and not held:
            with suppress(ExpungeError):
                write_tensors(file, drawn, {})
        return drawn

    def _held(self, file: Path) -> dict[str, Tensor] | None:
        with suppress(ExpungeError):
            return read_tensors(file)[0]
        return None

    def _drawn(self) -> dict[str, Tensor]:
        """The latents and whose they are. Raises ExpungeError if none is accepted."""
        which = self._which()
        clean = self._rolled(which, 0)
        fine, again = self.accept(clean).cpu(), 1
        while again < ATTEMPTS and not fine.all():
            bad = torch.nonzero(~fine).flatten()
            clean = clean.index_copy(0, bad.to(clean.device), self._rolled(which[bad], again))
            fine, again = self.accept(clean).cpu(), again + 1
        good = torch.nonzero(fine).flatten()
        if len(good) == 0:
            raise ExpungeError(f"{ATTEMPTS} times none of {len(clean)} pictures was accepted; give other captions")
        places = torch.where(fine, torch.arange(len(fine)), good[torch.arange(len(fine)) % len(good)])
        return {"clean": clean[places.to(clean.device)], "which": which[places]}

    def _rolled(self, which: Tensor, attempt: int) -> Tensor:
        x, _ = self.start(len(which), self.rng("latents", attempt))
        steps, offset = torch.full_like(which, self.grid), torch.full_like(which, self.stride - 1)
        some = [torch.arange(len(which))[i : i + self.model.rows] for i in range(0, len(which), self.model.rows)]
        return torch.cat([self.roll(x[r], which[r], steps[r], offset[r])[0] for r in some])

    def _key(self) -> str:
        """A hash of all that the clean latents follow from."""
        roles = {
            f"{role}/{k}": v for role in ("sample", "empty") for k, v in self.roles.conditions[role].tensors.items()
        }
        about = (
            f"{self.model.signature} {self.model.dtype} {self.model.mixed} {self.model.device.type} {self.model.rows}"
        )
        about += (
            f" {self.seed} {self.purpose} {self.grid} {self.guidance} {self.latents} {self.accepting} {ATTEMPTS} places"
        )
        about += hash_tensors(roles)
        return hashlib.sha256(about.encode()).hexdigest()

    def state(self) -> dict[str, Tensor]:
        return {} if self._clean is None else {"clean": self._clean, "which": self._of}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self._clean, self._of = state["clean"].to(self.model.device), state["which"].cpu()


class Reused:
    """`size` points of `inner`, drawn once; each step trains on a random batch of them."""

    def __init__(self, inner: Trajectory, size: int, batch: int) -> None:
        self.inner, self.size, self.batch = inner, size, batch
        self._bank: Points | None = None

    def draw(self, step: int) -> Points:
        if self._bank is None:
            draws = -(-self.size // self.inner.batch)
            self._bank = Points.cat([self.inner.draw(i) for i in range(draws)])
        rows = torch.randperm(len(self._bank), generator=self.inner.rng("reuse", step))[: self.batch]
        return self._bank[rows]

    def seen(self, e: Tensor) -> None:
        """Nothing rolls on."""

    def state(self) -> dict[str, Tensor]:
        if self._bank is None:
            return {}
        bank = self._bank
        columns = {"x_t": bank.x_t, "t": bank.t, "which": bank.which}
        return columns | {f"frozen.{k}": v for k, v in bank.frozen.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if not state:
            return
        device = self.inner.model.device
        e = {k.removeprefix("frozen."): v.to(device) for k, v in state.items() if k.startswith("frozen.")}
        self._bank = Points(state["x_t"].to(device), state["t"], state["which"], e)
