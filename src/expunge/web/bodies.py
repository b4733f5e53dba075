"""Bodies: how much of a request is read, and what an event for Gradio may say."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ExpungeError
from ..files import parsed

LIMIT = 2**20
"""Bytes of a body that is no upload."""
DEPTH = 32
"""Levels of an event's JSON."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
LARGE, UNREADABLE = "the request is too large", "the server cannot make sense of this request"
log = logging.getLogger(__name__)


def declared(headers: Headers, limit: int) -> None:
    """Raises HTTPException 400 if the stated length of the body is no number, 413 if it is over the limit."""
    stated = {*headers.getlist("content-length")}
    if len(stated) > 1 or not all(re.fullmatch("[0-9]{1,18}", text) for text in stated):
        raise HTTPException(400, "the Content-Length is no number")
    if stated and int(stated.pop()) > limit:
        raise HTTPException(413, LARGE)


async def read(receive: Receive, limit: int = LIMIT) -> bytes:
    """The whole body. Raises HTTPException 413 over the limit, 400 if the client goes before its end."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the request ends too early")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise HTTPException(413, LARGE)
    return bytes(body)


def event(body: bytes, temporary: Path, host: str) -> bytes:
    """An event for Gradio, spelt anew so that Gradio reads what was checked.

    Raises HTTPException 400 if it is no JSON object, nests too deep, has an odd session, or names a file that is not
    in `temporary` or an address elsewhere: mounted in another application Gradio would open any.
    """
    try:
        value = parsed(body, "an event")
    except ExpungeError as error:
        raise HTTPException(400, UNREADABLE) from error
    names = [value.get(key) for key in ("session_hash", "event_id")] if isinstance(value, dict) else [0]
    if not all(name is None or (isinstance(name, str) and NAME.fullmatch(name)) for name in names):
        raise HTTPException(400, UNREADABLE)
    for part in _objects(value):
        if "path" in part and not (inside(part["path"], temporary) and _here(part.get("url"), host)):
            raise HTTPException(400, "an event may name uploaded files only")
    return json.dumps(value).encode()


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects in a value. Raises HTTPException 400 if it nests too deep."""
    level = [value]
    for _ in range(DEPTH):
        objects = [item for item in level if isinstance(item, dict)]
        yield from objects
        lists = [item for item in level if isinstance(item, list)]
        level = [part for item in [*lists, *(o.values() for o in objects)] for part in item]
    if level:
        raise HTTPException(400, UNREADABLE)


def inside(name: Any, folder: Path) -> bool:
    """Whether it is the absolute path of a file in the folder, links followed."""
    try:
        path = Path(name).resolve()
        return name.startswith("/") and path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError, TypeError, RuntimeError):  # too long, with a NUL, no text, links in a ring
        return False


def _here(url: Any, host: str) -> bool:
    """Whether a file's address is none, its content, or on this server."""
    return url is None or (isinstance(url, str) and (url.startswith("data:") or netloc(url) in ("", host.lower())))


def netloc(url: str) -> str | None:
    """The host and port that an address names; None if it is no address."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def again(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was read already, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class Exchange:
    """A request and its answer.

    Past `limit` bytes of its body the application is told that the client has gone, and is heard no more. With `mend`
    its failures (500, exceptions) become a 400, and a stream that breaks off is ended.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, *, mend: bool) -> None:
        self._receive, self._send, self._left, self._mend = receive, send, limit, mend
        self._begun = self._ended = self._failed = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Raises HTTPException 413 for a body over the limit, 400 for what was mended."""
        try:
            await app(scope, self._take, self._give)
        except Exception as error:
            if self._left >= 0 and not self._mend:
                raise
            log.warning("%s %.200r failed: %.200r", scope["method"], scope["path"], error)
            self._failed = True
        if not self._begun and self._left < 0:
            raise HTTPException(413, LARGE)
        if not self._begun and self._failed:
            raise HTTPException(400, UNREADABLE)
        if not self._ended and self._failed:
            await self._send({"type": "http.response.body"})

    async def _take(self) -> Message:
        message = await self._receive() if self._left >= 0 else {}
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}

    async def _give(self, message: Message) -> None:
        if self._mend and message["type"] == "http.response.start" and message["status"] == 500:
            message = {**message, "status": 400}
            self._failed = "application/json" not in Headers(raw=message["headers"]).get("content-type", "")
        if self._begun or (self._left >= 0 and not self._failed):
            self._begun, self._ended = True, not message.get("more_body", message["type"] == "http.response.start")
            await self._send(message)
