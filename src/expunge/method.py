"""Method: how a concept is taken out of a model. A trained method states its objective; the rest is common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from . import __version__
from .concept import Concept
from .edit import Edit
from .errors import ExpungeError
from .model import Model
from .scope import select
from .training import OnStep, Snapshots, Stateful, Terms, Trainer, Training, fingerprint, train


class Objective(Stateful, Protocol):
    """Named loss terms of a step, and whatever state they carry from step to step."""

    def __call__(self, step: int) -> Terms: ...


class Method(Training, ABC):
    """A trained method: its fields are its options, those of `Training` included."""

    kind: ClassVar[str]

    scope: str = Field("xattn", description="which weights may change: a name from `expunge scopes`, or re:REGEX")
    batch: int = Field(1, ge=1, description="training points a step")
    loss: Literal["l2", "l1"] = Field("l2", description="distance between prediction and target")

    @abstractmethod
    def objective(
        self, model: Model, concepts: Sequence[Concept], student: Mapping[str, Tensor], seed: int
    ) -> Objective:
        """The loss as a function of the step; `student` are the weights that learn."""

    @abstractmethod
    def passes(self, concepts: Sequence[Concept]) -> int:
        """Expected network passes of a whole run, a backward counted as two."""

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(prediction, target) if self.loss == "l2" else F.l1_loss(prediction, target)

    def fit(
        self,
        model: Model,
        concepts: Sequence[Concept],
        *,
        seed: int = 0,
        name: str = "edit",
        snapshot: Path | None = None,
        on_step: OnStep | None = None,
    ) -> Edit:
        """Erases `concepts` from `model` and returns the edit; the model itself stays as it was.

        With `snapshot`, progress is kept there and a run with the same options continues from it.
        """
        self._check(model, concepts)
        base = scoped(model, self.scope)
        student = {k: w.detach().float().clone().requires_grad_() for k, w in base.items()}
        objective = Counted(self.objective(model, concepts, student, seed), model)
        trainer = Trainer(student, self, objective)
        about = self.describe(model, concepts, seed)
        keeper = Snapshots(snapshot, fingerprint(about)) if snapshot else None
        if keeper:
            keeper.load(trainer)
        result = train(
            trainer, objective, snapshots=keeper, on_step=on_step, label="erasing", note=lambda: f", {objective}"
        )
        delta = {k: (result[k] - base[k].detach().float()).cpu() for k in result}
        return Edit(delta, about | stamp() | {"cost": objective.cost()}, name)

    def _check(self, model: Model, concepts: Sequence[Concept]) -> None:
        if not concepts:
            raise ExpungeError("nothing to erase: give at least one concept")
        if model.applied:
            raise ExpungeError(f"edit {model.applied[-1]!r} is on the model; take it off before erasing")
        if model.dtype == torch.float16:
            raise ExpungeError("fp16 gradients underflow; erase with precision bf16, mixed or fp32")

    def describe(self, model: Model, concepts: Sequence[Concept], seed: int) -> dict[str, Any]:
        """What determines the result: base, method, options, concepts, seed."""
        return {
            "base": {"name": model.name, "hash": model.hash},
            "method": self.kind,
            "options": self.model_dump(mode="json"),
            "concepts": [c.model_dump(mode="json") for c in concepts],
            "seed": seed,
            "precision": "mixed" if model.mixed else str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "torch": version("torch"),
        }


def stamp() -> dict[str, Any]:
    """Versions, date and licence note for provenance."""
    packages = ("torch", "diffusers", "transformers")
    return {
        "versions": {"expunge": __version__, **{p: version(p) for p in packages}},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": "derived from the base model's weights: the base model's licence applies",
    }


class Counted:
    """An objective that also counts passes, calls and seconds, over kills and resumes."""

    def __init__(self, inner: Objective, model: Model) -> None:
        self.inner, self.meter = inner, model.meter
        self.begun = self._now()

    def _now(self) -> Tensor:
        return torch.tensor([self.meter.passes, self.meter.calls, time.monotonic()], dtype=torch.float64)

    def __call__(self, step: int) -> Terms:
        return self.inner(step)

    def __str__(self) -> str:
        return f"{int((self._now() - self.begun)[0])} passes"

    def cost(self) -> dict[str, float]:
        passes, calls, seconds = (self._now() - self.begun).tolist()
        return {"passes": int(passes), "calls": int(calls), "seconds": round(seconds, 3)}

    def state(self) -> dict[str, Tensor]:
        return {**self.inner.state(), "spent": self._now() - self.begun}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.begun = self._now() - state["spent"]
        self.inner.restore({k: v for k, v in state.items() if k != "spent"})


def scoped(model: Model, scope: str) -> dict[str, Tensor]:
    """The denoiser's weights in the scope. Raises ExpungeError if the scope reaches beyond the denoiser."""
    chosen = select(model.networks(), scope, model.layout)
    own = model.parameters()
    beyond = [name for name in chosen if name not in own]
    if beyond:
        raise ExpungeError(f"scope {scope!r} also holds {beyond[0]}, and this method trains the denoiser only")
    return {name: own[name] for name in chosen}


def memory(model: Model, scope: str) -> int:
    """Bytes of all networks, and of the scoped weights' fp32 copy, gradient and two Adam moments."""
    return model.bytes + 16 * sum(p.numel() for p in scoped(model, scope).values())
