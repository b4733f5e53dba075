"""What visitors write is never a path, nor an option; what jobs leave tells how they are getting on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from expunge.cli import main
from expunge.errors import ExpungeError
from expunge.model import Model
from expunge.web import erase, judge, look, studio, views
from expunge.web.desk import Desk, names, number
from expunge.web.line import Line, arguments
from expunge.web.progress import ago, film, of_audit, of_erasure
from expunge.web.routes import routes, zipped
from expunge.web.shelf import NAME, OUT, Shelf

T = TypeVar("T")

lazily = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Here:
    """The studio's work, done in this process."""

    def __call__(self, work: Callable[..., T], *given: Any) -> T:
        return work(*given)

    soon = __call__


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "folder")


@pytest.fixture
def desk(shelf: Shelf) -> Iterator[Desk]:
    line = Line(shelf)
    yield Desk(shelf, line, line, Here(), ["smallworld"], (), "http://127.0.0.1:7860", True)  # type: ignore[arg-type]
    line.close()


def made(shelf: Shelf, name: str = "car", kind: Any = "erase") -> Any:
    return shelf.add(kind, name, name, ["erase", "--out", f"{OUT}.safetensors", "--", name])


@lazily
@given(st.text())
def test_an_id_is_looked_up_and_never_a_path(shelf: Shelf, text: str) -> None:
    for find in (shelf.job, shelf.edit, shelf.audit, shelf.study):
        with pytest.raises(ExpungeError, match="there is no such"):
            find(text)


@lazily
@given(st.text())
def test_a_job_lies_in_a_folder_of_its_own_inside(shelf: Shelf, text: str) -> None:
    first, second = made(shelf, text), made(shelf, text)
    assert first.id != second.id
    for job in (first, second):
        assert NAME.fullmatch(job.id)
        assert shelf.place(job).resolve().parent == shelf.runs.resolve()
        assert shelf.job(job.id) == job


def test_a_link_on_the_shelf_is_followed_by_nobody_who_writes_its_name(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "job.json").write_text("{}")
    shelf.runs.mkdir(parents=True)
    for text in ("../../secret", "..", ".", "/etc", "secret/../..", str(tmp_path / "secret"), "CAR", "a" * 81, None, 3):
        with pytest.raises(ExpungeError):
            shelf.job(text)


@pytest.mark.parametrize(
    ("end", "state"), [(0, "done"), (130, "stopped"), (143, "stopped"), (2, "failed"), (1, "failed"), (None, "stopped")]
)
def test_a_state_is_what_the_disk_tells(shelf: Shelf, end: int | None, state: str) -> None:
    job = made(shelf)
    if end is not None:
        shelf.ended(job, end)
    assert shelf.state(job) == state
    (shelf.place(job) / "told.txt").write_text("erasing\nexpunge: lr must be positive\n")
    assert shelf.complaint(job) == "lr must be positive"


def test_a_killed_run_has_stopped_and_goes_on_where_it_was(desk: Desk) -> None:
    options = ["--method=esd-x", "--set=steps=5000", "--set=latents=2", "--set=grid=2"]
    job = desk.shelf.add("erase", "car", "car", ["erase", *options, "--out", f"{OUT}.safetensors", "--", "car"])
    other = made(desk.shelf, "cat")
    assert arguments(job, desk.shelf.place(job)) == [*job.arguments]
    assert not desk.line.busy
    desk.line.add(job)
    assert desk.line.busy, "and no price is told meanwhile"
    desk.line.add(other)
    desk.line.add(other)
    assert (desk.line.ahead(job), desk.line.ahead(other)) == (0, 1)
    assert "1 run before it" in views.run(desk.shelf, desk.line, other)
    desk.line.stop(other)
    assert desk.line.state(other) == "stopped"
    log = desk.shelf.place(job) / "car.jsonl"
    until(lambda: log.exists() and '"step": 2' in log.read_text())
    assert desk.line.state(job) == desk.shelf.state(job) == "running"
    os.kill(int((desk.shelf.place(job) / "pid").read_text()), signal.SIGKILL)
    until(lambda: desk.line.state(job) == "stopped")
    assert arguments(job, desk.shelf.place(job))[:2] == ["erase", "--resume"]
    assert arguments(job, desk.shelf.place(job))[-2:] == ["--", "car"]


