"""Methods whose points x_t are reached by rolling out: the options of the trajectory, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from .method import Trained
from .model import Model
from .objective import Learner
from .trajectory import Fresh, Pool, Renoised, Reused, Roles, Trajectory, check_per_row

Sampler = Literal["frozen", "student", "average"]


class Rolled(Trained):
    """A method that learns where the guided model goes."""

    trajectory: Literal["fresh", "pool", "renoised"] = Field("renoised", description="how x_t is reached")
    grid: int = Field(10, ge=1, le=100, description="DDIM steps of a whole rollout")
    guidance: float = Field(3.0, description="s, guidance scale of the rollout")
    sampler: Sampler = Field("frozen", description="whose predictions roll out; average: the EMA's")
    empty: Literal["sampler", "frozen"] = Field(
        "sampler", description="whose empty prompt guides the student's rollout"
    )
    scheduler: Literal["ddim", "pipeline"] = Field("ddim", description="DDIM, or the pipeline's own (fresh only)")
    jitter: bool = Field(False, description="t uniform inside the grid step's own interval (fresh only)")
    latents: int = Field(16, ge=1, description="K, clean latents of the renoised trajectory")
    reuse: int = Field(0, ge=0, description="points drawn once and trained on repeatedly; 0: fresh points each step")

    @model_validator(mode="after")
    def _possible(self) -> Rolled:
        if 0 < self.reuse < self.batch:
            raise ValueError("reuse needs at least as many points as a batch")
        if self.reuse and self.beside:
            raise ValueError("reuse keeps predictions of the model by itself: with edits beside this one, leave it out")
        if self.jitter and self.trajectory != "fresh":
            raise ValueError("jitter is for trajectory=fresh: the others have times off the grid anyway")
        if self.reuse and self.sampler != "frozen":
            raise ValueError("reuse needs sampler=frozen: other points change as the student learns")
        if self.trajectory == "renoised" and self.sampler != "frozen":
            raise ValueError("trajectory=renoised rolls out once, before training: it needs sampler=frozen")
        if self.empty == "frozen" and self.sampler != "student":
            raise ValueError("empty=frozen is for sampler=student: the others are frozen anyway, or the average's own")
        if self.sampler == "average" and self.ema is None:
            raise ValueError("sampler=average needs ema: there is no average without a momentum")
        return self

    @property
    def drawn(self) -> int:
        """Points that the trajectory gives at a time."""
        return min(self.reuse, 32) if self.reuse else self.batch

    @property
    def points(self) -> int:
        """Points that a whole run draws."""
        return -(-self.reuse // self.drawn) * self.drawn if self.reuse else self.steps * self.batch

    def drawing(self, concepts: int, needs: set[str], *, answered: bool = False) -> int:
        """Network passes of a run's trajectory over so many concepts, with the frozen predictions that it `needs`."""
        if self.trajectory == "fresh":
            return (self.grid - 1 + len(needs)) * self.points
        if self.trajectory == "renoised":
            return 2 * self.grid * max(self.latents, concepts) + len(needs) * self.points
        first = 2 * sum(i * self.grid // self.drawn for i in range(self.drawn))
        more = needs if self.sampler != "frozen" else needs - {"sample", "empty"}
        rolling = 2 - self._answered(answered) - (self.empty == "frozen" and "empty" in needs)
        return first + (rolling + len(more)) * self.points

    def _answered(self, possible: bool) -> bool:
        """Whether the learner's own prediction moves the pool on, so that nobody makes it twice."""
        return possible and self.sampler == "student" and self.trajectory == "pool"

    def route(
        self, model: Model, roles: Roles, learner: Learner, seed: int, *, answered: bool = False
    ) -> Trajectory | Reused:
        """The chosen trajectory over `roles`. Raises ExpungeError for a scheduler that it cannot use.

        `answered`: the method trains on the very predictions that a student's rollout needs, those of "sample".
        """
        if self.scheduler == "pipeline" and self.trajectory != "fresh":
            check_per_row(model)
        kinds: dict[str, Callable[..., Trajectory]] = {
            "fresh": Fresh, "pool": Pool, "renoised": partial(Renoised, latents=self.latents),
        }  # fmt: skip
        route = kinds[self.trajectory](
            model, roles, seed, grid=self.grid, guidance=self.guidance, batch=self.drawn,
            sampler=lambda: self._rolling(learner), jitter=self.jitter, scheduler=self.scheduler,
            answered=self._answered(answered), frozen_empty=self.empty == "frozen",
        )  # fmt: skip
        return Reused(route, self.reuse, self.batch) if self.reuse else route

    def _rolling(self, learner: Learner) -> Mapping[str, Tensor] | None:
        return {"frozen": None, "student": learner.student, "average": learner.average}[self.sampler]
