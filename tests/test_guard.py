"""Nothing passes the guard that should not: no file, no other site's page, no flood, no nonsense, no stranger."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

from expunge import ExpungeError

gr = pytest.importorskip("gradio")

import uvicorn  # noqa: E402
from fastapi import FastAPI, Request, Response  # noqa: E402
from fastapi.responses import HTMLResponse  # noqa: E402
from starlette.datastructures import Headers  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402

from expunge.web import login  # noqa: E402
from expunge.web.bodies import event, inside  # noqa: E402
from expunge.web.guard import POLICY, REPORT_POLICY, Guard, check_origin, check_path, checked_host  # noqa: E402
from expunge.web.login import read_password  # noqa: E402

UPLOAD = 3 * 2**20
PASSWORD = "corréct horse"
CHROMIUM = Path("/usr/bin/chromium")
META = {"_type": "gradio.FileData"}
REPORT = """<!DOCTYPE html><p id="x">still</p><script>document.getElementById("x").textContent = origin</script>"""
STRICT = "img-src 'none'"
FORM = """<!DOCTYPE html><form method="post"><button>send</button></form>"""


@dataclass
class Site:
    """A real Gradio application, mounted among routes of our own, on a real server."""

    port: int
    temporary: Path
    guard: Guard
    app: FastAPI
    events: dict[str, int]
    bodies: list[int] = field(default_factory=list)
    """Sizes of the bodies that a route of our own read to their ends."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **given: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=10, verify=False, **given)

    def raw(self, method: str, target: str, headers: Any = None, body: Any = None) -> tuple[int, bytes]:
        """The answer to a request whose target goes out as it is spelt."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def event(self, route: str, body: str | bytes) -> httpx.Response:
        with self.client() as client:
            headers = {"Content-Type": "application/json"}
            return client.post(f"/gradio_api/{route}", content=body, headers=headers)


def blocks() -> Any:
    with gr.Blocks(analytics_enabled=False) as page:
        name, out = gr.Textbox(label="name", elem_id="name"), gr.Textbox(label="out", elem_id="out")
        gr.HTML('<iframe id="report" src="/runs/r/report.html"></iframe>')
        gr.HTML("5", html_template="<i id='made'>${value}</i>")
        ticks = gr.HTML("0")
        queued, direct = gr.Button("queued", elem_id="queued"), gr.Button("direct", elem_id="direct")
        bring, picture = gr.UploadButton("bring"), gr.Image(elem_id="picture")
        gr.Timer(0.5).tick(lambda: str(time.time()), None, ticks, api_name="tick")
        queued.click(lambda text: f"hello {text}", name, out, api_name="queued")
        direct.click(lambda text: f"direct {text}", name, out, queue=False, api_name="direct")
        bring.upload(lambda file: file, bring, picture, api_name="bring")
    return page


def application() -> tuple[FastAPI, list[int]]:
    app, bodies = FastAPI(), []

    @app.post("/rate/{token}")
    async def rated(request: Request) -> Response:
        bodies.append(len(await request.body()))
        return HTMLResponse("thanks")

    @app.get("/rate/{token}")
    def rate() -> Response:
        return HTMLResponse(
            FORM, headers={"Referrer-Policy": "no-referrer", "Content-Security-Policy": "img-src 'none'"}
        )

    @app.get("/runs/r/report.html")
    def report() -> Response:
        return HTMLResponse(REPORT)

    page = blocks()
    app = gr.mount_gradio_app(app, page, path="/", run_history=False, footer_links=[], show_error=False)
    return app, bodies


@contextmanager
def served(temporary: Path, password: str | None = None) -> Iterator[Site]:
    with socket.socket() as listener, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(temporary))
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app, bodies = application()
        hosts = checked_host("127.0.0.1", port, password)
        guard = Guard(app, hosts=hosts, password=password, temporary=temporary, upload_limit=UPLOAD)
        server = uvicorn.Server(uvicorn.Config(guard, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        gradio = app.routes[-1].app  # type: ignore[attr-defined]
        events = {f.api_name: f._id for f in gradio.get_blocks().fns.values()}
        yield Site(port, temporary, guard, app, events, bodies)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("open")) as found:
        yield found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("locked"), PASSWORD) as found:
        yield found


@pytest.fixture
def secret(tmp_path: Path, site: Site) -> Path:
    file = tmp_path / "secret.txt"
    file.write_text("the secret")
    (site.temporary / "link.txt").unlink(missing_ok=True)
    (site.temporary / "link.txt").symlink_to(file)
    (site.temporary / "own.txt").write_text("brought")
    return file


# ------------------------------------------------------------------------------------------------ files and routes


SPELLINGS = [
    "/gradio_api/file={secret}",
    "/gradio_api/file={encoded}",
    "/gradio_api/file=/{secret}",
    "/gradio_api/file=file://{secret}",
    "/gradio_api/file={temporary}/link.txt",
    "/gradio_api/file={temporary}/../../../../../..{secret}",
    "/gradio_api/file={temporary}/..%2f..%2f..%2f..%2f..%2f..{secret}",
    "/gradio_api/file={temporary}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{secret}",
    "/gradio_api/file={temporary}/%252e%252e/%252e%252e{secret}",
    "/gradio_api/file={temporary}/..\\..\\..{secret}",
    "/gradio_api/file={temporary}/..%5c..%5c..{secret}",
    "/gradio_api/file={secret}%00.png",
    "/gradio_api/file={temporary}/own.txt%00",
    "/gradio_api/file={temporary}",
    "/gradio_api/file={temporary}/",
    "/gradio_api/file=",
    "/gradio_api/file=.",
    "/gradio_api/file=~/secret.txt",
    "/gradio_api/file=" + "a" * 5000,
    "/gradio_api/file=http://127.0.0.1:1/x",
    "/gradio_api/file/{secret}",
    "/gradio_api//file={secret}",
    "/gradio_api/../gradio_api/file={temporary}/own.txt",
    "//gradio_api/file={secret}",
    "/file={secret}",
    "/static/..%2f..%2f..%2f..{secret}",
    "/static/{secret}",
    "/assets/../../../..{secret}",
    "/rate/../gradio_api/file={temporary}/own.txt",
    "/rate/..%2f..{secret}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_path_leads_out(site: Site, secret: Path, spelling: str) -> None:
    encoded = str(secret).replace("/", "%2F")
    target = spelling.format(secret=secret, encoded=encoded, temporary=site.temporary)
    status, body = site.raw("GET", target)
    assert status in ((404, 403) if target.startswith(("/static", "/assets")) else (404,)), body
    assert b"the secret" not in body and b"brought" not in body


@pytest.mark.usefixtures("secret")
def test_what_was_brought_can_be_had(site: Site) -> None:
    target = f"/gradio_api/file={site.temporary}/own.txt"
    assert site.raw("GET", target) == (200, b"brought") and site.raw("HEAD", target) == (200, b"")
    assert site.raw("POST", target)[0] == 404
    assert site.raw("GET", target, {"Range": "bytes=0-1-2"})[0] == 400, "of which Gradio makes a 500"


def test_of_gradio_only_this_is_reached(site: Site) -> None:
    """Whatever routes a new Gradio brings are shut until someone opens them."""
    reached = set()
    gradio = site.app.routes[-1].app  # type: ignore[attr-defined]
    for path, methods in [*gradio.openapi()["paths"].items(), ("/gradio_api/run/predict", ["post"])]:
        for method in methods:
            target = re.sub(r"\{[^}]*\}", "x", path).replace("file=x", f"file={__file__}")
            try:
                check_path(method.upper(), target, Path(__file__).parent)
            except HTTPException as refusal:
                assert refusal.status_code == 404
            else:
                reached.add(f"{method} {path.removeprefix('/gradio_api')}")
    assert reached == {
        "get /", "head /", "get /config", "get /theme.css", "get /manifest.json", "get /favicon.ico", "get /robots.txt",
        "get /assets/{path}", "get /static/{path}", "get /queue/data", "get /heartbeat/{session_hash}",
        "get /upload_progress", "get /app_id", "get /file={path_or_url}", "head /file={path_or_url}",
        "post /queue/join", "post /run/predict", "post /cancel", "post /reset", "post /upload",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/gradio_api/run/other", "/rate/../gradio_api/reset", "/static/../config", "/rate"])
def test_a_path_is_meant_as_it_is_spelt(tmp_path: Path, path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(HTTPException, match="nothing here"):
            check_path(method, path, tmp_path)


@pytest.mark.parametrize(
    "path", ["docs", "redoc", "openapi.json", "gradio_api/info", "gradio_api/proxy=http://x.hf.space/"]
)
def test_gradio_shows_nothing_of_itself(site: Site, path: str) -> None:
    assert site.raw("GET", f"/{path}")[0] == 404


# ------------------------------------------------------------------------------------------------ whence


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1:{}", 200), ("LOCALHOST:{}", 200), ("[::1]:{}", 200), ("evil.example:{}", 421),
                         ("127.0.0.1", 421), ("127.0.0.1:1", 421), ("", 421)]
)  # fmt: skip
def test_another_name_for_this_machine_is_refused(site: Site, host: str, status: int) -> None:
    for path in ("/", "/rate/x"):
        assert site.raw("GET", path, {"Host": host.format(site.port)})[0] == status


FOREIGN = [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://127.0.0.1"}, {"Origin": "http://localhost:{port}"}, {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": "http://127.0.0.1:{port}@evil.example"}, {"Origin": "http://["}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-site"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_other_sites_change_nothing_and_read_nothing(site: Site, headers: dict[str, str]) -> None:
    headers = {k: v.format(port=site.port) for k, v in headers.items()}
    count = len(site.bodies)
    for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/rate/x"):
        for method in ("POST", "OPTIONS", "DELETE"):
            assert site.raw(method, path, headers | {"Access-Control-Request-Method": "POST"})[0] == 403
    assert len(site.bodies) == count
    with site.client() as client:
        for found in (client.get("/config", headers=headers), client.options("/config", headers=headers)):
            assert not [name for name in found.headers if name.startswith("access-control")]


def test_a_page_of_nowhere_may_not_either() -> None:
    with pytest.raises(HTTPException, match="another site"):
        check_origin("POST", Headers({"origin": "null"}))


def test_our_own_pages_may(site: Site) -> None:
    for headers in ({"Origin": site.url, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert site.raw("POST", "/rate/x", headers)[0] == 200


# ------------------------------------------------------------------------------------------------ how much


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 2**16):
        yield b"x" * 2**16


PATHS = [("/rate/x", 2**20), ("/gradio_api/queue/join", 2**20), ("/gradio_api/upload", UPLOAD)]


@pytest.mark.parametrize(("path", "limit"), PATHS)
def test_a_body_is_bounded(site: Site, path: str, limit: int) -> None:
    count = len(site.bodies)
    assert site.raw("POST", path, {"Content-Length": str(limit + 1)})[0] == 413, "before it is sent"
    assert site.raw("POST", path, {"Content-Length": "9" * 18})[0] == 413
    body = site.raw("POST", path, {"Content-Type": "multipart/form-data; boundary=x"}, parts(limit + 2**16))
    assert body[0] == 413 and b"too large" in body[1]
    assert len(site.bodies) == count, "no route sees a whole body"
    assert site.raw("POST", "/rate/x", {}, chunks(2**20))[0] == 200 and site.bodies[-1] == 2**20


def parts(size: int) -> Iterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
    yield from chunks(size)
    yield b"\r\n--x--\r\n"


def test_a_large_upload_within_the_limit_arrives(site: Site) -> None:
    with site.client() as client:
        found = client.post("/gradio_api/upload", files={"files": ("a.bin", b"x" * 2**21)})
    assert found.status_code == 200 and Path(found.json()[0]).stat().st_size == 2**21


@pytest.mark.parametrize("length", [["x"], ["-1"], [""], ["1_0"], ["٣"], ["1", "2"], ["9" * 5000]], ids=str)
def test_a_length_that_is_none(site: Site, length: list[str]) -> None:
    """A server that lets them through is not counted on."""
    headers = [(b"host", f"localhost:{site.port}".encode()), *((b"content-length", n.encode()) for n in length)]
    scope = {"type": "http", "method": "POST", "path": "/rate/x", "headers": headers, "query_string": b""}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(site.guard(scope, receive, send))
    assert sent[0]["status"] == 400


def test_web_sockets_are_refused(site: Site) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    assert site.raw("GET", "/rate/x", upgrade)[0] in (200, 403, 404, 426)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(site.guard({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ------------------------------------------------------------------------------------------------ nonsense


def spelt(data: Any, **more: Any) -> str:
    return json.dumps({"data": data, "session_hash": "abc", **more})


def nested(depth: int) -> str:
    return spelt(["X"]).replace('"X"', "[" * depth + "]" * depth)


BAD = {
    "not JSON": "{nope", "empty": "", "null": "null", "list": "[]", "text": '"x"', "number": "1",
    "half": '{"data":["x"]',
    "no function": spelt(["x"], fn_index=None), "unknown function": spelt(["x"], fn_index=99),
    "negative function": spelt(["x"], fn_index=-1), "huge function": spelt(["x"], fn_index=10**30),
    "endless function": '{"data":["x"],"fn_index":' + "9" * 5000 + "}", "function as text": spelt(["x"], fn_index="x"),
    "function as fraction": spelt(["x"], fn_index=0.5), "function as list": spelt(["x"], fn_index=[1]),
    "no data": json.dumps({"session_hash": "abc"}), "data as object": spelt({"a": 1}), "data as text": spelt("x"),
    "data as number": spelt(5), "deep": nested(40), "deeper": nested(900), "bomb": nested(200_000),
    "long session": spelt(["x"], session_hash="a" * 100_000), "session as object": spelt(["x"], session_hash={}),
    "session with NUL": spelt(["x"], session_hash="a\0"), "odd session": spelt(["x"], session_hash="a b"),
    "long event": spelt(["x"], event_id="a" * 100_000), "half a character": spelt(["\ud800"]),
    "trigger as text": spelt(["x"], trigger_id="x"), "not UTF-8": b'{"data":["\xff"],"session_hash":"abc"}',
    "file elsewhere": spelt([{"path": "/etc/passwd", "meta": META}]),
    "file without meta": spelt([{"path": "/etc/passwd"}]),
    "relative file": spelt([{"path": "../../../../etc/passwd", "meta": META}]),
    "no file": spelt([{"path": 5, "meta": META}]),
    "file in a file": spelt([{"image": [{"path": "/etc/passwd", "meta": META}]}]), "NUL file": spelt([{"path": "/\0"}]),
    "stream": spelt([{"path": "/etc/passwd", "is_stream": True, "meta": META}]),
    "long file": spelt([{"path": "/" * 9999}]),
    "address": spelt([{"path": "http://192.0.2.1/x", "meta": META}]),
    "file beside the data": spelt(["x"], event_data={"path": "/etc/passwd", "meta": META}),
}  # fmt: skip
FEW = {
    "too few": [], "wrong type": [{"a": [1]}], "too many": ["x"] * 9, "none": [None], "number": [5],
    "NaN": [float("nan")],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_told_so(site: Site, name: str) -> None:
    """Whether or not it says which event it means."""
    body = BAD[name]
    given = (
        [body] if isinstance(body, bytes) or "fn_index" in body else [body, body.replace("{", '{"fn_index": 1, ', 1)]
    )
    for text, route in product(given, ("queue/join", "run/predict")):
        found = site.event(route, text)
        assert 400 <= found.status_code < 500
        assert not re.search("Traceback|Internal Server Error|root:", found.text)
    assert not [*site.temporary.rglob("passwd")]
    assert said(site, "queued", ["you"]) == "hello you", "the server goes on"


def said(site: Site, name: str, data: list[Any]) -> Any:
    """What a queued event gives; None if it failed."""
    with site.client() as client:
        body = json.dumps({"data": data, "fn_index": site.events[name], "session_hash": "said"})
        found = client.post("/gradio_api/queue/join", content=body, headers={"Content-Type": "application/json"})
        assert found.status_code == 200, found.text
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "said"}) as stream:
            for line in stream.iter_lines():
                assert "Traceback" not in line
                if "process_completed" in line:
                    told = json.loads(line.removeprefix("data: "))
                    return told["output"]["data"][0] if told["success"] else None
    raise AssertionError("the stream ended early")


@pytest.mark.parametrize("name", FEW)
def test_wrong_data_fails_alone(site: Site, name: str) -> None:
    for wish in ("direct", "queued", "bring"):
        said(site, wish, FEW[name])
        text = json.dumps({"data": FEW[name], "fn_index": site.events[wish], "session_hash": "abc"})
        found = site.event("run/predict", text)
        assert found.status_code < 500 and "Traceback" not in found.text
    assert said(site, "queued", ["you"]) == "hello you"


def test_other_nonsense(site: Site) -> None:
    with site.client() as client:
        stream = client.get("/gradio_api/queue/data", params={"session_hash": "nobody"})
        assert stream.status_code == 200 and "Traceback" not in stream.text, "Gradio breaks the answer off"
        for path in ("cancel", "reset", "upload", "upload?upload_id=x"):
            for given in ({"content": b"x"}, {"json": {}}, {"json": [1]}, {"files": {"files": ("..", b"")}}):
                found = client.post(f"/gradio_api/{path}", **given)  # type: ignore[arg-type]
                assert 400 <= found.status_code < 500 and "Traceback" not in found.text
        for path in ("queue/data", "upload_progress", "heartbeat/"):
            assert 400 <= client.get(f"/gradio_api/{path}").status_code < 500


def test_gradio_reads_what_was_checked(site: Site, secret: Path) -> None:
    """Whatever a key said twice, or another encoding, means to one parser: both get the same text."""
    inner = json.dumps({"path": str(secret), "meta": META})
    twice = f'{{"data": ["x"], "fn_index": {site.events["direct"]}, "session_hash": "abc", "data": [{inner}]}}'
    for body in (twice, twice.encode("utf-16"), twice.replace("path", "p\\u0061th")):
        found = site.event("run/predict", body)
        assert found.status_code == 400
    assert not [*site.temporary.rglob("secret.txt")]
    assert event(b'{"a": 1, "a": 2}', site.temporary, "") == b'{"a": 2}'


def test_a_name_is_of_a_file_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert inside(f"{tmp_path}/a.txt", tmp_path) and not inside("a.txt", tmp_path)


@pytest.mark.usefixtures("secret")
def test_the_server_fetches_nothing(site: Site) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{other.server_port}/x.png"
        own = str(site.temporary / "own.txt")
        for file in ({"path": there}, {"path": own, "url": there}, {"path": own, "url": there.removeprefix("http:")}):
            for wish in ("direct", "queued", "bring"):
                body = spelt([{**file, "meta": META}], fn_index=site.events[wish])
                for route in ("run/predict", "queue/join"):
                    found = site.raw("POST", f"/gradio_api/{route}", {"Content-Type": "application/json"}, body)
                    assert found[0] == 400
        assert (
            site.raw("GET", f"/gradio_api/file={there}")[0] == site.raw("GET", f"/gradio_api/proxy={there}")[0] == 404
        )
        other.shutdown()
    assert not asked
    file = {"path": own, "url": f"{site.url}/gradio_api/file={own}", "meta": META}
    assert said(site, "direct", [file]) is not None, "what was brought may be named"


# ------------------------------------------------------------------------------------------------ headers


@pytest.mark.usefixtures("secret")
def test_every_answer_is_headed(site: Site, locked: Site) -> None:
    targets = [("GET", "/"), ("GET", "/nowhere"), ("POST", "/gradio_api/queue/join"), ("GET", "/rate/x"),
               ("GET", "/gradio_api/queue/data"), ("GET", f"/gradio_api/file={site.temporary}/own.txt"),
               ("GET", "/theme.css"), ("OPTIONS", "/"), ("GET", "/runs/nowhere"), ("GET", "/login")]  # fmt: skip
    for place in (site, locked):
        with place.client() as client:
            for method, path in targets:
                for more in ({}, {"Origin": "http://evil.example", "Accept": "text/html"}, {"Host": "evil.example"}):
                    found = client.request(method, path, headers=more).headers
                    assert POLICY in found["content-security-policy"].split(", ")
                    assert found["x-content-type-options"] == "nosniff" and found["x-frame-options"] == "SAMEORIGIN"
                    assert found.get_list("referrer-policy") == ["same-origin"]
                    assert found["cross-origin-opener-policy"] == found["cross-origin-resource-policy"] == "same-origin"
    with site.client() as client:
        assert client.get("/runs/r/report.html").headers["content-security-policy"] == REPORT_POLICY
        assert client.get("/rate/x").headers["content-security-policy"] == f"{STRICT}, {POLICY}", "both hold"


# ------------------------------------------------------------------------------------------------ the password


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, locked: Site) -> None:
    """No delay, and nobody has guessed yet."""
    monkeypatch.setattr(login, "DELAY", 0)
    assert locked.guard.login
    locked.guard.login._wrong.clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the login takes for the time."""
    found = SimpleNamespace(now=1000.0, monotonic=lambda: found.now)
    monkeypatch.setattr(login, "time", found)
    return found


