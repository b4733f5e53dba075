"""Disks that are full or read-only, folders that vanish, clocks that go backwards: one line, exit code 2, what was
there stays, nothing is left half-written, and the same command ends well once it can.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from expunge import Concept, Edit, Request, Settings, erasure, generate, method, smallworld
from expunge.cli import main
from expunge.families import load
from expunge.files import hash_tensors
from expunge.journal import NAME
from expunge.methods import METHODS
from expunge.model import Model
from expunge.training import Snapshots, Trainer

MEBIBYTE = 2**20
SIZE = 64 * MEBIBYTE


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small file system of its own, which is the working folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, check=False, text=True
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    monkeypatch.chdir(folder)
    yield folder
    os.chdir(tmp_path)
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """A file that leaves that many bytes free, in whole pages."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    return ballast


def called(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[object, list[str]]:
    """Exit code and the lines of stderr, but for plans and progress."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(shlex.split(command))
    lines = [line for text in capfd.readouterr().err.split("\n") for line in text.split("\r")[-1:]]
    return stopped.value.code, [line for line in lines if line.startswith(("expunge:", "Traceback"))]


def files(folder: Path) -> dict[str, bytes]:
    """All of them, hidden ones too, but for what fills the disk, and for the times that a journal tells."""
    found = {
        str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file() and p.name not in ("ballast", NAME)
    }
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.fixture(scope="module")
def edit(world: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = torch.Generator().manual_seed(0)
    weights = {n: p for n, p in world.parameters().items() if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    file = tmp_path_factory.mktemp("edit") / "edit.safetensors"
    delta = {n: 1e-3 * torch.randn(p.shape, generator=rng) for n, p in weights.items()}
    Edit(delta, {"base": world.identity(delta)}).save(file)
    return file


ERASE = "erase car --method uce-2024 --out out.safetensors"
PAINT = "generate 'a car' 'a cat' --steps 2 --num 2 --out pictures"
AUDIT = "audit --protocol smallworld-objects --set steps=2 --limit 3 --out audit"
EXPORT = "export @edit --format {} --out {}"
COMMANDS = {
    "erase": (ERASE, 0), "erase, nearly": (ERASE, 100_000), "generate": (PAINT, 0), "generate, nearly": (PAINT, 12_288),
    "audit": (AUDIT, 0), "audit, nearly": (AUDIT, 49_152), "audit, but for its report": (AUDIT, 81_920),
    "delta": (EXPORT.format("delta", "out.safetensors"), 100_000),
    "kohya": (EXPORT.format("kohya --rank 2", "out.safetensors"), 8192),
    "compvis": (EXPORT.format("compvis", "out.safetensors"), MEBIBYTE),
    "diffusers": (EXPORT.format("diffusers", "folder"), 10 * MEBIBYTE),
    "import": ("import @weights --out out.safetensors", 4096),
}  # fmt: skip


@pytest.fixture
def shelf(edit: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What commands read."""
    weights = edit.parent / "weights.safetensors"
    if not weights.exists():
        assert called(f"export {edit} --format delta --out {weights}", capfd)[0] == 0
    return {"@edit": str(edit), "@weights": str(weights)}


def spoken(command: str, shelf: dict[str, str]) -> str:
    for name, path in shelf.items():
        command = command.replace(name, path)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(
    name: str,
    disk: Path,
    shelf: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    command, left = COMMANDS[name]
    command = spoken(command, shelf)
    (disk / "out.safetensors").write_bytes(b"old")
    ballast = fill(disk, left)
    code, said = called(command, capfd)
    assert (code, len(said)) == (2, 1), said
    assert said[0].startswith("expunge: cannot write")
    assert "No space left on device" in said[0]
    assert "free some space" in said[0]
    kept = files(disk)
    assert kept.pop("out.safetensors") == b"old"
    assert not [n for n in kept if n.startswith(".") or "/." in n or n.endswith(".part")]
    ballast.unlink()
    (disk / "out.safetensors").unlink()
    assert called(command, capfd) == (0, [])
    assert files(disk).items() >= {n: data for n, data in kept.items() if n.endswith(".png")}.items()
    assert not list(disk.rglob(".*"))
    found = outcome(disk)
    monkeypatch.chdir(tmp_path_factory.mktemp("whole"))
    if command not in WHOLE:
        called(command, capfd)
        WHOLE[command] = outcome(Path())
    assert found == WHOLE[command] != {}


WHOLE: dict[str, dict[str, object]] = {}
"""What commands leave that nothing disturbs."""


def outcome(folder: Path) -> dict[str, object]:
    """All that does not tell the time."""
    found: dict[str, object] = {n: data for n, data in files(folder).items() if n.endswith(".png")}
    found |= {str(p.relative_to(folder)): hash_tensors(load_file(p)) for p in folder.rglob("*.safetensors")}
    return found | {
        str(p.relative_to(folder)): json.loads(p.read_text())["scores"] for p in folder.rglob("scores.json")
    }


@pytest.mark.parametrize("name", [n for n in COMMANDS if "," not in n])
def test_a_read_only_folder(name: str, disk: Path, shelf: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    """Told before anything is opened or made; what is read may lie there."""
    (disk / "out.safetensors").write_bytes(b"old")
    shutil.copy(shelf["@edit"], disk / "edit.safetensors")
    before = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    capfd.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(shlex.split(spoken(COMMANDS[name][0], shelf)))
    told = capfd.readouterr().err
    assert told.startswith("expunge: cannot write")
    assert told.count("\n") == 1
    assert files(disk) == before
    assert called(f"info {disk / 'edit.safetensors'}", capfd) == (0, [])


REQUESTS = [Request("a red car", 0), Request("a cat", 1)]


def test_a_model_whose_folder_vanishes_is_whole(world: Model, tmp_path: Path) -> None:
    """What was opened is in memory."""
    folder = shutil.copytree(smallworld.path(), tmp_path / "world")
    model = load(folder, device="cpu", precision="fp32")
    shutil.rmtree(folder)
    for opened, out in ((model, tmp_path / "a"), (world, tmp_path / "b")):
        generate(opened, REQUESTS, Settings(steps=2), out)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def interrupted(model: Model, out: Path, patch: pytest.MonkeyPatch) -> Path:
    """An erasure that stops after three of six steps; its snapshot."""

    def stop(trainer: Trainer, _: float) -> None:
        if trainer.step == 4:
            raise KeyboardInterrupt

    patch.setattr(Snapshots, "due", lambda _: True)
    with pytest.raises(KeyboardInterrupt):
        erasure.run(model, ESD, [Concept(name="car")], out, on_step=stop)
    return erasure.snapshot_path(out)


ESD = METHODS["esd"](steps=6, grid=3, batch=2, lr=1e-3, trajectory="pool")  # type: ignore[arg-type]
OPTIONS = "--method esd-x --precision fp32 " + " ".join(
    f"--set {k}={v}" for k, v in {"steps": 6, "grid": 3, "batch": 2, "lr": 1e-3, "trajectory": "pool"}.items()
)


def test_a_model_that_is_gone_before_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is told, the snapshot waits, and once the model is back the edit is that of an undisturbed run."""
    folder = shutil.copytree(smallworld.path(), tmp_path / "world")
    model = load(folder, device="cpu", precision="fp32")
    whole = erasure.run(model, ESD, [Concept(name="car")], tmp_path / "whole.safetensors")
    snapshot = interrupted(model, tmp_path / "edit.safetensors", monkeypatch)
    kept = snapshot.read_bytes()
    folder.rename(tmp_path / "elsewhere")
    command = f"erase car {OPTIONS} --model {folder} --out {tmp_path / 'edit.safetensors'} --resume"
    code, said = called(command, capfd)
    assert (code, len(said)) == (2, 1)
    assert "no model at" in said[0]
    assert snapshot.read_bytes() == kept
    (tmp_path / "elsewhere").rename(folder)
    resumed = erasure.run(model, ESD, [Concept(name="car")], tmp_path / "edit.safetensors", resume=True)
    assert resumed.hash == whole.hash
    assert not snapshot.exists()


class Backwards(datetime.datetime):
    """A clock that goes back a year each time that somebody looks."""

    looks = 0

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Backwards:
        cls.looks += 1
        return cls(2026 - cls.looks, 1, 1, tzinfo=tz)


def test_a_clock_that_goes_backwards(world: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And files from the future: the same edit, the same pictures, none of them made twice."""
    whole = erasure.run(world, ESD, [Concept(name="car")], tmp_path / "whole.safetensors")
    generate(world, REQUESTS, Settings(steps=2), tmp_path / "whole", [(whole, 1.0)])
    start = time.time()
    seconds = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start - 1000 * next(seconds))
    monkeypatch.setattr(method, "datetime", Backwards)
    snapshot = interrupted(world, tmp_path / "edit.safetensors", monkeypatch)
    os.utime(snapshot, (4e9, 4e9))
    resumed = erasure.run(world, ESD, [Concept(name="car")], tmp_path / "edit.safetensors", resume=True)
    assert resumed.hash == whole.hash
    assert Edit.load(tmp_path / "edit.safetensors").hash == whole.hash
    generate(world, REQUESTS, Settings(steps=2), tmp_path / "late", [(resumed, 1.0)])
    for file in (tmp_path / "late").iterdir():
        os.utime(file, (4e9, 4e9))
    passes = world.meter.passes
    generate(world, REQUESTS, Settings(steps=2), tmp_path / "late", [(resumed, 1.0)])
    assert world.meter.passes == passes
    assert files(tmp_path / "late") == files(tmp_path / "whole")
    assert Backwards.looks
