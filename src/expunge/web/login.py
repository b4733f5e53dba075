"""Login: one password for all, sessions that the server remembers, and patience with those who guess."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs

import anyio
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from ..errors import ExpungeError
from .bodies import UNREADABLE, read

T = TypeVar("T")

COOKIE = "expunge"
SESSION = 12 * 3600.0
"""Seconds for which a login holds."""
DELAY = 1.0
"""Seconds before a wrong password is answered."""
WRONG, MINUTE = 5, 60.0
"""So many wrong passwords in so many seconds are answered; the next have to wait."""
KEPT = 10_000
"""Sessions, and addresses, that are remembered at most."""
SHORTEST = 8
MOST = 4096
"""Bytes of a form."""


class Login:
    """The sessions of those who gave the password, and who gave wrong ones."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._sessions: dict[str, float] = {}
        self._wrong: dict[str, tuple[float, int]] = {}

    async def answer(self, request: Request) -> Response | None:
        """What to answer instead of the application; None to one who is logged in."""
        path, method, token = request.scope["path"], request.method, request.cookies.get(COOKIE, "")
        if path == "/login":
            return await self._try(request) if method == "POST" else page()
        if time.monotonic() > self._sessions.get(_hash(token), 0.0):
            reads = method == "GET" and "text/html" in request.headers.get("accept", "")
            return RedirectResponse("/login", 303) if reads else PlainTextResponse("log in first", 401)
        return self._leave(token) if (path, method) == ("/logout", "POST") else None

    async def _try(self, request: Request) -> Response:
        address, given = _address(request), _password(await read(request.receive, MOST))
        if wait := self._wait(address):
            return page(f"too many wrong passwords; wait {wait} s", 429, {"Retry-After": str(wait)})
        if hmac.compare_digest(given, self._password):
            return self._enter(secure=request.url.scheme == "https")
        first, count = self._wrong.get(address, (time.monotonic(), 0))
        _remember(self._wrong, address, (first, count + 1))
        await anyio.sleep(DELAY)
        return page("wrong password", 403)

    def _wait(self, address: str) -> int:
        """Seconds until this address may try again."""
        first, count = self._wrong.get(address, (0.0, 0))
        left = first + MINUTE - time.monotonic()
        if left <= 0:
            self._wrong.pop(address, None)
        return int(left) + 1 if left > 0 and count >= WRONG else 0

    def _enter(self, *, secure: bool) -> Response:
        token = secrets.token_urlsafe(32)
        _remember(self._sessions, _hash(token), time.monotonic() + SESSION)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, int(SESSION), httponly=True, samesite="strict", secure=secure)
        return response

    def _leave(self, token: str) -> Response:
        del self._sessions[_hash(token)]
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def page(told: str = "", status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The page that asks for the password, with what was wrong."""
    loader = PackageLoader(__package__, "templates")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("login.html.j2")
    return HTMLResponse(template.render(told=told), status, {"Cache-Control": "no-store"} | (headers or {}))


def read_password(file: Path) -> str:
    """The first line of a UTF-8 file.

    Raises ExpungeError if it cannot be read, holds fewer than 8 characters, or can be read by others.
    """
    try:
        mode, (line, *_) = file.stat().st_mode, file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(
            f"cannot read a password from {file}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if mode & 0o077:
        raise ExpungeError(f"others can read the password in {file}: chmod 600 {file}")
    if len(line) < SHORTEST:
        raise ExpungeError(f"the first line of {file} is no password: give one of at least {SHORTEST} characters")
    return line


def _password(body: bytes) -> bytes:
    """What a form says. Raises HTTPException 400 if it is no such form."""
    try:
        return parse_qs(body.decode(), max_num_fields=10).get("password", [""])[0].encode()
    except ValueError as error:
        raise HTTPException(400, UNREADABLE) from error


def _address(request: Request) -> str:
    """Where it comes from; of a version 6 address the part that one household shares."""
    host = request.client.host if request.client else ""
    try:
        return str(ipaddress.ip_network(f"{host}/64", strict=False)) if ":" in host else host
    except ValueError:
        return host


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _remember(table: dict[str, T], key: str, value: T) -> None:
    """Keeps it, and forgets the oldest of too many."""
    table[key] = value
    while len(table) > KEPT:
        del table[next(iter(table))]