def enter(client: httpx.Client, password: str = PASSWORD) -> httpx.Response:
    return client.post("/login", data={"password": password})


def test_strangers_stay_out_and_raters_come_in(locked: Site) -> None:
    with locked.client() as client:
        found = client.get("/", headers={"Accept": "text/html,*/*"})
        assert (found.status_code, found.headers["location"]) == (303, "/login")
        for path in ("/", "/config", "/theme.css", "/runs/r/report.html", "/nowhere", "/rate", "/rates/x", "/logout"):
            assert client.get(path).status_code == 401
        for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/logout", "/rate"):
            assert client.post(path, headers={"Accept": "text/html"}).status_code == 401
        for cookie in ("", "x", "x" * 4000, '"\\777"', "é"):
            assert client.get("/config", headers={"Cookie": f"expunge={cookie}".encode()}).status_code == 401
        assert client.get("/rate/x").status_code == client.post("/rate/x").status_code == 200
        page = client.get("/login")
        assert page.status_code == 200 and 'autocomplete="current-password"' in page.text and 'lang="en"' in page.text
        assert "alert" not in page.text


@pytest.mark.usefixtures("quick")
def test_who_knows_the_password_comes_in_and_leaves(locked: Site) -> None:
    with locked.client() as client, locked.client() as other:
        found = enter(client)
        assert (found.status_code, found.headers["location"]) == (303, "/")
        cookie = found.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= {
            *cookie.split("; ")
        } and "Secure" not in cookie
        assert PASSWORD not in cookie and client.cookies["expunge"] not in str(locked.guard.login.__dict__)
        assert client.get("/").status_code == client.get("/config").status_code == 200
        enter(other)
        assert client.post("/logout").headers["location"] == "/login"
        assert client.get("/config", headers={"Cookie": cookie.split(";")[0]}).status_code == 401
        assert other.get("/config").status_code == 200, "one leaves alone"


