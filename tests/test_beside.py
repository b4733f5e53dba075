"""Edits beside one that learns: it knows of them, and they of nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TinyModel
from expunge.beside import Beside, Moved
from expunge.cli import main
from expunge.concept import Concept
from expunge.edit import Edit
from expunge.errors import ExpungeError
from expunge.looking import Looker
from expunge.method import Trained
from expunge.methods import METHODS
from expunge.model import Model
from expunge.report.closed import page
from expunge.training import Trainer
from test_closed_loop import short

INTO = [Concept(name="grumpy cat", anchor="cat")]
CAT = [Concept(name="grumpy cat")]
SHORT = {"steps": 5, "grid": 2, "batch": 2, "keep": ("a boat",), "keep_grid": 2, "keep_batch": 2}
TRAINED = [m for m in METHODS.values() if issubclass(m, Trained) and m.kind != "closed-loop"]  # which draws a lot


def others(model: Model, folder: Path, n: int, part: str = "attn2") -> list[str]:
    """Files of edits that change what is trained, and not by little."""
    files, weights = [], {k: p for k, p in model.parameters().items() if part in k and p.ndim > 1}
    for i in range(n):
        rng = torch.Generator().manual_seed(i)
        delta = {k: 0.5 * p.std() * torch.randn(p.shape, generator=rng) for k, p in weights.items()}
        file = folder / f"other{i}.safetensors"
        Edit(delta, {"base": model.identity(delta), "concepts": [], "options": {}}, file.stem).save(file)
        files.append(str(file))
    return files


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.kind)
def test_what_is_kept_is_the_model_with_the_others_on(
    tiny: TinyModel, tmp_path: Path, method: type[Trained], rank: int | None
) -> None:
    """Where nothing was learnt, nothing is lost, whichever of them are on; and afterwards they are off, bit for bit."""
    model, kept = tiny(), list[float]()
    before = {k: v.detach().clone() for k, v in model.parameters().items()}
    options = {**SHORT, "lr": 1e-12, "lora_rank": rank, "beside": tuple(others(model, tmp_path, 3))}
    chosen = method(**options)  # type: ignore[arg-type]

    steps, on = dict[int, set[tuple[str, ...]]](), model.denoiser.register_forward_pre_hook
    there = on(lambda *_: steps.setdefault(len(kept), set()).add((*model.applied,)))

    def note(trainer: Trainer, _: float) -> None:
        kept.append(trainer.terms["keep"])

    edit = chosen.fit(model, INTO if method.anchors else CAT, on_step=note, seed=10)
    there.remove()
    assert len(kept) == 5
    assert max(kept) < 1e-9
    assert all(len(found) == 1 for found in steps.values()), "the same in all calls of a step"
    assert [len(*found) for found in steps.values()] == [0, 1, 2, 3, 3], "these of three, by the seed"
    assert max(float(delta.abs().max()) for delta in edit.delta.values()) < 1e-6, "the others are no part of it"
    assert [row["name"] for row in edit.provenance["beside"]] == ["other0", "other1", "other2"]
    assert not model.applied
    assert all(torch.equal(before[k], v) for k, v in model.parameters().items())


def test_a_closed_loop_looks_with_all_of_them_and_with_none(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In halves, and the strengths are tried so; the edit that is looked at comes last. The search is of the base."""
    model, seen, left = tiny(), dict[str, list[tuple[str, int]]](), Looker.drawn
    method = short(judge="clip", beside=tuple(others(model, tmp_path, 2)))

    def noted(self: Looker, captions: Any, what: str, rows: Any = None) -> Any:
        seen.setdefault(what.split("/")[0], []).append((" ".join(model.applied), len(rows or captions)))
        return left(self, captions, what, rows)

    monkeypatch.setattr(Looker, "drawn", noted)
    edit = method.fit(model, [Concept(name="car")])
    assert "looked at with other edits on the model: other0, other1." in page(edit)
    both = {"other0 other1 loop", "loop", "other0 other1", ""}
    assert {on for on, _ in seen["look"]} == both
    assert {on for on, _ in seen["proof"]} >= {"other0 other1 edit", "edit", "other0 other1", ""}, "the strengths"
    assert {on for what in ("search", "try") for on, _ in seen[what]} == {""}
    assert seen["look"][:2] == [("other0 other1 loop", 2), ("loop", 2)]
    assert not model.applied


