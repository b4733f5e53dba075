"""Composed: weights by name, out of what is stored of them.

name                             W or ΔW, whole
name.lora_A, name.lora_B         ΔW = B A
name.rows, name.values           rows of W or ΔW; the others stay. `rows` marks them (a byte for each row of W)

and where it is learned across a null space (see `null_space`), by its projector: W₀ + (W − W₀) N.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from . import low_rank
from .errors import ExpungeError
from .low_rank import A, B
from .rng import torch_rng

ROWS, VALUES = ".rows", ".values"
NUMBERS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
"""Kinds of numbers that weights are computed in."""


@dataclass(frozen=True)
class Composed(Mapping[str, Tensor]):
    """The weights that `stored` gives on top of `base`; without `base`, the differences that it stores.

    `null` are projectors N (in, in) by name.
    """

    stored: Mapping[str, Tensor]
    base: Mapping[str, Tensor] | None = None
    null: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        weight = self._whole(name)
        if name not in self.null:
            return weight
        assert self.base is not None, "differences are projected as they are made"
        start = self.base[name].detach().to(weight)
        return start + (weight - start) @ self.null[name]

    def _whole(self, name: str) -> Tensor:
        if name in self.stored:
            return self.stored[name]
        if name + A in self.stored:
            product = low_rank.product(self.stored[name + A], self.stored[name + B])
            return product if self.base is None else self.base[name].detach().to(product) + product
        rows, values = self.stored[name + ROWS], self.stored[name + VALUES]
        whole = values.new_zeros(len(rows), *values.shape[1:])
        start = whole if self.base is None else self.base[name].detach().to(values)
        return start.index_copy(0, rows.nonzero().flatten().to(values.device), values)

    def scaled(self, s: float) -> Composed:
        """These differences times s, stored as they are."""
        return Composed({key: x if key.endswith((A, ROWS)) else s * x for key, x in self.stored.items()})

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a weight, without composing it. Raises KeyError or ValueError if what is stored does not fit together."""
        kinds = {self.stored[key].dtype for key in (name, name + A, name + B, name + VALUES) if key in self.stored}
        if len(kinds) != 1 or not kinds <= NUMBERS:
            raise ValueError(f"{name} is no weight's difference")
        if name in self.stored:
            return tuple(self.stored[name].shape)
        if name + A in self.stored:
            a, b = self.stored[name + A], self.stored[name + B]
            if min(a.ndim, b.ndim) < 2 or b.shape[1:].numel() != len(a):
                raise ValueError(f"the factors of {name} do not fit")
            return (len(b), *a.shape[1:])
        rows, values = self.stored[name + ROWS], self.stored[name + VALUES]
        if rows.ndim != 1 or rows.dtype != torch.uint8 or not values.ndim or rows.count_nonzero() != len(values):
            raise ValueError(f"the rows of {name} do not fit")
        return (len(rows), *values.shape[1:])

    def __contains__(self, name: object) -> bool:
        return any(f"{name}{part}" in self.stored for part in ("", A, VALUES))

    def __iter__(self) -> Iterator[str]:
        names = (_name(key) for key in self.stored)
        return (name for name in names if name is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


LARGEST = 2**30
"""Numbers of a composed weight: a few stored ones must not claim all memory."""


def complete(stored: Mapping[str, Tensor]) -> bool:
    """Whether every weight can be composed, in one way, and none is larger than any network's."""
    names = [*Composed(stored)]
    try:
        return 0 < len(names) == len({*names}) and all(prod(Composed(stored).shape(n)) <= LARGEST for n in names)
    except (KeyError, ValueError):
        return False


def _name(key: str) -> str | None:
    """The weight that a stored tensor stands for; None for the second of a pair."""
    if key.endswith((B, ROWS)):
        return None
    return key.removesuffix(A).removesuffix(VALUES)


@dataclass(frozen=True)
class Parts:
    """What of the weights is trained (`leaves`, which require gradients), and the marks of chosen rows.

    `null` are the projectors of weights that learn across a null space.
    """

    leaves: dict[str, Tensor]
    marks: dict[str, Tensor]
    null: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        base: Mapping[str, Tensor],
        rows: Mapping[str, list[int]],
        rank: int | None,
        seed: int,
        null: Mapping[str, Tensor] | None = None,
    ) -> Parts:
        """As `base` is: of weights in `rows` those rows alone, of the others factors if `rank` is given.

        Raises ExpungeError if there is nothing left to train: vectors have no factors.
        """
        marks = {name + ROWS: _marked(len(base[name]), ids) for name, ids in rows.items()}
        leaves = {name + VALUES: base[name].detach().float()[ids] for name, ids in rows.items()}
        for name, weight in base.items():
            if name not in rows and rank is None:
                leaves[name] = weight.detach().float().clone()
            elif name not in rows and rank is not None and weight.ndim > 1:
                leaves |= low_rank.start(name, weight, rank, torch_rng(seed, f"lora/{name}"))
        if not leaves:
            raise ExpungeError("the scope holds no matrices, so a LoRA cannot change it; choose another scope")
        return cls({name: leaf.requires_grad_() for name, leaf in leaves.items()}, marks, null or {})

    @staticmethod
    def size(base: Mapping[str, Tensor], rows: Mapping[str, list[int]], rank: int | None) -> int:
        """How many numbers `start` would train."""
        own = sum(len(ids) * base[name][0].numel() for name, ids in rows.items())
        others = [w for name, w in base.items() if name not in rows]
        if rank is None:
            return own + sum(w.numel() for w in others)
        return own + sum(rank * (len(w) + w[0].numel()) for w in others if w.ndim > 1)

    def weights(self, leaves: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Composed:
        """All trained weights, of leaves such as these."""
        return Composed({**leaves, **self.marks}, base, self.null)

    def difference(self, leaves: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Composed:
        """What leaves such as these change, on the CPU."""
        moved = {name: leaf.detach().float().cpu() - self._before(name, base) for name, leaf in leaves.items()}
        return Composed({name: self._free(name, delta) for name, delta in moved.items()} | self.marks)

    def _free(self, name: str, delta: Tensor) -> Tensor:
        """What of a difference, or of its factor that reads, is in the null space."""
        null = self.null.get(name.removesuffix(A))
        return delta if null is None else delta @ null.cpu()

    def _before(self, name: str, base: Mapping[str, Tensor]) -> Tensor:
        if name.endswith((A, B)):
            return torch.zeros(())
        whole = base[name.removesuffix(VALUES)].detach().float().cpu()
        return whole[self.marks[name.removesuffix(VALUES) + ROWS].bool()] if name.endswith(VALUES) else whole


def _marked(n: int, ids: list[int]) -> Tensor:
    marks = torch.zeros(n, dtype=torch.uint8)
    marks[ids] = 1
    return marks