def test_a_cookie_is_secure_where_the_way_is(locked: Site) -> None:
    async def entered() -> str:
        transport = httpx.ASGITransport(locked.guard)
        async with httpx.AsyncClient(transport=transport, base_url=f"https://localhost:{locked.port}") as client:
            return (await client.post("/login", data={"password": PASSWORD})).headers["set-cookie"]

    assert "Secure" in asyncio.run(entered())


@pytest.mark.usefixtures("quick")
def test_a_session_ends(locked: Site, clock: SimpleNamespace) -> None:
    with locked.client() as client:
        cookie = enter(client).headers["set-cookie"].split(";")[0]
        clock.now += 12 * 3600 - 1
        assert client.get("/config", headers={"Cookie": cookie}).status_code == 200
        clock.now += 2
        assert client.get("/config", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize("wrong", ["", "corréct hors", "corréct horse ", "CORRÉCT HORSE", "\0", "é" * 99])
@pytest.mark.usefixtures("quick")
def test_a_wrong_password_is_told_so(locked: Site, wrong: str) -> None:
    with locked.client() as client:
        found = enter(client, wrong)
        assert found.status_code == 403 and 'role="alert">wrong password' in found.text
        assert "set-cookie" not in found.headers


@pytest.mark.usefixtures("quick")
def test_a_form_that_is_none(locked: Site) -> None:
    for body in (b"\xff", b"password=%ff", b"&".join(b"a=b" for _ in range(99)), b"{}", b"password", b"x" * 2**21):
        status, _ = locked.raw("POST", "/login", {"Content-Type": "application/x-www-form-urlencoded"}, body)
        assert status in (400, 403, 413)


@pytest.mark.usefixtures("quick")
def test_guessing_is_slow(locked: Site, clock: SimpleNamespace) -> None:
    with locked.client() as client:
        for _ in range(2):
            assert [enter(client, "wrong").status_code for _ in range(7)] == [403] * 5 + [429] * 2
            clock.now += 59
            found = enter(client)
            assert (found.status_code, found.headers["retry-after"]) == (429, "2"), "the right one has to wait too"
            assert client.get("/rate/x").status_code == 200
            clock.now += 2
            assert enter(client).status_code == 303


@pytest.mark.usefixtures("quick")
def test_guesses_at_once_are_counted(locked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And while they wait the server answers others."""
    monkeypatch.setattr(login, "DELAY", 1.0)
    found: list[int] = []

    def guess() -> None:
        with locked.client() as client:
            found.append(enter(client, "wrong").status_code)

    threads = [threading.Thread(target=guess) for _ in range(10)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    assert locked.raw("GET", "/rate/x")[0] == 200 and time.monotonic() - start < 0.9
    for thread in threads:
        thread.join()
    assert sorted(found) == [403] * 5 + [429] * 5 and time.monotonic() - start >= 1


@pytest.mark.usefixtures("quick")
def test_memory_of_guesses_is_bounded(locked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "KEPT", 3)

    async def guess(address: str) -> int:
        transport = httpx.ASGITransport(locked.guard, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://localhost:{locked.port}") as client:
            return (await client.post("/login", data={"password": "wrong"})).status_code

    for i in range(9):
        asyncio.run(guess(f"192.0.2.{i}"))
    assert locked.guard.login and [*locked.guard.login._wrong] == [f"192.0.2.{i}" for i in (6, 7, 8)]
    codes = [asyncio.run(guess(f"2001:db8::{i}:1")) for i in range(6)]
    assert codes == [403] * 5 + [429], "a household has many addresses"


def test_a_password_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    with pytest.raises(ExpungeError, match=r"cannot read a password from .*: No such file"):
        read_password(file)
    for text, said in ((b"", "no password"), (b"short\n", "no password"), (b"\nlong enough\n", "no password"),
                       (b"\xff" * 9, "cannot read")):  # fmt: skip
        file.write_bytes(text)
        file.chmod(0o600)
        with pytest.raises(ExpungeError, match=said) as told:
            read_password(file)
        assert "\n" not in str(told.value)
    for text in (PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\nmore\n"):
        file.write_bytes(text.encode())
        assert read_password(file) == PASSWORD
    for mode in (0o644, 0o640, 0o602):
        file.chmod(mode)
        with pytest.raises(ExpungeError, match="chmod 600"):
            read_password(file)


def test_only_who_asks_for_a_password_lets_others_in() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.5"):
        assert {"127.0.0.1:7860", "localhost:7860", "[::1]:7860"} <= (checked_host(host, 7860, None) or set())
        assert checked_host(host, 7860, PASSWORD) is None, "a proxy may have another name"
    assert checked_host("localhost", 80, None) == {
        "127.0.0.1", "localhost", "[::1]", "127.0.0.1:80", "localhost:80", "[::1]:80"
    }  # fmt: skip
    assert "127.0.0.5:1" in (checked_host("127.0.0.5", 1, None) or set())
    for host in ("0.0.0.0", "::", "192.168.1.2", "localhost.example", "", "127.0.0.1.example", "::ffff:1.2.3.4"):
        with pytest.raises(ExpungeError, match=f"--host {re.escape(host)} lets others in: give --password-file FILE"):
            checked_host(host, 7860, None)
        assert checked_host(host, 7860, PASSWORD) is None


# ------------------------------------------------------------------------------------------------ a real browser


FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium: apt-get install chromium")
@pytest.mark.usefixtures("quick")
def test_a_browser_misses_nothing(site: Site, locked: Site, tmp_path: Path) -> None:
    """Gradio's page works, without a complaint, a failed request, or one to anywhere else."""
    from playwright.sync_api import expect, sync_playwright

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page()
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda answer: said.append(answer.url) if answer.status >= 400 else None)
        page.on("requestfailed", lambda request: said.append(f"failed {request.url}"))
        page.goto(site.url)
        out = page.locator("#out :is(input, textarea)")
        page.locator("#name :is(input, textarea)").fill("you")
        page.click("#queued")
        expect(out).to_have_value("hello you")
        page.click("#direct")
        expect(out).to_have_value("direct you")
        page.set_input_files("input[type=file]", tmp_path / "red.png")
        page.wait_for_selector("#picture img")
        assert page.locator("#picture img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
        expect(page.locator("#made")).to_have_text("5")
        expect(page.frame_locator("#report").locator("#x")).to_have_text("null")
        closed = re.compile(r"failed .*/gradio_api/queue/data\?.*")  # by the page itself, when an event is done
        assert not [text for text in said if not closed.fullmatch(text)]
        page.goto(f"{site.url}/rate/x")
        page.wait_for_selector("button")
        said.clear()  # what was left open on a page breaks off as one leaves it, now or a little later
        page.click("button")
        expect(page.locator("body")).to_have_text("thanks")
        page.goto(locked.url)
        page.fill("input", PASSWORD)
        page.click("button")
        page.wait_for_selector("#queued")
        expect(page.frame_locator("#report").locator("#x")).to_have_text("null")  # all of it is here, none breaks off
        browser.close()
    assert not [text for text in said if not closed.fullmatch(text) and not text.startswith(f"failed {site.url}/runs")]
    ours = (f"{site.url}/", f"{locked.url}/", f"blob:{site.url}/", "data:")
    assert [url for url in asked if not url.startswith(ours)] == []
    assert any("upload" in url for url in asked)
