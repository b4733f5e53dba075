"""Routes: files that the page shows and hands out. A visitor gives names, which are looked up among what is there."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TypeVar

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response

from ..errors import ExpungeError
from ..files import whole
from ..study.export import export
from ..study.store import Answers
from .progress import frames
from .shelf import Shelf

T = TypeVar("T")
PICTURE = re.compile(r"[a-z0-9][a-z0-9-]*\.png")
FOREVER = {"Cache-Control": "private, max-age=86400, immutable"}
"""Of files whose name tells their content."""


def routes(shelf: Shelf) -> APIRouter:
    """Pictures, frames, reports and edits of a shelf."""
    router = APIRouter(include_in_schema=False)

    @router.get("/pictures/{name}")
    def picture(name: str) -> Response:
        return sent(shelf.pictures, name, PICTURE, FOREVER)

    @router.get("/frames/{id}/{name}")
    def frame(id: str, name: str) -> Response:
        return sent(frames(shelf, found(shelf.job, id)), name, PICTURE, FOREVER)

    @router.get("/runs/{name}/report.html")
    def report(name: str) -> Response:
        return sent(found(shelf.audit, name), "report.html", re.compile(r"report\.html"), {})

    @router.get("/files/{name}")
    def file(name: str) -> Response:
        made = found(shelf.file, name)
        made = zipped(made) if made.is_dir() else made
        return FileResponse(made, filename=f"{name}{made.suffix}")

    @router.get("/studies/{name}/answers.csv")
    def answers(name: str) -> Response:
        text = export(Answers(found(shelf.study, name)))
        return Response(
            text, media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}.csv"'}
        )

    return router


def found(look: Callable[[str], T], name: str) -> T:
    try:
        return look(name)
    except ExpungeError:
        raise HTTPException(404) from None


def sent(folder: Path, name: str, form: re.Pattern[str], headers: Mapping[str, str]) -> Response:
    """A file of the folder, if its name has the form."""
    if not form.fullmatch(name) or not (folder / name).is_file():
        raise HTTPException(404)
    return FileResponse(folder / name, headers=dict(headers))


ZIPPING = Lock()


def zipped(folder: Path) -> Path:
    """The folder as one file beside it, made once."""
    to = folder.with_name(f"{folder.name}.zip")
    with ZIPPING:
        if not to.exists():
            with whole(to) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                    archive.write(path, Path(folder.name) / path.relative_to(folder))
    return to
