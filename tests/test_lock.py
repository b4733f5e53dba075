"""Two runs never write into one place at once, and no lock outlives its run."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import TinyModel
from expunge import ExpungeError, Request, Settings, erase, generate
from expunge.auditing import part, run
from expunge.erasure import check_output
from expunge.lock import locked
from expunge.model import Model
from expunge.plan import plan
from expunge.protocol import protocol

HOLD = """
import sys, time
from pathlib import Path
from expunge.lock import locked
with locked(Path(sys.argv[1]), folder=sys.argv[2] == "folder", shared=sys.argv[3] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(path: Path, kind: str = "file", how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process has the lock; kill -9 ends it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, kind, how], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_writer_is_told_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    told = r"another run is writing .*edit\.safetensors; wait for it"
    with held(path), pytest.raises(ExpungeError, match=told), locked(path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [".edit.safetensors.lock"], "kill -9 leaves the name alone"
    with locked(path), locked(tmp_path / "other.safetensors"):
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())


def test_parts_share_and_keep_the_whole_out(tmp_path: Path) -> None:
    with held(tmp_path, "folder", "shared"):
        with locked(tmp_path, folder=True, shared=True):
            pass
        assert (tmp_path / ".lock").exists(), "the first to leave does not take it from the other"
        with pytest.raises(ExpungeError, match="another run is writing"), locked(tmp_path, folder=True):
            pass
    with locked(tmp_path, folder=True), pytest.raises(ExpungeError), locked(tmp_path, folder=True, shared=True):
        pass
    assert not list(tmp_path.iterdir())


def test_many_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each removes the file that the next one may have open already: never are two inside."""
    monkeypatch.setattr("expunge.lock.PATIENCE", 0)
    inside, most, done = 0, 0, 0
    guard = threading.Lock()

    def turns() -> None:
        nonlocal inside, most, done
        for _ in range(400):
            try:
                with locked(tmp_path / "x"):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0)
                    with guard:
                        inside -= 1
                        done += 1
            except ExpungeError:
                continue

    threads = [threading.Thread(target=turns) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and done > 100 and not list(tmp_path.iterdir())


def test_runs_take_it(tiny: TinyModel, world: Model, tmp_path: Path) -> None:
    """Erase keeps to its file, generate and audit to their folder; shards of an audit may be there together."""
    edit, folder = tmp_path / "edit.safetensors", tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "edit.safetensors.snapshot").touch()
    asked = plan(protocol("smallworld-objects"), world, [], limit=8)
    with held(edit), held(folder, "folder"):
        with pytest.raises(ExpungeError, match="another run is writing"):
            check_output(edit, resume=False)
        with pytest.raises(ExpungeError, match="another run is writing"):
            erase("car", model=world, method="uce-2024", out=edit, resume=True)
        with pytest.raises(ExpungeError, match="another run is writing"):
            generate(tiny(), [Request("a car", 0)], Settings(steps=1), folder)
        for work in (run, lambda *given: part(*given, (0, 2))):
            with pytest.raises(ExpungeError, match="another run is writing"):
                work(asked, world, folder)
