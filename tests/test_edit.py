"""An edit goes on, scales, stacks and comes off without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import TinyModel
from expunge.concept import Concept
from expunge.edit import Edit
from expunge.errors import ExpungeError
from expunge.methods.esd import ESD
from expunge.model import Model


def random_edit(model: Model, seed: int = 0, name: str = "edit") -> Edit:
    rng = torch.Generator().manual_seed(seed)
    chosen = {n: p for n, p in model.parameters().items() if "attn2" in n}
    delta = {n: 0.1 * torch.randn(p.shape, generator=rng) for n, p in chosen.items()}
    return Edit(delta, {"base": {"name": model.name, "hash": model.hash}}, name)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.parameters().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.7, -2.0])
def test_on_then_off_is_bitwise_the_base(tiny: TinyModel, dtype: torch.dtype, scale: float) -> None:
    model = tiny(dtype=dtype)
    before = weights(model)
    with random_edit(model).on(model, scale):
        assert not equal(weights(model), before)
    assert equal(weights(model), before)


def test_off_after_an_exception(tiny: TinyModel) -> None:
    model = tiny()
    before = weights(model)
    with pytest.raises(RuntimeError), random_edit(model).on(model):
        raise RuntimeError
    assert equal(weights(model), before)


def test_scale_zero_is_neutral(tiny: TinyModel) -> None:
    model = tiny()
    before = weights(model)
    with random_edit(model).on(model, 0):
        assert equal(weights(model), before)


def test_edits_stack(tiny: TinyModel) -> None:
    model = tiny()
    before, first, second = weights(model), random_edit(model, 1), random_edit(model, 2)
    with first.on(model), second.on(model, 0.5):
        for n, p in model.parameters().items():
            if n in first.delta:
                torch.testing.assert_close(p.detach(), before[n] + first.delta[n] + 0.5 * second.delta[n])
    assert equal(weights(model), before)


def test_file_round_trip_is_exact(tiny: TinyModel, tmp_path: Path) -> None:
    edit = random_edit(tiny())
    edit.save(tmp_path / "e.safetensors")
    again = Edit.load(tmp_path / "e.safetensors")
    assert again.hash == edit.hash
    assert equal(dict(again.delta), dict(edit.delta))
    assert again.provenance == edit.provenance


def test_another_base_is_refused_by_both_names(tiny: TinyModel) -> None:
    model = tiny()
    edit = random_edit(model)
    with torch.no_grad():
        next(iter(model.parameters().values())).add_(1)
    other = type(model)(model.pipeline, model.device, model.dtype, name="other")
    with pytest.raises(ExpungeError, match=r"made for 'tiny' with hash .* not for 'other' with hash"), edit.on(other):
        pass
    with edit.on(other, force=True):
        pass


@pytest.mark.parametrize("force", [True, False])
def test_hash_is_of_the_base_even_if_first_read_while_an_edit_is_on(tiny: TinyModel, force: bool) -> None:
    edit, model = random_edit(tiny()), tiny()
    with edit.on(model, force=force):
        assert model.hash == tiny().hash


def test_nothing_is_erased_from_an_edited_model(tiny: TinyModel) -> None:
    """The difference would be taken from weights that the provenance does not name."""
    model = tiny()
    with random_edit(model).on(model), pytest.raises(ExpungeError, match="'edit' is on the model"):
        ESD(steps=1).fit(model, [Concept(name="a car")])
    assert model.applied == []
