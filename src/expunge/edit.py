"""Edit: what a method did to a model, as weight differences with provenance; it can be scaled, stacked and undone.

The file is safetensors: one tensor `name` → W_edited − W_base (fp32) for each changed parameter, by its diffusers
name, or what makes it up (see `composed`); the metadata key "expunge" holds the provenance as JSON, "sha256" the hash
of both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from .composed import Composed, complete
from .errors import ExpungeError
from .files import SEAL, hash_tensors, home, parsed, read_tensors, write_tensors
from .model import Model, check_finite


class _Word(BaseModel):
    name: str
    within: str | None = None


class _Cost(BaseModel):
    seconds: float


class _About(BaseModel):
    """What is read of a provenance."""

    base: dict[str, Any] = {}
    options: dict[str, Any] = {}
    concepts: list[_Word] = []
    cost: _Cost | None = None


@dataclass(frozen=True)
class Edit:
    """Weight differences by parameter name, and where they come from."""

    delta: Mapping[str, Tensor]
    provenance: Mapping[str, Any]
    name: str = "edit"

    @cached_property
    def hash(self) -> str:
        """sha256 of the weight differences: equal edits, equal hashes."""
        return hash_tensors(dict(self.delta))

    @property
    def erased(self) -> list[str]:
        """What it takes away, by name; from one other prompt alone is not taken away."""
        return [c["name"] for c in self.provenance.get("concepts", []) if not c.get("within")]

    @contextmanager
    def on(self, model: Model, scale: float = 1.0, *, force: bool = False) -> Iterator[Model]:
        """The model with `scale` times this edit inside the block; the weights come back bit for bit after it.

        Edits stack by nesting. Raises ExpungeError if the edit was made for another base, unless forced.
        """
        self.check(model, force=force)
        parameters = model.parameters()
        before = {name: parameters[name].detach().clone() for name in self.delta}
        model.applied.append(self.name)
        try:
            with torch.no_grad():
                for name, delta in self.delta.items():
                    _add(parameters[name], delta, scale)
            yield model
        finally:
            model.applied.pop()
            with torch.no_grad():
                for name, weight in before.items():
                    parameters[name].copy_(weight)

    def check(self, model: Model, *, force: bool = False) -> None:
        """Raises ExpungeError unless the edit fits the model's parameters and, if not forced, its hash."""
        base = {"hash": None, **self.provenance.get("base", {})}
        own = model.identity(self.delta)  # read first: the hashes are the untouched model's
        for part in base.keys() & own.keys() - {"name"}:
            if base[part] != own[part] and not force:
                raise ExpungeError(
                    f"edit {self.name!r} was made for {base.get('name')!r} with {part} {str(base[part])[:12]},"
                    f" not for {model.name!r} with {part} {own[part][:12]}; open that model"
                )
        parameters = model.parameters()
        for name, delta in self.delta.items():
            if name not in parameters or parameters[name].shape != delta.shape:
                raise ExpungeError(
                    f"edit {self.name!r} changes {name} of shape {tuple(delta.shape)}, not in this model"
                )

    def save(self, path: str | Path) -> None:
        """Writes the file whole or not at all."""
        tensors = self.delta.stored if isinstance(self.delta, Composed) else self.delta
        write_tensors(Path(path), dict(tensors), {"expunge": json.dumps(self.provenance, ensure_ascii=False)})

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Raises ExpungeError if the file is missing, damaged, a pickle, not an edit, or holds NaN."""
        path = Path(path)
        tensors, metadata = read_tensors(path)
        if "expunge" not in metadata:
            raise ExpungeError(f"{path} is not an expunge edit: it carries no provenance")
        provenance = _read(metadata["expunge"], path)
        if SEAL not in metadata:
            raise ExpungeError(f"{path} carries no sha256, so it cannot be trusted; make it again")
        if not complete(tensors):
            raise ExpungeError(f"{path} lacks a part of a weight's difference; copy or make it again")
        check_finite(tensors, str(path), "make it again")
        return cls(Composed(tensors), provenance, path.stem)


def _read(text: str, path: Path) -> dict[str, Any]:
    """A provenance. Raises ExpungeError if what is read of it is not what `Edit.save` writes."""
    found: dict[str, Any] = parsed(text, f"the provenance of {path}, which is damaged,")
    try:
        _About.model_validate(found)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "it"
        raise ExpungeError(
            f"the provenance of {path} is damaged: {place} is not as expunge writes it; copy or make it again"
        ) from error
    return found


def _add(parameter: Tensor, delta: Tensor, scale: float) -> None:
    moved = parameter.float() + scale * delta.to(parameter.device, torch.float32)
    parameter.copy_(moved.to(parameter.dtype))


def scaled(text: str) -> tuple[Edit, float]:
    """ "FILE" or "FILE:SCALE" as an edit and its scale. Raises ExpungeError for a scale that is no finite number."""
    path, factor = parts(text)
    if not math.isfinite(factor):
        raise ExpungeError(f"the scale of {text} is not a finite number; 1 applies the edit as it is")
    return Edit.load(path), factor


def parts(text: str) -> tuple[Path, float]:
    """The file and the scale."""
    file, _, scale = text.rpartition(":")
    try:
        return (home(file), float(scale)) if file else (home(text), 1.0)
    except ValueError:
        return home(text), 1.0