def test_any_number_of_them_is_on_equally_often(tiny: TinyModel, tmp_path: Path) -> None:
    """But none in the first step, when what is drawn once is drawn."""
    model, seen = tiny(), list[int]()
    found = Beside.of(model, others(model, tmp_path, 3, "mid_block"), seed=1)
    for step in range(400):
        with found.some(model, step):
            seen.append(len(model.applied))
    shares = [seen.count(k) / 400 for k in range(4)]
    assert seen[0] == 0
    assert all(abs(share - 0.25) < 0.08 for share in shares), shares


@pytest.mark.parametrize("fails", ["backward", "loss"])
def test_a_step_that_fails_leaves_none_on(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """At once, and not when the error is forgotten."""
    model = tiny()
    method = METHODS["esd"](**SHORT, beside=tuple(others(model, tmp_path, 3)))  # type: ignore[arg-type, call-arg]
    before = {k: v.detach().clone() for k, v in model.parameters().items()}
    seen = list[int]()

    def broken(*_: Any, **__: Any) -> None:
        seen.append(len(model.applied))
        if seen[-1]:
            raise RuntimeError("broken")

    monkeypatch.setattr(*((torch.Tensor, "backward") if fails == "backward" else (Trainer, "_guard")), broken)
    with pytest.raises(RuntimeError, match="broken") as error:
        method.fit(model, CAT)
    assert seen[-1] > 0
    assert error.value.__traceback__ is not None
    assert not model.applied
    assert all(torch.equal(before[k], v) for k, v in model.parameters().items())


@pytest.mark.parametrize("beside", [True, False])
def test_pictures_that_are_kept_are_the_frozen_models(tiny: TinyModel, tmp_path: Path, beside: bool) -> None:
    """What a run leaves in the cache is what one without others would have drawn."""
    options = {**SHORT, "images": 2, "steps": 2}
    alone, model = METHODS["forget-me-not"](**options), tiny()  # type: ignore[arg-type]
    want = alone.fit(tiny(), CAT, seed=1).hash
    first = options | ({"beside": tuple(others(model, tmp_path, 3))} if beside else {})
    model.cache = tmp_path / "cache"
    METHODS["forget-me-not"](**first).fit(model, CAT, seed=1)  # type: ignore[arg-type]
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    again = tiny()
    again.cache = tmp_path / "cache"
    assert alone.fit(again, CAT, seed=1).hash == want


def test_weights_move_with_the_model() -> None:
    own, base = {"w": torch.tensor([1.5])}, {"w": torch.tensor([1.0])}
    now = {"w": torch.nn.Parameter(torch.tensor([1.25])), "v": torch.zeros(1)}
    moved = Moved(own, base, now)
    assert [*moved] == ["w"]
    assert len(moved) == 1
    assert moved["w"] == 1.75
    now["w"].data += 1
    assert moved["w"] == 2.75


@pytest.mark.parametrize(
    ("method", "more", "told"),
    [
        ("esd", {"reuse": 4}, "reuse keeps predictions"),
        ("uce", {}, "beside"),
    ],
)
def test_where_there_can_be_none(method: str, more: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        METHODS[method](beside=("a.safetensors",), **more)  # type: ignore[call-arg, arg-type]


def test_an_edit_of_texts_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    model = tiny()
    name = next(k for k in model.parameters() if model.of_encoder(k))
    delta = {name: torch.ones_like(model.parameters()[name])}
    Edit(delta, {"base": model.identity(delta)}, "texts").save(tmp_path / "texts.safetensors")
    with pytest.raises(ExpungeError, match="changes a text encoder"):
        Beside.of(model, [str(tmp_path / "texts.safetensors")])


def test_on_the_command_line(world: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = others(world, tmp_path, 1)
    out = tmp_path / "edit.safetensors"
    short_ = ["--method", "esd-x", "--set", "steps=2", "--set", "latents=2", "--precision", "fp32", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--beside", f"{file}:0.5", *short_])
    assert ended.value.code == 0
    assert Edit.load(out).provenance["beside"] == [{"name": "other0", "hash": Edit.load(file).hash, "scale": 0.5}]
    capsys.readouterr()
    for bad, told in ((str(tmp_path / "none.safetensors"), "none.safetensors"), (f"{file}:nan", "finite")):
        with pytest.raises(SystemExit) as ended:
            main(["erase", "car", "--beside", bad, *short_[:-1], str(tmp_path / "x.safetensors")])
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--beside", f"{file}:0.5", *short_[:-1], file])
    assert ended.value.code == 2
    assert "would replace an edit that is to stand beside it" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--beside", file, "--method", "uce-2024", "--out", str(tmp_path / "x.safetensors")])
    assert ended.value.code == 2
    assert "--beside is for methods that learn in steps, and uce has none" in capsys.readouterr().err
