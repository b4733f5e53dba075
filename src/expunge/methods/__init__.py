"""The registry of methods: one line each."""

from __future__ import annotations

from ..errors import unknown
from ..method import Method
from .ablation import Ablation
from .closed_loop import ClosedLoop
from .esd import ESD
from .forget_me_not import ForgetMeNot
from .sdd import SDD
from .uce import UCE

METHODS: dict[str, type[Method]] = {m.kind: m for m in (ESD, SDD, Ablation, ForgetMeNot, UCE, ClosedLoop)}


def method_class(kind: str) -> type[Method]:
    """The method of that name. Raises ExpungeError if there is none."""
    if kind not in METHODS:
        raise unknown("method", kind, METHODS)
    return METHODS[kind]