def test_a_run_that_a_killed_server_left_goes_first(shelf: Shelf) -> None:
    options = ["--method=esd-x", "--set=steps=5000", "--set=latents=2", "--set=grid=2"]
    orphan = shelf.add("erase", "car", "car", ["erase", *options, "--out", f"{OUT}.safetensors", "--", "car"])
    other, place = made(shelf, "cat"), shelf.place(orphan)
    process = subprocess.Popen([sys.executable, "-m", "expunge.cli.spare"], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps([arguments(orphan, place), str(place)]) + "\n")
    process.stdin.close()
    until(lambda: shelf.process(orphan) is not None and (place / "car.jsonl").exists())
    line = Line(shelf, "erase")
    line.add(other)
    assert (line.state(orphan), line.state(other), line.ahead(other)) == ("running", "waiting", 1)
    line.stop(orphan)
    assert process.wait() == 143
    until(lambda: line.ahead(other) != 1)
    assert shelf.state(orphan) == "stopped"
    line.close()


def test_a_busy_moment_does_not_set_the_cost(world: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of a few tries; then no more are made."""
    took = iter([9.0, 1.0, *[2.0] * 20])
    monkeypatch.setattr(studio, "opened", lambda _: world)
    monkeypatch.setattr(type(world), "seconds_per_pass", lambda *_: next(took))
    monkeypatch.setattr(studio, "PACES", {})
    assert [studio.pace("smallworld", 4) for _ in range(9)] == [9.0, *[1.0] * 8]
    assert len([*took]) == 22 - studio.TRIES


def test_the_process_that_draws_ends_with_a_killed_server() -> None:
    code = "import os; from expunge.web.studio import Studio; print(Studio()(os.getpid), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        drawing = int(server.stdout.readline())
        server.kill()
    until(lambda: not Path(f"/proc/{drawing}").exists() or "Z (zombie)" in Path(f"/proc/{drawing}/status").read_text())


def until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + 100
    while not so():
        assert time.monotonic() < end
        time.sleep(0.05)


def asked(
    desk: Desk, text: Any = "car", *, card: Any = "auto", other: Any = "esd-x", seed: Any = 0, more: Any = ""
) -> Any:
    return erase.prepared(desk, text, "smallworld", card, other, seed, more)


@pytest.mark.parametrize("text", ["-h", "--out=/tmp/x", "car, --resume", "--\n--set", "--method=uce-2025,'$(id)'"])
def test_a_concept_that_looks_like_an_option_is_a_concept(desk: Desk, text: str) -> None:
    job = asked(desk, text=text)
    at = job.arguments.index("--")
    assert [*job.arguments[at + 1 :]] == names(text)
    assert set(job.arguments[:at]) == {
        "erase",
        "--method",
        "smallworld-object",
        "--frames",
        "frames",
        "--out",
        job.product,
    }
    assert "/" not in job.product


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"text": ""}, "nothing to erase"),
        ({"text": " , \n"}, "nothing to erase"), ({"text": None}, "a text of at most"),
        ({"text": "x" * 5000}, "a text of at most"), ({"text": "a\0b"}, "a text of at most"),
        ({"more": "steps"}, "takes key=value"), ({"more": "steps=-1"}, "steps"),
        ({"more": "stepps=3"}, "did you mean 'steps'"),
        ({"more": "scope=re:(a+)+$"}, "a scope is one of"), ({"more": "keep=*x"}, "alias"),
        ({"card": "other", "other": "ablation-memorised-2023", "more": "picture=/etc/passwd"}, "names a file"),
        ({"card": "other", "other": "ablation-object-2023", "more": "file=../../x"}, "names a file"),
        ({"card": "other", "other": "../../etc"}, "unknown preset"), ({"card": "esd-2023"}, "from the cards"),
        ({"card": ["auto"]}, "from the cards"), ({"seed": -1}, "the seed"), ({"seed": 2**32}, "the seed"),
        ({"seed": float("nan")}, "the seed"), ({"seed": True}, "the seed"), ({"seed": "7"}, "the seed"),
        ({"text": "car -> truck", "card": "smallworld-object"}, "puts nothing in a concept's place"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_begun(desk: Desk, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ExpungeError) as error:
        asked(desk, **changes)
    assert told in str(error.value)
    assert desk.shelf.jobs() == []


@lazily
@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)))
def test_numbers_are_whole_and_within(value: Any) -> None:
    try:
        found = number(value, 1, 8, "how many")
    except ExpungeError:
        return
    assert found == value
    assert 1 <= found <= 8


@pytest.mark.parametrize("value", [-0.1, 1.51, float("nan"), float("inf"), True, "1", None, [1]])
def test_a_strength_is_from_0_to_one_and_a_half(value: Any) -> None:
    with pytest.raises(ExpungeError, match="a strength"):
        look.dial(value)


def test_a_look_refuses_what_is_not_of_the_list(desk: Desk) -> None:
    form = ["smallworld", "a car", 2, 0, "nothing", "", "nothing", "nothing", "nothing", 1, 1, 1]
    assert look.wished(desk, *form).seeds == (0, 1)
    for place, value in [(0, "/etc"), (2, 99), (4, "sld-max,scale=1e9"), (4, "sld-max"), (6, "../x")]:
        with pytest.raises(ExpungeError):
            look.wished(desk, *form[:place], value, *form[place + 1 :])


def test_the_command_that_a_look_shows_draws_those_pictures(desk: Desk, tmp_path: Path, monkeypatch: Any) -> None:
    import shlex

    form = ["smallworld", "a car", 2, 3, "negative", "car", "nothing", "nothing", "nothing", 1, 1, 1]
    monkeypatch.setattr(look, "STEPS", 25)
    wish = look.wished(desk, *form)
    from expunge.web.studio import drawn

    _, after = drawn(wish, tmp_path / "seen")
    command = shlex.split(look.command(wish))
    with pytest.raises(SystemExit) as end:
        main([*command[1:2], "--out", str(tmp_path / "typed"), *command[2:]])
    assert end.value.code == 0
    assert sorted(p.name for p in (tmp_path / "typed").glob("*.png")) == sorted(after), "named by all that makes them"


def test_an_audit_needs_something_to_judge(desk: Desk) -> None:
    for form, told in [
        (("smallworld", [], [], "", 10), "nothing to judge"),
        (("../x", ["sld-max"], [], "", 10), "no such protocol"),
        (("smallworld", ["../../x"], [], "", 10), "no such edit"),
    ]:
        protocol, first, *rest = form
        edits, guidance = ([], first) if first == ["sld-max"] else (first, rest[0])
        with pytest.raises(ExpungeError, match=told):
            judge.prepared(desk, "smallworld", protocol, edits, guidance, *rest[1:])
    job = judge.prepared(desk, "smallworld", "smallworld", [], ["sld-max"], "car", 10)
    assert job.arguments[-1] == job.id


OUTSIDE = [
    "../job.json", "..%2fjob.json", "%2e%2e/job.json", "..%252fjob.json", "....//job.json", "%00.png",
    "x.png/../../job.json",
    "/etc/passwd", "job.json", "a.PNG", "",
]  # fmt: skip


def test_only_what_is_on_the_shelf_is_sent(shelf: Shelf) -> None:
    job = made(shelf)
    shelf.ended(job, 0)
    (shelf.place(job) / job.product).write_bytes(b"weights")
    for folder in (shelf.pictures, shelf.place(job) / "frames"):
        folder.mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(folder / "a-1.png")
    app = FastAPI()
    app.include_router(routes(shelf))
    client = TestClient(app)
    assert client.get("/pictures/a-1.png").status_code == 200
    assert client.get("/frames/car/a-1.png").headers["content-type"] == "image/png"
    assert client.get("/files/car").content == b"weights"
    for name in OUTSIDE:
        for way in (f"/pictures/{name}", f"/frames/car/{name}", f"/frames/{name}/a-1.png", f"/files/{name}"):
            assert client.get(way).status_code == 404, way
        assert client.get(f"/runs/{name}/report.html").status_code == 404
        assert client.get(f"/studies/{name}/answers.csv").status_code == 404


def test_a_folder_is_handed_out_whole_to_two_at_once(tmp_path: Path) -> None:
    (tmp_path / "model" / "unet").mkdir(parents=True)
    for name in ("a.bin", "unet/b.bin"):
        (tmp_path / "model" / name).write_bytes(os.urandom(2_000_000))
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(zipped, [tmp_path / "model"] * 2)
    assert first == second
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["model/a.bin", "model/unet/b.bin"]


def test_progress_is_what_the_logs_tell(shelf: Shelf) -> None:
    steps = [{"step": i, "loss": 1 / i, "passes": 10 * i, "seconds": 2.0 * i, "memory": 2**20} for i in range(1, 11)]
    found = of_erasure([{"run": {"options": {"steps": 40}}}, *steps])
    assert (found.done, found.total, len(found.losses)) == (10, 40, 10)
    assert found.left is not None
    assert 60 <= found.left <= 90, "2 s a step, and the pictures on the way"
    audit = of_audit(
        [{"run": {}}, {"pictures": 32, "seconds": 8.0}, {"pictures": 8, "seconds": 2.0}, {"looks": 40}],
        ["smallworld 1: 40 pictures of each of 2 rows (base, car), at most …"],
    )
    assert (audit.done, audit.total, audit.left) == (40, 80, 10.0)
    assert film(shelf, made(shelf)).steps == ()
    assert [ago(s) for s in (0.2, 42, 600, 7200)] == ["a moment", "42 s", "10 min", "2.0 h"]


HOSTILE = "</strong><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}"


def test_what_comes_from_outside_is_escaped(desk: Desk) -> None:
    shelf, job = desk.shelf, desk.shelf.add("erase", "x", HOSTILE, ["erase", "--out", "x.safetensors", "--", HOSTILE])
    (shelf.place(job) / "told.txt").write_text(f"erasing {HOSTILE}\nexpunge: {HOSTILE}\n")
    (shelf.place(job) / "frames").mkdir()
    (shelf.place(job) / "frames" / "frames.json").write_text(json.dumps({"prompts": [HOSTILE]}))
    for step in (0, 1, 2):
        Image.new("RGB", (2, 2)).save(shelf.place(job) / "frames" / f"{step:06d}-0.png")
    shelf.ended(job, 2)
    provenance = {"concepts": HOSTILE, "more": {HOSTILE: [HOSTILE]}}
    shown = [
        views.run(shelf, desk.line, job), views.table((HOSTILE,), [(HOSTILE, HOSTILE)], HOSTILE),
        views.pair(HOSTILE, (0,), ["a.png"], ["b.png"], HOSTILE), views.strip(HOSTILE, ["a.png"]),
        views.render("edit", name=HOSTILE, about={HOSTILE: HOSTILE}, size=HOSTILE, all=provenance),
        views.render("audit", name=HOSTILE), views.render("file", job=job),
    ]  # fmt: skip
    for text in shown:
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "49" not in text
    assert all("alert(1)" in text for text in shown[:6]), "it is shown"
    assert 'src="/runs/my%20audit%231/report.html"' in views.render("audit", name="my audit#1")


def test_frames_are_shown_once_all_of_a_step_are_there(shelf: Shelf) -> None:
    job = made(shelf)
    folder = shelf.place(job) / "frames"
    folder.mkdir()
    (folder / "frames.json").write_text(json.dumps({"prompts": ["a", "b"]}))
    for name in ("000000-0.png", "000000-1.png", "000007-0.png"):
        Image.new("RGB", (2, 2)).save(folder / name)
    assert film(shelf, job).steps == [0]
