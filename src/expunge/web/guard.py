"""Guard: stands before all that `expunge serve` serves: who may ask, from which page, for what, and how much."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ExpungeError
from .bodies import LIMIT, Exchange, again, declared, event, inside, netloc, read
from .login import Login

API = "/gradio_api/"
FILE, UPLOAD = API + "file=", API + "upload"
ALLOWED = {
    "GET": re.compile(
        r"/|/(config|theme\.css|manifest\.json|favicon\.ico|robots\.txt)|/(assets|static)/.+"
        rf"|{API}(queue/data|heartbeat/[A-Za-z0-9]+|upload_progress|app_id|file=.+)"
    ),
    "POST": re.compile(rf"{API}(queue/join|run/predict|cancel|reset|upload)"),
}
"""What Gradio's page asks for; all else that Gradio would answer is refused."""
OWN = re.compile(r"/(rate|pictures|frames|runs|files|studies)/.+")
"""Our own routes, by any method."""
OPEN = "/rate/"
"""Needs no password: the link itself is the secret."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gr.HTML makes functions of its templates
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "frame-src 'self'",
        "frame-ancestors 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""For reports, which hold all that they show and may have come from elsewhere."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # under "no-referrer" a form is sent with Origin: null
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """An ASGI application around another.

    It answers to `hosts` alone, if given; asks for the `password`, if given; serves of Gradio's files only those under
    `temporary`; and takes uploads of at most `upload_limit` bytes, other bodies of at most 1 MiB.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str] | None, password: str | None, temporary: Path, upload_limit: int
    ) -> None:
        self.app, self.hosts, self.upload_limit = app, hosts, upload_limit
        self.temporary = temporary.resolve()
        self.login = None if password is None else Login(password)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # nothing here speaks over web sockets
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._http(scope, receive, _headed(send, scope["path"]))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive), send)
        except HTTPException as refusal:
            response = _told(scope["path"], refusal)
        if response:
            await response(scope, receive, send)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """The guard's own answer; None after the application's was sent. Raises HTTPException for a refusal."""
        path, receive = request.scope["path"], request.receive
        check_host(request.headers, self.hosts)
        check_origin(request.method, request.headers)
        limit = self.upload_limit if path == UPLOAD and request.method == "POST" else LIMIT
        declared(request.headers, limit)
        if self.login and not path.startswith(OPEN) and (response := await self.login.answer(request)):
            return response
        check_path(request.method, path, self.temporary)
        if path.startswith(API) and request.method == "POST" and path != UPLOAD:
            receive = again(event(await read(receive), self.temporary, request.headers.get("host", "")), receive)
        await Exchange(receive, send, limit, mend=path.startswith(API)).run(self.app, request.scope)
        return None


def check_host(headers: Headers, hosts: frozenset[str] | None) -> None:
    """Raises HTTPException 421 for another Host, which a page sends that has its name point to this machine."""
    if hosts is not None and headers.get("host", "").lower() not in hosts:
        names = ", ".join(sorted(hosts))
        raise HTTPException(421, f"this server answers to {names}; a tunnel to it must keep the port")


def check_origin(method: str, headers: Headers) -> None:
    """Raises HTTPException 403 for a request of another site's page that could change something."""
    if method in ("GET", "HEAD"):
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    own = origin is None or (origin != "null" and netloc(origin) == headers.get("host", "").lower())
    if not own or site not in ("same-origin", "none"):
        raise HTTPException(403, "this request comes from another site")


def check_path(method: str, path: str, temporary: Path) -> None:
    """Raises HTTPException 404 for what neither Gradio's page nor ours asks for, and for files not in `temporary`."""
    method = "GET" if method == "HEAD" else method
    known = OWN.fullmatch(path) or (method in ALLOWED and ALLOWED[method].fullmatch(path))
    if not known or ".." in path.split("/"):
        raise HTTPException(404, "there is nothing here")
    if path.startswith(FILE) and not inside(path.removeprefix(FILE), temporary):
        raise HTTPException(404, "there is no such file")


def checked_host(host: str, port: int, password: str | None) -> frozenset[str] | None:
    """The Host headers to answer to when served on `host`; None for any, as a proxy may have another name.

    Raises ExpungeError if others could come in without a password.
    """
    if password is not None:
        return None
    if not own_machine(host):
        raise ExpungeError(f"--host {host} lets others in: give --password-file FILE")
    names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host}
    return frozenset({f"{name}:{port}" for name in names} | (names if port == 80 else set()))


def own_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _told(path: str, refusal: HTTPException) -> Response:
    """A refusal, for Gradio's page in the words that it can show."""
    if path.startswith(API):
        return JSONResponse({"error": refusal.detail, "detail": refusal.detail}, refusal.status_code)
    return PlainTextResponse(refusal.detail, refusal.status_code)


def _headed(send: Send, path: str) -> Send:
    """Sends what it is given with our headers, and none that lets other sites read it."""

    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", [])]}
            headers = MutableHeaders(scope=message)
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]
            report = path.startswith("/runs/") and headers.get("content-type", "").startswith("text/html")
            headers.update(HEADERS)
            headers.append("Content-Security-Policy", REPORT_POLICY if report else POLICY)  # a page's own holds too
        await send(message)

    return headed
