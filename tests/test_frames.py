"""Frames of an erasure: pictures on the way change nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from expunge import erasure, frames
from expunge.errors import ExpungeError
from expunge.model import Model
from expunge.recipe import preset

QUICK = {"steps": 6, "latents": 4, "grid": 4, "batch": 2}


def erased(world: Model, folder: Path, film: Path | None, resume: bool = False, method: str = "esd-x") -> str:
    built = erasure.build_method(preset(method), QUICK if method == "esd-x" else {})
    edit = erasure.run(
        world, built, erasure.concepts_of(["car"]), folder / "car.safetensors", resume=resume, frames=film
    )
    assert edit.provenance["cost"]["passes"] == erased.passes.setdefault(method, edit.provenance["cost"]["passes"])
    return edit.hash


erased.passes = {}


def test_frames_change_no_bit_and_cost_no_pass(world: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "SHARE", 1e9)  # at every step
    plain = erased(world, tmp_path, None)
    film = tmp_path / "frames"
    assert erased(world, tmp_path, film) == plain
    steps = sorted({int(p.name.split("-")[0]) for p in film.glob("*.png")})
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert json.loads((film / "frames.json").read_text())["prompts"] == ["car"]
    first, last = (Image.open(film / frames.name(step, 0)) for step in (0, 6))
    assert first.size == (3 * 64, 64)
    assert ImageChops.difference(first, last).getbbox() is not None, "the pictures change"


def test_before_is_drawn_once_and_other_runs_are_kept_apart(world: Model, tmp_path: Path) -> None:
    film = tmp_path / "frames"
    erased(world, tmp_path, film, method="uce-2025")
    before = (film / frames.name(0, 0)).stat().st_mtime_ns
    assert len(list(film.glob("*.png"))) == 2, "a closed form has no pictures on the way"
    erased(world, tmp_path, film, method="uce-2025")
    assert (film / frames.name(0, 0)).stat().st_mtime_ns == before
    with pytest.raises(ExpungeError, match="frames of another run"):
        erasure.run(
            world, erasure.build_method(preset("uce-2025"), {}), erasure.concepts_of(["cat"]),
            tmp_path / "cat.safetensors", frames=film,
        )  # fmt: skip
    assert not (tmp_path / "cat.safetensors").exists()
