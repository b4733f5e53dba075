"""Memo: tensors that were computed once, by a hash of what they were computed from; the oldest go when it is full."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor


class Memo:
    """At most `limit` bytes. `saved` counts rows that were not computed again."""

    def __init__(self, limit: int = 2**30) -> None:
        self.limit, self.size, self.saved = limit, 0, 0
        self.known: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        if key in self.known:
            self.known.move_to_end(key)
            self.saved += len(self.known[key])
            return self.known[key]
        found = make()
        self.known[key], self.size = found, self.size + found.nbytes
        while self.size > self.limit and self.known:
            self.size -= self.known.popitem(last=False)[1].nbytes
        return found
