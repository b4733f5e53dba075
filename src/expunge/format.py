"""Format: what a file of edited weights looks like to other tools."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from .composed import Composed
from .edit import Edit
from .errors import ExpungeError
from .low_rank import A, B, truncate
from .model import Model
from .scope import EMBEDDINGS


class Format(ABC):
    """One way to write an edit, and to read what other tools wrote."""

    kind: ClassVar[str]
    about: ClassVar[str]
    factored: ClassVar[bool] = False
    """Whether it holds factors of a given rank."""
    suffix: ClassVar[str] = ".safetensors"
    """How the file's name must end for other tools to know it; empty for a folder."""

    @abstractmethod
    def write(self, edit: Edit, model: Model, path: Path, rank: int | None) -> str:
        """Writes whole or not at all; returns what was lost, in words, or the empty string."""

    def read(
        self,
        tensors: Mapping[str, Tensor],  # noqa: ARG002
        metadata: Mapping[str, str],  # noqa: ARG002
        model: Model,  # noqa: ARG002
    ) -> Mapping[str, Tensor] | None:
        """The weight differences that a file of this format holds; None if it is of another format.

        Raises ExpungeError for what it does not understand: nothing is left out in silence.
        """
        return None


def factors(edit: Edit, rank: int | None) -> tuple[dict[str, Tensor], float]:
    """Factors of an edit's matrices as in `low_rank`, and the relative error ‖Δ − B A‖ / ‖Δ‖ over all its weights.

    What was trained as factors keeps them; the rest is truncated to `rank`. Vectors and embeddings are lost.
    Raises ExpungeError if nothing is left, or no rank is given where one is needed.
    """
    stored = edit.delta.stored if isinstance(edit.delta, Composed) else edit.delta
    found: dict[str, Tensor] = {}
    lost = whole = 0.0
    for name, delta in edit.delta.items():
        size, left = float(delta.double().square().sum()), 1.0
        if name + A in stored and rank is None:
            found[name + A], found[name + B], left = stored[name + A], stored[name + B], 0.0
        elif delta.ndim > 1 and rank is not None and not name.endswith(EMBEDDINGS):
            found[name + A], found[name + B], left = truncate(delta, rank)
        whole, lost = whole + size, lost + left**2 * size
    if not found and rank is None:
        raise ExpungeError(f"edit {edit.name!r} was not trained as a LoRA: give --rank, and the error will be told")
    if not found:
        raise ExpungeError(f"edit {edit.name!r} changes no matrix, so a LoRA cannot hold it; export it as delta")
    return found, (lost / whole) ** 0.5 if whole else 0.0


def paired(name: str, down: Tensor, up: Tensor | None, alpha: Tensor | float | None) -> dict[str, Tensor]:
    """The factors of the weight `name` from a file's, whose scale is alpha / rank (1 without alpha).

    Raises ExpungeError unless they are two matrices of one rank and a number.
    """
    number = alpha.item() if isinstance(alpha, Tensor) and alpha.numel() == 1 else alpha
    whole = up is not None and min(down.ndim, up.ndim) > 1 and 0 < len(down) == up.shape[1]
    if up is None or not whole or isinstance(number, Tensor):
        raise ExpungeError(f"the factors of {name} are no pair of matrices with a number; the file is damaged")
    return {name + A: down.float(), name + B: up.float() * ((len(down) if number is None else number) / len(down))}


def consumed(tensors: Mapping[str, Tensor], used: Collection[str]) -> None:
    """Raises ExpungeError if a file holds more than was used of it."""
    left = sorted(set(tensors) - set(used))
    if left:
        raise ExpungeError(f"{left[0]} is more than a plain LoRA of this model has; this kind of adapter is not known")


def known(name: str) -> str:
    """A weight's name as other tools have it: their text encoders' lies under "text_model", ours may."""
    return re.sub(r"^(text_encoder\w*\.)(?=embeddings\.|encoder\.layers\.|final_layer_norm\.)", r"\1text_model.", name)


def loss(error: float, rank: int | None) -> str:
    """The relative error of a truncation in words."""
    what = f"rank {rank}" if rank else "a LoRA"
    return f"{what} leaves out {error:.2%} of the change (relative Frobenius norm)" if error else ""


def modules(found: Mapping[str, Tensor]) -> list[str]:
    """Names of the modules whose weights the factors change."""
    names = [key.removesuffix(A) for key in found if key.endswith(A)]
    wrong = [name for name in names if not name.endswith(".weight")]
    if wrong:
        raise ExpungeError(f"{wrong[0]} is not a module's weight, so a LoRA file cannot name it")
    return [name.removesuffix(".weight") for name in names]
