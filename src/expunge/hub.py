"""Files by path, or on the hub: "owner/name:file"."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from .errors import ExpungeError
from .files import home

NAME = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<file>[\w./ -]+))?")


def located(name: str, suffixes: Collection[str], kind: str = "model") -> Path:
    """The file of a path, or of a `kind` of repository on the hub: "owner/name", "owner/name:file" if it has several.

    Raises ExpungeError if the repository cannot be had, has no such file, or several of these suffixes and none is
    chosen.
    """
    hub, path = NAME.fullmatch(name), home(name)
    local = path.exists() or path.parent.is_dir() or path.suffix in suffixes
    if hub is None or (local and not hub["file"]):
        return path
    folder = _downloaded(hub["id"], [hub["file"]] if hub["file"] else [f"*{suffix}" for suffix in suffixes], kind)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in suffixes)
    if hub["file"] in files:
        return folder / hub["file"]
    if hub["file"] or len(files) != 1:
        told = ", ".join(files[:10]) or "none that can be read"
        raise ExpungeError(f"the {kind} {hub['id']} has these files: {told}; choose one as {hub['id']}:FILE")
    return folder / files[0]


def _downloaded(name: str, patterns: list[str], kind: str) -> Path:
    """The repository's files of these patterns, from the hub or its cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, repo_type=kind, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ExpungeError(f"cannot have the {kind} {name!r}: {reason}; give a file, or owner/name:FILE") from error
