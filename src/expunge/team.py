"""Team: several processes, on one machine or many, that train as one.

    e = [e_0 | e_1 | … | e_{W−1}]        g = (1/W) Σ_r g_r

The rows of a call of the network are divided: process r predicts e_r, and all exchange what they predicted, so that
each holds the same points, targets and loss as one process alone would. In the backward pass process r knows the
gradient through its own rows, which counts W times there; the mean over the processes is then the gradient of the whole
batch. Every process makes the same step, so any one's snapshot is everybody's, and a run goes on with another number
of processes. Results differ by the order of floating-point sums alone.

Accelerate finds the processes that torchrun (or another launcher of its) started, and the backend: NCCL between GPUs,
gloo between CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """Process `rank` of `size`; rank 0 is the one that writes files and speaks."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def spread(self, n: int, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """What `ask` gives for the rows 0 … n - 1, each asked for in one process: (n, …) in all of them.

        Where n is no multiple of the processes, some rows are asked for twice: the network is called equally often
        everywhere.
        """
        import torch
        from accelerate.utils import gather

        if self.size == 1:
            return ask(torch.arange(n))
        own = (torch.arange(self.size * -(-n // self.size)) % n).chunk(self.size)
        mine = ask(own[self.rank])
        parts = [*gather(mine.detach().contiguous()).chunk(self.size)]
        if mine.requires_grad:
            parts[self.rank] = _times(mine, self.size)
        return torch.cat(parts)[:n]

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Makes each gradient the mean of the processes' own."""
        import torch
        from accelerate.utils import reduce

        if self.size > 1:
            for p in parameters:
                p.grad = reduce(torch.zeros_like(p) if p.grad is None else p.grad, "mean")

    def same(self, make: Callable[[], T]) -> T:
        """What `make` gives in the main process."""
        from accelerate.utils import broadcast_object_list

        found = [make() if self.main else None]
        if self.size > 1:
            broadcast_object_list(found)
        return found[0]  # type: ignore[return-value]

    def highest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        held = torch.tensor(value, device=_device())
        distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return int(held)


ALONE = Team()


def here(device: torch.device) -> Team:
    """The processes that a launcher started, this one among them; this one alone, if none did."""
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=30))  # a launcher ends those who are left
    return Team(state.process_index, state.num_processes)


def _device() -> torch.device:
    from accelerate import PartialState

    found: torch.device = PartialState().device
    return found


def _times(x: Tensor, factor: int) -> Tensor:
    """x, whose gradient counts `factor` times."""
    return x.detach() + factor * (x - x.detach())
