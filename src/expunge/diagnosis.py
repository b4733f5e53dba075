"""What `expunge doctor` looks at."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from .errors import ExpungeError

Finding = tuple[bool, str]


def _python() -> Finding:
    return True, platform.python_version()


def _package(name: str) -> Finding:
    try:
        return True, version(name)
    except PackageNotFoundError:
        return False, f"not installed; pip install {name}"


def _torchvision() -> Finding:
    """A torchvision that does not match torch breaks transformers; without one all is well."""
    if find_spec("torchvision") is None:
        return True, "absent, as it should be"
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        return False, f"broken ({error}); pip uninstall torchvision"
    return True, "installed and working (expunge does not need it)"


def _device() -> Finding:
    from .families import default_device, default_precision

    device = default_device()
    return True, f"{device}, precision {default_precision(device)}"


def _world() -> Finding:
    from .smallworld import path
    from .smallworld.provenance import verify

    try:
        return verify(path())
    except ExpungeError as error:
        return False, str(error)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    return free > 2**30, f"{free / 2**30:.1f} GiB free here"


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    **{name: partial(_package, name) for name in ("torch", "diffusers", "transformers", "safetensors")},
    "torchvision": _torchvision,
    "device": _device,
    "small world": _world,
    "disk": _disk,
}


def diagnose() -> list[dict[str, Any]]:
    """One row for each check: its name, whether it passed, and what was found."""
    rows = []
    for name, check in CHECKS.items():
        ok, found = check()
        rows.append({"check": name, "ok": ok, "found": found})
    return rows
