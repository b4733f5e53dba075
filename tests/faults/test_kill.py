"""kill -9 at random moments of every command that writes: what is visible is whole, and the end is the same to the bit.

A moment is drawn over the whole life of an undisturbed run, from its first instruction to its last. Every run is killed
again and again and started again each time, then left alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from expunge.edit import Edit
from expunge.files import hash_file
from runner import Runner


@pytest.fixture(scope="module")
def edit(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edit to work with."""
    folder = tmp_path_factory.mktemp("edit")
    runner.finish([*ERASE, "--out", str(folder / "car.safetensors")], folder / "told.txt")
    return folder / "car.safetensors"


ERASE = ["erase", "car", "--method", "esd-x"]
ERASE += [part for value in ("steps=8", "latents=4", "grid=4", "batch=2") for part in ("--set", value)]
POOL = ["erase", "car", "a boat", "--method", "sdd-2023"]
POOL += [p for v in ("steps=4", "trajectory=pool", "grid=4", "batch=2", "keep=[a cat]") for p in ("--set", v)]
PRESET = ["erase", "Orsini", "--method", "smallworld-artist"]
PRESET += [
    p for v in ("steps=4", "latents=4", "grid=3", "batch=2", "contexts=[]", "keep=[a cat]") for p in ("--set", v)
]
GENERATE = ["generate", "a red car", "a cat", "--num", "17", "--steps", "1", "--edit", "EDIT"]
AUDIT = ["audit", "--protocol", "smallworld-objects", "--limit", "12", "--set", "steps=1", "--edit", "EDIT"]

SCENARIOS: dict[str, tuple[list[str], str, int]] = {
    "erase": (ERASE, "car.safetensors", 5),
    "erase from a pool, with an average": (POOL, "pool.safetensors", 4),
    "erase by a preset": (PRESET, "artist.safetensors", 3),
    "generate": (GENERATE, "images", 3),
    "audit": (AUDIT, "audit", 4),
    "export as a pipeline": (["export", "EDIT", "--format", "diffusers"], "model", 8),
    "export as a LoRA": (["export", "EDIT", "--format", "lora", "--rank", "2"], "lora.safetensors", 13),
    "export as a checkpoint": (["export", "EDIT", "--format", "compvis"], "checkpoint.safetensors", 13),
}
"""Arguments, --out, and how often it is killed."""


def visible(folder: Path) -> list[Path]:
    """Files that a user sees: hidden ones and snapshots are the run's own."""
    found = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.parts) and p.suffix != ".snapshot")


def readable(path: Path) -> None:
    """Raises for a file that is not whole."""
    checks: dict[str, Callable[[], object]] = {
        ".safetensors": lambda: whole_tensors(path), ".png": lambda: Image.open(path).load(),
        ".json": lambda: json.loads(path.read_text()), ".html": lambda: path.read_text().index("</html>"),
    }  # fmt: skip
    checks.get(path.suffix, lambda: None)()


def whole_tensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        for name in file.keys():
            file.get_tensor(name)


TIMED = {"report.html", "report.md", "told.txt"}
"""Files that say when they were made, and by which command."""


def content(folder: Path) -> dict[str, str]:
    """What is there in the end: hashes of the files, of edits' weights, and of scores but for their date."""
    found = {}
    for name in visible(folder):
        path = folder / name
        if path.suffix == ".jsonl" or path.name in TIMED:
            continue
        if path.name in ("scores.json", "compare.json"):
            value = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("date", "sha256")}
            found[str(name)] = json.dumps(value)
        elif path.name in ("car.safetensors", "pool.safetensors", "artist.safetensors"):
            found[str(name)] = Edit.load(path).hash
        else:
            found[str(name)] = hash_file(path)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_again_and_again(runner: Runner, edit: Path, tmp_path: Path, scenario: str) -> None:
    arguments, name, kills = SCENARIOS[scenario]
    given = [str(edit) if a == "EDIT" else a for a in arguments]
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    life = runner.finish([*given, "--out", str(tmp_path / "whole" / name)], tmp_path / "told.txt")
    again = [*given, "--out", str(tmp_path / "killed" / name), *(["--resume"] if "erase" in arguments else [])]
    want, before = content(tmp_path / "whole"), runner.kills
    while runner.kills < before + kills:
        while runner.kills < before + kills and runner.kill(again, tmp_path / "told.txt", life):
            for path in visible(tmp_path / "killed"):
                readable(tmp_path / "killed" / path)
        runner.finish(again, tmp_path / "told.txt")
        assert content(tmp_path / "killed") == want
        left = [p.name for p in (tmp_path / "killed").iterdir() if p.name.startswith(".") or p.suffix == ".snapshot"]
        assert not left, "nothing is left behind"
        shutil.rmtree(tmp_path / "killed")
        (tmp_path / "killed").mkdir()


def test_that_were_fifty(runner: Runner) -> None:
    """After the tests above."""
    if runner.kills:
        assert runner.kills >= 50
