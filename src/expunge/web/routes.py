"""Routes: files that the page shows and hands out. A visitor gives names, which are looked up among what is there."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response

from ..errors import ExpungeError
from ..files import whole
from ..study.export import export
from ..study.store import Answers
from .progress import frames
from .shelf import Job, Shelf

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
        return sent(frames(shelf, known(shelf, id)), name, PICTURE, FOREVER)

    @router.get("/runs/{name}/report.html")
    def report(name: str) -> Response:
        return sent(_found(shelf.known_audits(), name), "report.html", re.compile(r"report\.html"), {})

    @router.get("/files/{name}")
    def file(name: str) -> Response:
        if name in (edits := shelf.known_edits()):
            return FileResponse(edits[name], filename=f"{name}.safetensors")
        job = known(shelf, name)
        if job.kind != "export" or shelf.code(job) != 0:
            raise HTTPException(404)
        made = shelf.place(job) / job.product
        made = zipped(made) if made.is_dir() else made
        return FileResponse(made, filename=made.name)

    @router.get("/studies/{name}/answers.csv")
    def answers(name: str) -> Response:
        text = export(Answers(_found(shelf.known_studies(), name)))
        return Response(
            text, media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}.csv"'}
        )

    return router


def known(shelf: Shelf, id: str) -> Job:
    try:
        return shelf.job(id)
    except ExpungeError:
        raise HTTPException(404) from None


def _found(things: Mapping[str, Path], name: str) -> Path:
    if name not in things:
        raise HTTPException(404)
    return things[name]


def sent(folder: Path, name: str, form: re.Pattern[str], headers: Mapping[str, str]) -> Response:
    """A file of the folder, if its name has the form."""
    if not form.fullmatch(name) or not (folder / name).is_file():
        raise HTTPException(404)
    return FileResponse(folder / name, headers=dict(headers))


def zipped(folder: Path) -> Path:
    """The folder as one file beside it, made once."""
    to = folder.with_name(f"{folder.name}.zip")
    if not to.exists():
        with whole(to) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                archive.write(path, Path(folder.name) / path.relative_to(folder))
    return to
