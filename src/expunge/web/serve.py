"""Serve: the page, its files and the raters' pages behind one guard, until a signal ends them."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI

from ..errors import ExpungeError, Interrupted
from ..lock import locked
from ..signals import stop_signals
from . import studio
from .desk import Desk
from .erase import EXAMPLES
from .guard import Guard, checked_host, own_machine
from .line import Line
from .page import blocks, dress
from .rating import rating
from .routes import routes
from .shelf import Shelf
from .studies import tokens
from .studio import Studio

UPLOAD = 2 * 2**30
"""Bytes of an edit that a visitor may bring, at most."""
CROWD = 1000
"""Connections at once; more are told to come again."""
GRACE = 2
"""Seconds for open answers, when the server is told to end."""


def application(desk: Desk, hosts: frozenset[str] | None, password: str | None, temporary: Path) -> Guard:
    """All pages behind the guard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes(desk.shelf))
    app.include_router(rating(lambda: tokens(desk.shelf.known_studies())))
    app = gr.mount_gradio_app(
        app, blocks(desk), path="/", footer_links=[], ssr_mode=False, pwa=False, mcp_server=False, run_history=False,
        enable_monitoring=False, show_error=False, max_file_size=UPLOAD, allowed_paths=[], **dress(),
    )  # fmt: skip
    return Guard(app, hosts=hosts, password=password, temporary=temporary, upload_limit=UPLOAD)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a server is started with; a password is needed for any address but loopback."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    models: Sequence[str] = ("smallworld",)
    edits: Mapping[str, Path] = field(default_factory=dict)
    audits: Mapping[str, Path] = field(default_factory=dict)
    studies: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    precision: str = "auto"

    @property
    def ways(self) -> tuple[str, ...]:
        """As options of commands, where they are not what those do by themselves."""
        pairs = (("--device", self.device), ("--precision", self.precision))
        return tuple(part for pair in pairs for part in pair if pair[1] != "auto")


def serve(chosen: Choices, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serves until a signal; `ready` is told the address once it can be opened.

    Raises ExpungeError for an address that needs a password or is taken, for a model that cannot be opened, and if
    another server has the folder; Interrupted in the end.
    """
    shelf = Shelf(chosen.folder, chosen.edits, chosen.audits, chosen.studies)
    with (
        locked(chosen.folder, folder=True), fleeting(shelf.pictures),
        fleeting(chosen.folder.resolve() / ".visitors") as temporary, bound(chosen) as place,
    ):  # fmt: skip
        os.environ["GRADIO_TEMP_DIR"] = str(temporary)
        port = place.getsockname()[1]
        hosts, address = checked_host(chosen.host, port, chosen.password), at(chosen.host, port)
        with opened(chosen, shelf, address, own_machine(chosen.host)) as desk:
            desk.studio(studio.previewed, chosen.models[0], EXAMPLES[0], shelf.pictures)
            app = application(desk, hosts, chosen.password, temporary)
            about = uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False, limit_concurrency=CROWD
            )
            with stop_signals() as received:
                Server(about, lambda: begin(desk, ready)).run([place])
    if received:
        raise Interrupted("ended; what was going on can go on later", 128 + received[0])


def begin(desk: Desk, ready: Callable[[str], None]) -> None:
    """Once the page answers."""
    ready(desk.address)
    desk.line.prepare()


@contextmanager
def opened(chosen: Choices, shelf: Shelf, address: str, loopback: bool) -> Iterator[Desk]:
    """The processes that work; after the block they have ended, and what they were at can go on later."""
    with (
        closing(Studio(chosen.device, chosen.precision)) as drawing,
        closing(Line(shelf, "erase", "audit")) as line,
        closing(Line(shelf, "export", "upload")) as files,
    ):
        yield Desk(shelf, line, files, drawing, [*chosen.models], chosen.ways, address, loopback)


@contextmanager
def fleeting(folder: Path) -> Iterator[Path]:
    """A folder into which nobody else can look, and which goes with the server."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bound(chosen: Choices) -> Iterator[socket.socket]:
    """The address, taken. Raises ExpungeError if it cannot be."""
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((chosen.host, chosen.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            told = f"cannot serve at {at(chosen.host, chosen.port)}: {reason}; choose another --port or --host"
            raise ExpungeError(told) from error
        yield place


def at(host: str, port: int) -> str:
    """The page's address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """Tells when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
