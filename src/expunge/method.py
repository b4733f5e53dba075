"""Method: how a concept is taken out of a model. A trained method states its objective; the rest is common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from . import __version__
from .beside import Beside, Touches, memory, opened, rows
from .composed import Parts as Stored
from .concept import Concept, says, whole
from .edit import Edit
from .errors import ExpungeError
from .model import Condition, Model
from .null_space import projectors, readers
from .objective import Learner, Objective, Parts, Preserve, Regression, around
from .scope import EMBEDDINGS, select
from .training import OnStep, Snapshots, Terms, Trainer, Training, fingerprint, train


class Method(BaseModel, ABC):
    """A way to take concepts out of a model: its fields are its options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    attributes: ClassVar[bool] = False
    """Whether it can erase a concept from one other prompt only (`within`)."""
    anchors: ClassVar[bool] = False
    """Whether it can put an anchor in the concept's place."""
    early: ClassVar[bool] = False
    """Whether it may end before its last step."""

    scope: str = Field("xattn", description="which weights may change: a name from `expunge scopes`, or re:REGEX")

    @abstractmethod
    def fit(
        self,
        model: Model,
        concepts: Sequence[Concept],
        *,
        seed: int = 0,
        name: str = "edit",
        snapshot: Path | None = None,
        on_step: OnStep | None = None,
        marks: Mapping[int, Path] | None = None,
    ) -> Edit:
        """Erases `concepts` from `model` and returns the edit; the model itself stays as it was.

        With `snapshot`, progress is kept there and a run with the same options continues from it. `marks` are files
        for the edit as it is after so many steps.
        """

    def passes(self, concepts: Sequence[Concept]) -> int:  # noqa: ARG002
        """Expected network passes of a whole run, a backward counted as two."""
        return 0

    def extent(self) -> tuple[int, int]:
        """Gradient steps, and rows of one call of the network."""
        return 0, 1

    def size(self, model: Model, concepts: Sequence[Concept]) -> int:  # noqa: ARG002
        """How many numbers the method moves."""
        return sum(w.numel() for w in scoped(model, self.scope).values())

    def memory(self, model: Model, concepts: Sequence[Concept]) -> int:
        """Bytes of all networks and of what the method moves, besides activations."""
        return model.bytes + 4 * self.size(model, concepts)

    def suits(self, concepts: Sequence[Concept]) -> None:
        """Raises ExpungeError if there is nothing to erase, or not by this method."""
        if not concepts:
            raise ExpungeError("nothing to erase: give at least one concept")
        if not self.attributes and any(c.within for c in concepts):
            raise ExpungeError(f"{self.kind} cannot erase an attribute from one prompt only; use a preset of esd")
        if not self.anchors and any(c.anchor for c in concepts):
            raise ExpungeError(f"{self.kind} puts nothing in a concept's place; leave the anchor out, or use ablation")

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        """As `suits`, and raises ExpungeError if the model carries an edit."""
        self.suits(concepts)
        if model.applied:
            raise ExpungeError(f"edit {model.applied[-1]!r} is on the model; take it off before erasing")

    def describe(self, model: Model, concepts: Sequence[Concept], seed: int) -> dict[str, Any]:
        """What determines the result: base, method, options, concepts, seed."""
        return {
            "base": model.identity(scoped(model, self.scope)),
            "method": self.kind,
            "options": self.model_dump(mode="json"),
            "concepts": [c.model_dump(mode="json") for c in concepts],
            "seed": seed,
            "precision": "mixed" if model.mixed else str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "torch": version("torch"),
        }


