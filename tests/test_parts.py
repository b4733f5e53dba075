"""What is made in parts is what one process makes: shards, torchrun's processes, a Ray cluster that loses a worker."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from expunge import Edit, ExpungeError
from expunge.auditing import jobs
from expunge.cli import main
from expunge.cluster import Job, Opening, spread, worked
from expunge.errors import Interrupted
from expunge.gallery import Store
from expunge.journal import NAME, lines
from expunge.lock import locked
from expunge.model import Model
from expunge.plan import plan
from expunge.protocol import changed, protocol

AUDIT = shlex.split("audit --protocol smallworld-objects --limit 70 --set steps=2 --set metrics=[] --precision fp32")
RECIPE = """
runs: [{name: E, method: esd, options: {steps: 3, grid: 2, latents: 2, batch: 2, lr: 1e-3}}, {preset: uce-2024}]
concepts: [car]
grid: {concepts: [[car], [Marlow]]}
snapshots: []
audit: {protocol: smallworld-objects, limit: 8, set: {steps: 1, metrics: []}}
"""


def command(*arguments: str, torchrun: bool = False) -> subprocess.Popen[str]:
    many = shlex.split("-m torch.distributed.run --standalone --nproc_per_node 2") if torchrun else []
    asked = [sys.executable, *many, "-m", *["--"] * torchrun, "expunge", *arguments]
    return subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it says on stderr, once it has ended so."""
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    return stderr


def expunge(*arguments: str, code: int = 0) -> None:
    """In this process, which has the libraries already."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def scores(out: Path) -> dict[str, Any]:
    """All of it but the date."""
    found: dict[str, Any] = json.loads((out / "scores.json").read_text())
    return {k: v for k, v in found.items() if k not in ("date", "sha256")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    expunge(*AUDIT, "--out", str(out))
    return out


def busy() -> Iterator[psutil.Process]:
    """The workers of this process's own cluster that are at work."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.cmdline()[:1] == ["ray::worked"]:
                yield child


