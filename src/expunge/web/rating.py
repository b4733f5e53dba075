"""Rating: a study's pages for raters, plain HTML without a script. Nothing that they get tells which row a picture is.

Addresses in the pages are relative, so that they work below any path. What a browser sends is small, and is read as
strangers' input: it ends in a page with one line, never in a traceback.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import ClientDisconnect

from ..errors import ExpungeError
from ..study.design import PICTURES
from ..study.order import order
from ..study.store import RATINGS, Answers, Unknown, now

MOST = 4096
"""Bytes of a form."""

POLICY = (
    "default-src 'self'; img-src 'self' data:; script-src 'none'; style-src 'unsafe-inline'; object-src 'none';"
    " base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Cache-Control": "no-store", "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff", "X-Robots-Tag": "noindex",
}  # fmt: skip


class Refused(ExpungeError):
    """What a browser sent makes no sense."""


def rating(studies: Callable[[], Mapping[str, Path]]) -> APIRouter:
    """The pages of the studies: folders by token, asked for at each request. A study is read once."""
    router = APIRouter(route_class=_Page)
    open_ = cache(_open)

    def found(token: str) -> Answers:
        folder = studies().get(token)
        if folder is None:
            raise Unknown("there is no such study; ask for its address again")
        return open_(token, folder)

    @router.get("/rate/{token}")
    def start(token: str) -> Response:
        return _page("start", study=found(token).study, count=len(order(found(token).study, "")))

    @router.post("/rate/{token}")
    def begin(token: str) -> Response:
        return _to(f"{token}/{found(token).begin()}")

    @router.get("/rate/{token}/{rater}")
    def show(token: str, rater: str, item: str | None = None) -> Response:
        return _shown(found(token), rater, item)

    @router.post("/rate/{token}/{rater}")
    def keep(token: str, rater: str, form: Annotated[Mapping[str, str], Depends(_form)]) -> Response:
        item, value, shown = (_whole(form, name) for name in ("item", "rating", "shown"))
        if value not in RATINGS:
            raise Refused("a rating is 1, 2, 3, 4 or 5; go back and choose one")
        found(token).answer(rater, item, value, shown)
        return _to(rater)

    @router.get("/rate/{token}/{rater}/{name}")
    def picture(token: str, rater: str, name: str) -> Response:
        return _picture(found(token), rater, name)

    return router


def _open(_: str, folder: Path) -> Answers:
    return Answers(folder)


def _shown(answers: Answers, rater: str, asked: str | None) -> Response:
    """The item that is asked for, or the first without an answer; thanks after the last."""
    known, items = answers.answered(rater), order(answers.study, rater)
    item = next((i for i in items if i not in known), None) if asked is None else _listed(items, asked)
    if item is None:
        return _page("thanks", rater=rater, back=items[-1])
    place = items.index(item)
    return _page(
        "picture", study=answers.study, rater=rater, item=item, place=place + 1, count=len(items), shown=now(),
        chosen=known.get(item), back=items[place - 1] if place else None, small=answers.study.width < SMALL,
    )  # fmt: skip


SMALL = 256
"""Pictures of fewer pixels are shown as squares, not blurred."""


def _listed(items: list[int], asked: str) -> int:
    """Raises Unknown if it is none of the items."""
    if not re.fullmatch(r"[0-9]{1,9}", asked) or int(asked) not in items:
        raise Unknown("there is no such picture in this list; open the study again")
    return int(asked)


def _picture(answers: Answers, rater: str, name: str) -> Response:
    """The PNG at the place that `name` tells, counted from 1."""
    answers.answered(rater)
    items, place = order(answers.study, rater), re.fullmatch(r"([1-9][0-9]{0,8})\.png", name)
    if place is None or int(place[1]) > len(items):
        raise Unknown("there is no such picture in this list; open the study again")
    data = (answers.folder / PICTURES / answers.study.by_id[items[int(place[1]) - 1]].file).read_bytes()
    return Response(data, media_type="image/png", headers=HEADERS | {"Cache-Control": "private, max-age=3600"})


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, each once. Raises Refused if it is none, or too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST:
            raise Refused(f"the form has more than {MOST} bytes; go back and choose again")
    try:
        return {k: v for k, (v, *_) in parse_qs(body.decode(), errors="strict", max_num_fields=8).items()}
    except ValueError as error:
        raise Refused("the form cannot be read; go back and choose again") from error


def _whole(form: Mapping[str, str], name: str) -> int:
    """A field that is a whole number. Raises Refused if it is not there, or anything else."""
    if not re.fullmatch(r"[0-9]{1,15}", form.get(name, "")):
        raise Refused(f"the form lacks {name}, a whole number; go back and choose again")
    return int(form[name])


class _Page(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except (Unknown, Refused, ClientDisconnect) as error:
                return _page("error", 404 if isinstance(error, Unknown) else 422, said=str(error))
            except (ExpungeError, OSError) as error:
                logging.getLogger("uvicorn.error").error("a study cannot be shown: %s", error)
                return _page("error", 503, said="the study cannot be shown just now; try again in a minute")

        return handled


def _to(address: str) -> Response:
    return Response(status_code=303, headers=HEADERS | {"Location": address})


def _page(name: str, status: int = 200, **values: Any) -> Response:
    text = _environment().get_template(f"rate_{name}.html.j2").render(values)
    return Response(text, status, media_type="text/html", headers=HEADERS)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
