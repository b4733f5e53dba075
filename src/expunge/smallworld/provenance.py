"""Where the weights of a world come from: command, seed, versions, and a hash for every file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import ExpungeError
from ..files import hash_file, write_json
from . import NAME, check


def record(folder: Path, command: str, plan: dict[str, Any]) -> None:
    """Writes provenance.json for everything that lies in `folder` now."""
    files = {p.relative_to(folder).as_posix(): hash_file(p) for p in sorted(folder.rglob("*")) if _counts(p, folder)}
    versions = {name: version(name) for name in ("expunge", "torch", "diffusers", "transformers", "tokenizers")}
    write_json(folder / NAME, {"command": command, "plan": plan, "versions": versions, "sha256": files})


def _counts(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.is_file() and path.name != NAME and not any(p.startswith(".") for p in parts)


def verify(folder: Path) -> tuple[bool, str]:
    """Whether every recorded file is there with its hash, and what was found."""
    try:
        return True, f"{check(folder)} files, hashes as recorded"
    except ExpungeError as error:
        return False, str(error)
