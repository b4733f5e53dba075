"""Who may import whom, and how long it takes."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import time
from pathlib import Path

import pytest

import expunge
from expunge.collecting import uncollected

ROOT = Path(expunge.__file__).parent
LAYERS = [
    {"errors", "rng", "team", "collecting", "exact", "heap"},
    {"files", "signals"},
    {"yaml", "concept", "score", "picture", "original", "prompts", "hub"},
    {"lock", "journal", "memo", "scope", "training", "recipe", "low_rank", "result", "loop"},
    {"model", "composed", "summary"},
    {"edit", "processes", "steering", "attention", "sharding", "null_space", "lexicon"},
    {"families"},
    {"format", "cluster"},
    {"hook"},
    {"guided"},
    {"guidance", "formats"},
    {"generation"},
    {"judge", "maps"},
    {"cell", "beside"},
    {"trajectory", "touching"},
    {"objective", "growing"},
    {"method", "pushing"},
    {"rolled", "merge", "asking"},
    {"runlog", "frames"},
    {"smallworld"},
    {"vision", "gallery", "protocol", "filter"},
    {"judges", "metric"},
    {"witness"},
    {"looking"},
    {"closing"},
    {"methods"},
    {"metrics", "erasure"},
    {"variant"},
    {"plan"},
    {"scoring"},
    {"demo", "diagnosis", "auditing", "sweep"},
    {"study"},
    {"report"},
    {"web"},
    {"cli"},
    {"__main__"},
]
"""From the ground up: a module may import from the layers below its own, never from its own or above."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[tuple[str, str]]:
    """(top-level part, full relative module) of every import of expunge's own, except under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    depth = len(path.relative_to(ROOT).parts)
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    lazy = {n for guard in guards for n in ast.walk(guard)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in lazy:
            package = path.relative_to(ROOT).parts[: depth - node.level]
            base = [*package, *(node.module or "").split(".")] if node.module else list(package)
            for alias in node.names:
                whole = [p for p in base if p] or [alias.name]
                found.add((whole[0], ".".join(whole)))
    return found


FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py" or p.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_upwards(path: Path) -> None:
    own = part(path)
    for other, module in imported(path):
        if other in ("__version__", own) or module == "smallworld":  # whose __init__ holds paths alone
            continue
        assert LEVEL[other] < LEVEL[own], f"{own} imports {module}"


@pytest.mark.parametrize("folder", ["families", "methods", "formats", "guidance", "judges", "metrics"])
def test_siblings_do_not_import_each_other(folder: str) -> None:
    files = [p for p in (ROOT / folder).glob("*.py") if p.name != "__init__.py"]
    names = {p.stem for p in files}
    for path in files:
        for _, module in imported(path):
            assert module.split(".")[-1] not in names - {path.stem}, f"{path.name} imports {module}"


def test_only_families_know_pipeline_classes() -> None:
    for path in FILES:
        if part(path) not in ("families", "smallworld"):
            assert "StableDiffusion" not in path.read_text(encoding="utf-8").replace("StableDiffusion 1", ""), path


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if part(path) != "cli":
            calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
            assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), path


@pytest.mark.parametrize("code", ["import expunge", "import expunge.cli"])
def test_import_is_light(code: str) -> None:
    check = f"{code}; import sys; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_help_is_quick() -> None:
    times = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "expunge", "--help"], check=True, capture_output=True)
        times.append(time.monotonic() - start)
    assert min(times) < 0.5


@pytest.mark.parametrize("on", [True, False])
def test_collection_is_put_off_and_comes_back(on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() is on
    finally:
        (gc.enable if before else gc.disable)()
