"""Freed memory that is kept for what comes next, in place of pages that are given back and asked for again.

Each operation of a network on a CPU allocates its result and soon frees it. glibc gives the pages back as often, and
the kernel clears them anew, which is a tenth of a pass and more (`benchmarks/heap.py`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

MEBIBYTE = 2**20
TRIM, MAPPED = (-1, 256 * MEBIBYTE), (-3, 32 * MEBIBYTE)
"""Options of mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: what may stay free at the end of the heap, and from
where on a block has pages of its own, which is the most that glibc takes."""


def keep_freed() -> None:
    """Has glibc do so in this process, unless its environment says otherwise; elsewhere nothing."""
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt: Any = None if told or sys.platform != "linux" else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(*TRIM)
        mallopt(*MAPPED)