class Trained(Training, Method):
    """A method that learns by gradient steps."""

    lora_rank: int | None = Field(None, ge=0, description="train a LoRA of this rank; none: the weights themselves")
    batch: int = Field(1, ge=1, description="training points a step")
    loss: Literal["l2", "l1"] = Field("l2", description="distance between prediction and target")
    result: Literal["average", "student"] = Field("average", description="which weights are the edit, where ema is set")
    fixed: tuple[str, ...] = Field((), description="captions that what reads the text must nearly read as before")
    beside: tuple[str, ...] = Field(
        (), description="edits that may be on the model beside this one, FILE[:SCALE]", json_schema_extra={"file": True}
    )
    keep: tuple[str, ...] = Field((), description="captions whose predictions must stay")
    keep_neighbours: int = Field(0, ge=0, description="nearest words of the model's vocabulary, to keep as well")
    keep_gaussian: int = Field(0, ge=0, description="Gaussian neighbours of the concepts' embeddings, to keep as well")
    keep_sigma: float = Field(0.5, gt=0, description="how far those lie, in standard deviations of the embedding")
    keep_weight: float = Field(1.0, ge=0, description="w, weight of the captions to keep")
    keep_batch: int = Field(4, ge=1, description="points of kept captions a step")
    keep_grid: int = Field(10, ge=1, description="DDIM steps of the kept captions' latents")

    def parts(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Parts:  # noqa: ARG002
        """The method's own terms with their weights, where they are regressions."""
        return {}

    @abstractmethod
    def erasing(self, concepts: Sequence[Concept]) -> int:
        """Expected network passes of those terms in a whole run, a backward counted as two."""

    def objective(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Objective:
        """The method's own term, and the captions to keep."""
        parts = {**self.parts(model, concepts, learner, seed), **self.preserved(model, concepts, seed)}
        return Regression(model, learner.student, self.distance, parts)

    def preserved(self, model: Model, concepts: Sequence[Concept], seed: int) -> Parts:
        """The term of the captions to keep, if there are any."""
        if not self._keeps(concepts):
            return {}
        names = whole(concepts)
        near = [model.neighbours(c.name, self.keep_neighbours, names) for c in concepts] if self.keep_neighbours else []
        texts = [*self.held(concepts), *(word for words in near for word in words)]
        rows = [model.captions(texts)] if texts else []
        if self.keep_gaussian:
            rows += [around(model.encode([c.prompt]), self.keep_gaussian, self.keep_sigma, seed) for c in concepts]
        kept = Preserve(model, Condition.cat(rows), grid=self.keep_grid, batch=self.keep_batch, seed=seed)
        return {"keep": (self.keep_weight, kept)}

    def _keeps(self, concepts: Sequence[Concept]) -> int:
        """How many captions and neighbours stay."""
        more = (self.keep_neighbours + self.keep_gaussian) * len(concepts) if self.keep_weight else 0
        return len(self.held(concepts)) + more

    def passes(self, concepts: Sequence[Concept]) -> int:
        """Expected network passes of a whole run."""
        held = self._keeps(concepts)
        return self.erasing(concepts) + (2 * self.keep_grid * held + 4 * self.keep_batch * self.steps if held else 0)

    def held(self, concepts: Sequence[Concept]) -> list[str]:
        """Captions to keep: those that say none of the concepts, but for attributes, which leave other captions."""
        return [k for k in self.keep if self.keep_weight and not any(says(k, n) for n in whole(concepts))]

    def touches(self, concepts: Sequence[Concept]) -> Touches:  # noqa: ARG002
        """Which edits beside this one may have to do with which captions: all with all, as far as is known."""
        return Touches()

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
        marks: Mapping[int, Path] | None = None,
    ) -> Edit:
        self.check(model, concepts)
        base, others = scoped(model, self.scope), Beside(opened(model, self.beside), seed, self.touches(concepts))
        null = projectors(model, base, self.fixed) if self.fixed else {}
        stored = Stored.start(base, self._rows(model, base, concepts), self.lora_rank, seed, null)
        model.pieces, model.widest = 1, 1
        trainer = Trainer(stored.leaves, self, team=model.team)
        student, average = (
            others.weights(model, stored.weights(leaves, base)) if leaves else None
            for leaves in (trainer.parameters, trainer.average)
        )
        learner = Learner(student or {}, average, others)
        about = self.describe(model, concepts, seed)

        def now(name: str, **more: int) -> Edit:
            found = trainer.parameters if self.result == "student" else trainer.result()
            return Edit(stored.difference(found, base), about | stamp() | {"cost": objective.cost(), **more}, name)

        objective = trainer.extra = Counted(self.objective(model, concepts, learner, seed), model, now, others)
        keeper = Snapshots(snapshot, fingerprint(about)) if snapshot else None
        if keeper:
            keeper.load(trainer)

        def stepped(trainer: Trainer, loss: float) -> None:
            if on_step:
                on_step(trainer, loss)
            if marks and model.team.main and (file := marks.get(trainer.step)):
                now(file.stem, after=trainer.step).save(file)

        def over(step: int) -> bool:
            ended, trainer.pace = objective.over(step), objective.inner.pace
            return ended

        train(
            trainer, objective, snapshots=keeper, on_step=stepped, label="erasing", note=lambda: f", {objective}",
            lighter=model.lighter, over=over,
        )  # fmt: skip
        trainer.optimiser.state.clear()  # the moments' room is the difference's
        return objective.inner.chosen(now(name))

    def _rows(self, model: Model, base: Mapping[str, Tensor], concepts: Sequence[Concept]) -> dict[str, list[int]]:
        """Of the scope's text embeddings, the rows of the concepts' own tokens."""
        tables = [name for name in base if model.of_encoder(name) and name.endswith(EMBEDDINGS)]
        return {name: sorted({i for c in concepts for i in model.tokens(name, c.name)}) for name in tables}

    def describe(self, model: Model, concepts: Sequence[Concept], seed: int) -> dict[str, Any]:
        others = rows(opened(model, self.beside), self.touches(concepts))
        return super().describe(model, concepts, seed) | ({"beside": others} if others else {})

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        super().check(model, concepts)
        if model.dtype == torch.float16:
            raise ExpungeError("fp16 gradients underflow; erase with precision bf16, mixed or fp32")
        if model.offload and any(model.of_encoder(name) for name in scoped(model, self.scope)):
            raise ExpungeError(f"scope {self.scope!r} trains text encoders, which --offload takes away; leave it out")
        if self.beside and model.sharded:
            raise ExpungeError("edits beside this one are put on the whole model in each process; leave --fsdp out")
        if self.fixed:
            self._fixes(model, concepts)

    def _fixes(self, model: Model, concepts: Sequence[Concept]) -> None:
        """Raises ExpungeError where captions cannot be fixed, or would fix what is to go."""
        readers(model, weights := scoped(model, self.scope))
        if any(model.of_encoder(name) for name in weights):
            raise ExpungeError(f"scope {self.scope!r} moves embeddings of texts, so no caption can be fixed; use xattn")
        said = [(caption, name) for caption in self.fixed for name in whole(concepts) if says(caption, name)]
        if said:
            raise ExpungeError(f"the fixed caption {said[0][0]!r} says {said[0][1]!r}, which is to go; leave it out")

    def extent(self) -> tuple[int, int]:
        return self.steps, self.batch

    def size(self, model: Model, concepts: Sequence[Concept]) -> int:
        base = scoped(model, self.scope)
        return Stored.size(base, self._rows(model, base, concepts), self.lora_rank)

    def memory(self, model: Model, concepts: Sequence[Concept]) -> int:
        """Also of gradients, two moments of Adam's, the running average, and what stands beside it."""
        each = (20 if self.ema else 16) + (4 if self.beside else 0)
        return model.bytes + each * self.size(model, concepts) + memory(model, opened(model, self.beside))


def stamp() -> dict[str, Any]:
    """Versions, date and licence note for provenance."""
    packages = ("torch", "diffusers", "transformers")
    return {
        "versions": {"expunge": __version__, **{p: version(p) for p in packages}},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": "derived from the base model's weights: the base model's licence applies",
    }


class Counted:
    """An objective that also counts passes, calls and seconds, over kills and resumes, beside `others`.

    `current` is the edit as it is, under a name.
    """

    def __init__(self, inner: Objective, model: Model, current: Callable[[str], Edit], others: Beside) -> None:
        self.inner, self.model, self.meter, self.memo, self.current = inner, model, model.meter, model.memo, current
        self.others, self.begun = others, self._now()

    def _now(self) -> Tensor:
        saved = self.memo.saved if self.memo else 0
        return torch.tensor([self.meter.passes, self.meter.calls, time.monotonic(), saved], dtype=torch.float64)

    def __call__(self, step: int) -> Iterator[Terms]:
        with self.others.some(self.model, step):
            yield from self.inner(step)

    def over(self, step: int) -> bool:
        return self.inner.over(step, self.current, self.cost()["seconds"])

    def __str__(self) -> str:
        return f"{int((self._now() - self.begun)[0])} passes"

    def cost(self) -> dict[str, float]:
        """Passes and calls of all processes; `remembered` are passes that another run had made."""
        passes, calls, seconds, saved = (self._now() - self.begun).tolist()
        shared = {"remembered": int(saved)} if self.memo else {}
        shared |= {"processes": self.model.team.size} if self.model.team.size > 1 else {}
        return {"passes": int(passes), "calls": int(calls), "seconds": round(seconds, 3), **shared}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done inside does not count."""
        before = self._now()
        yield
        self.begun += self._now() - before

    def state(self) -> dict[str, Tensor]:
        return {**self.inner.state(), "spent": self._now() - self.begun, "pieces": torch.tensor(self.model.pieces)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.begun = self._now() - state["spent"]
        self.model.pieces = int(state["pieces"])
        self.inner.restore({k: v for k, v in state.items() if k not in ("spent", "pieces")})


def scoped(model: Model, scope: str) -> dict[str, Tensor]:
    """The model's weights in the scope."""
    return dict(select(model.networks(), scope, model.layout))