def test_ray_gives_the_same_scores_though_a_worker_is_killed(alone: Path, tmp_path: Path) -> None:
    """Two workers; one is killed at its work, with pictures there and others yet to come."""
    killed: dict[psutil.Process, int] = {}

    def kill() -> None:
        while not killed:
            made = len(list(tmp_path.glob("images/*.png")))
            for worker in busy() if made else ():
                worker.send_signal(signal.SIGKILL)
                killed[worker] = made
                break
            time.sleep(0.01)

    sender = threading.Thread(target=kill, daemon=True)
    sender.start()
    expunge(*AUDIT, "--engine", "ray", "--out", str(tmp_path))
    [(victim, made)] = killed.items()
    assert 0 < made < 70 and not victim.is_running()
    assert scores(tmp_path) == scores(alone)
    pictures = [{p.name: p.read_bytes() for p in out.glob("images/*.png")} for out in (alone, tmp_path)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 70


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_generation_after_its_batch(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of its pictures is the moment."""

    def send() -> None:
        while not list(tmp_path.glob("*.png")):
            time.sleep(0.01)
        if signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler):  # it would end the tests
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    expunge("generate", "a car", "--num", "100", "--steps", "1", "--out", str(tmp_path), code=128 + number)
    sender.join()
    assert len(list(tmp_path.glob("*.png"))) == 32 == len(list(tmp_path.iterdir())) - 1, "no part of a batch, no lock"
    assert sum(line.get("pictures", 0) for line in lines(tmp_path / NAME)[1:]) == 32
    told = "stopped after 32 of 100 pictures, which are kept; give the same command again to go on"
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_signal_ends_judging_after_its_batch(tmp_path: Path) -> None:
    store, asked = Store(tmp_path / "x.jsonl"), [str(i) for i in range(200)]

    def find(names: Sequence[str]) -> list[int]:
        os.kill(os.getpid(), signal.SIGINT)
        return [*map(int, names)]

    with pytest.raises(Interrupted, match="stopped after 64 of 200 looks") as ended:
        store.complete(asked, find, "x")
    assert ended.value.exit_code == 130 and store.read() == {n: int(n) for n in asked[:64]}


PICTURES = shlex.split("generate 'a car' 'a cat' --num 17 --steps 1 --precision fp32 --out")


def test_parts_of_pictures_are_those_of_one_process(tmp_path: Path) -> None:
    """Shards, one after the other, and torchrun's two processes, of which the first finishes."""
    for out, more in (("shards", ["--shard", "2/2"]), ("shards", ["--shard", "1/2"]), ("whole", []), ("shards", [])):
        expunge(*PICTURES, str(tmp_path / out), *more)
        if more:
            assert not (tmp_path / out / "images.json").exists()
            assert len(list((tmp_path / out).glob("*.png"))) == {"2/2": 2, "1/2": 34}[more[1]]
    said = told(command(*PICTURES, str(tmp_path / "processes"), torchrun=True))
    assert said.count("2 processes") == 1 == said.count("generating 34 images of 1 steps")
    outs = [tmp_path / name for name in ("whole", "shards", "processes")]
    files = [{p.name: p.read_bytes() for p in out.iterdir() if p.suffix != ".jsonl"} for out in outs]
    logs = [[x for file in out.glob("log*.jsonl") for x in lines(file) if "run" not in x] for out in outs]
    assert [sum(line["pictures"] for line in found) for found in logs] == [len(files[0]) - 1] * 3
    assert [len(list(out.glob("log*.jsonl"))) for out in outs] == [1, 2, 2]
    assert files[0] == files[1] == files[2] and len(files[0]) == 35


def edits(out: Path) -> dict[str, str]:
    return {p.name: Edit.load(p).hash for p in (out / "edits").glob("*.safetensors")}


def test_shards_of_a_sweep_are_those_of_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """First their erasures; the one that finds all of them there goes on with its pictures."""
    (tmp_path / "sweep.yaml").write_text(RECIPE)
    asked = ["sweep", str(tmp_path / "sweep.yaml"), "--out"]
    expunge(*asked, str(tmp_path / "parts"), "--shard", "1/2")
    assert len(edits(tmp_path / "parts")) == 2 and not (tmp_path / "parts" / "images").exists()
    assert "part 1 of 2 is made" in capsys.readouterr().out
    expunge(*asked, str(tmp_path / "parts"), "--shard", "2/2")
    assert len(edits(tmp_path / "parts")) == 4
    for out in ("parts", "whole"):
        expunge(*asked, str(tmp_path / out))
    assert edits(tmp_path / "parts") == edits(tmp_path / "whole")
    found = [scores(tmp_path / out) for out in ("parts", "whole")]
    assert found[0]["scores"] == found[1]["scores"]


def test_a_worker_makes_what_a_process_makes(alone: Path, world: Model, tmp_path: Path) -> None:
    """An item's bytes, without a cluster; and nothing is asked of one that has all."""
    asked = plan(changed(protocol("smallworld-objects"), None, {"steps": 2, "metrics": []}), world, [], limit=70)
    opening = Opening("smallworld", "cpu", "fp32")
    [job] = jobs(asked, world, tmp_path, opening)
    assert [len(item) for item in job.items] == [32, 32, 6]
    files = worked(opening, job.work, job.items[-1])
    assert files.pop(NAME).count(b"\n") == 2
    assert len(files) == 6 and all((alone / "images" / name).read_bytes() == data for name, data in files.items())
    assert [j.items for j in jobs(asked, world, alone, opening)] == [[]]
    spread([Job(opening, job.work, [], tmp_path)], "nothing")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine", "rya"], "unknown engine 'rya'; did you mean 'ray'"),
        (["--address", "10.0.0.1:6379"], "add --engine ray"),
        (["--engine", "ray", "--shard", "1/2"], "leave --shard and torchrun out"),
        (["--shard", "3/2"], "--shard 3/2 should be i/n"),
    ],
)
def test_what_cannot_be_divided_is_told(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in (["audit"], ["generate", "a car"], ["sweep", "smallworld-eta"]):
        expunge(*asked, "--out", str(tmp_path / "out"), *more, code=2)
        assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_head_where_nobody_listens_is_told() -> None:
    job = Job(Opening("smallworld"), lambda *_: None, [1], Path())
    for address in ("127.0.0.1:1", "127.0.0.1:head"):
        with pytest.raises(ExpungeError, match=f"cannot reach Ray at {address}"):
            spread([job], "x", address=address)


def test_a_second_run_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path, folder=True, shared=True):
        expunge(*AUDIT, "--out", str(tmp_path), code=2)
    assert f"another run is writing {tmp_path}; wait for it, or choose another --out" in capsys.readouterr().err
