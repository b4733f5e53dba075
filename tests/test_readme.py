"""What the README and the pages of docs/ show works: their commands and Python blocks, each page run in its folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from expunge import erasure, generation, smallworld
from expunge.cli import main
from expunge.erasure import build_method
from expunge.formats import FORMATS
from expunge.guidance import PRESETS
from expunge.judges import INSTRUMENTS
from expunge.method import Method, Trained
from expunge.metrics import METRICS
from expunge.recipe import Recipe, preset_names

ROOT = Path(__file__).parent.parent
PAGES = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


COMMANDS = [
    (page, line)
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if line.startswith("expunge ") and not re.search("world build|sweep smallworld|serve", line)  # take too long
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose ./my-model is a real pipeline."""
    path = tmp_path_factory.mktemp("reader")
    (path / "my-model").symlink_to(smallworld.path())
    return path


def shortened(recipe: Recipe, changes: Mapping[str, Any]) -> Method:
    """The method that is asked for, of a few steps: each page's erasures would take minutes."""
    method = build_method(recipe, changes)
    if not isinstance(method, Trained):
        return method
    few = {"steps": 4, "every": 4, "search": 4, "captions": 4, "look": 4, "proof": 8, "picture_steps": 2}
    few |= {"keep_neighbours": 2, "latents": 4, "images": 4, "grid": 6}
    return method.model_copy(update={k: min(getattr(method, k), n) for k, n in few.items() if hasattr(method, k)})


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erasures and pictures of a few steps."""
    rollout = generation.rollout

    def short(*given: Any) -> Any:
        model, prompts, steering, rngs, settings, *scale = given
        return rollout(model, prompts, steering, rngs, replace(settings, steps=min(settings.steps, 2)), *scale)

    monkeypatch.setattr(erasure, "build_method", shortened)
    monkeypatch.setattr(generation, "rollout", short)


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_run_in_order(folder: Path, page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: starting Python and its libraries for each would take half the time of all tests."""
    here = folder / page
    here.mkdir(exist_ok=True)
    if not (here / "my-model").exists():
        (here / "my-model").symlink_to(folder / "my-model")
    for block in blocks(page, "yaml"):
        if named := re.match(r"# (\S+\.yaml)\n", block):
            (here / named[1]).write_text(block, encoding="utf-8")
    arguments = shlex.split(line, comments=True)[1:]
    hurry(monkeypatch)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", ["expunge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


@pytest.mark.parametrize(("page", "block"), [(page, block) for page in PAGES for block in blocks(page, "python")])
def test_python_runs_after_the_commands(folder: Path, page: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.chdir(folder / page)
    exec(compile(block.replace("...", "pass"), page, "exec"), {"__name__": "__main__"})


def test_pictures_are_there() -> None:
    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert (folder / name).stat().st_size > 1000


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", PAGES["README.md"], flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_preset_and_format_is_told() -> None:
    """Each on the page that is about it, and nothing there that is not."""
    told = set(re.findall(r"`([a-z]+(?:-[a-z]+)*-(?:\d+|[xu]))`", PAGES["methods.md"]))
    assert told == {name for name in preset_names() if not name.startswith("smallworld")}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGES["formats.md"], flags=re.MULTILINE)) == set(FORMATS)
    assert set(re.findall(r"`(negative|s(?:ld|ega)(?:-[a-z]+)?)`", PAGES["guidance.md"])) == set(PRESETS)
    rows = "\n".join(line for line in PAGES["audit.md"].splitlines() if line.startswith(("|", "Eyes")))
    assert {*INSTRUMENTS, *METRICS} <= set(re.findall(r"`([a-z0-9-]+)`", rows))
