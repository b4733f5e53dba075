"""Pictures on disk are named by all that made them, and an edit is never on unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import TinyModel
from expunge import Edit, ExpungeError, Request, Settings, generate, load, smallworld
from expunge.generation import images
from expunge.model import Model

REQUESTS = [Request("a car", 0), Request("a car", 1), Request("", 0)]


def changed(model: Model) -> Edit:
    weight = model.parameters()["conv_in.bias"]
    return Edit({"conv_in.bias": torch.full_like(weight, 0.5)}, {"base": {"name": model.name, "hash": model.hash}})


def test_files_of_different_edits_never_meet(tiny: TinyModel, tmp_path: Path) -> None:
    model, settings = tiny(), Settings(steps=2)
    edit = changed(model)
    stacks = ([], [(edit, 1.0)], [(edit, 0.5)], [(edit, 0.5), (edit, 0.5)])
    names = [{row["file"] for row in generate(model, REQUESTS, settings, str(tmp_path), stack)} for stack in stacks]
    assert len(set().union(*names)) == 4 * len(REQUESTS)
    assert names[0] == {row["file"] for row in generate(model, REQUESTS, settings, tmp_path)}
    one, half = (next(tmp_path / n for n in sorted(names[i])) for i in (0, 1))
    assert one.read_bytes() != half.read_bytes()


def test_a_model_that_carries_an_edit_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    model = tiny()
    with changed(model).on(model), pytest.raises(ExpungeError, match="is on the model; take it off"):
        generate(model, REQUESTS, Settings(steps=2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_batches_do_not_change_pictures(tiny: TinyModel) -> None:
    model, settings = tiny(), Settings(steps=3)
    one, all_ = (torch.cat(list(images(model, REQUESTS, settings, batch=n))) for n in (1, 3))
    torch.testing.assert_close(one, all_, rtol=1e-3, atol=1e-4)


def test_paths_are_words_or_paths(tmp_path: Path) -> None:
    model = load(smallworld.path())
    changed(model).save(str(tmp_path / "edit.safetensors"))
    assert Edit.load(str(tmp_path / "edit.safetensors")).hash == changed(model).hash
