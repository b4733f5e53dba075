"""LoRA: the same objectives, other numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TinyModel
from expunge.composed import Composed, Parts
from expunge.concept import Concept
from expunge.edit import Edit
from expunge.errors import ExpungeError
from expunge.low_rank import A, B, product, truncate
from expunge.method import Trained
from expunge.methods import METHODS
from tiny import watched

CAT, INTO = [Concept(name="grumpy cat")], [Concept(name="grumpy cat", anchor="cat")]
SHORT = {"steps": 3, "grid": 2, "batch": 2, "lr": 1e-2, "lora_rank": 3}
TRAINED = [m for m in METHODS.values() if issubclass(m, Trained)]


@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.kind)
def test_every_trained_method_trains_a_lora(tiny: TinyModel, method: type[Trained], tmp_path: Path) -> None:
    """The change of each matrix has the rank; the file holds factors, and reads back to the same bits."""
    model = tiny()
    edit = method(**watched(method, **SHORT)).fit(model, INTO if method.anchors else CAT)  # type: ignore[arg-type]
    assert all(torch.linalg.matrix_rank(d.flatten(1).double(), rtol=1e-6) <= 3 for d in edit.delta.values())
    assert set(edit.delta) == {n for n, p in model.parameters().items() if "attn2" in n and p.ndim == 2}
    assert any(d.abs().max() > 0 for d in edit.delta.values())
    edit.save(tmp_path / "lora.safetensors")
    again = Edit.load(tmp_path / "lora.safetensors")
    assert isinstance(again.delta, Composed)
    assert all(key.endswith((A, B)) for key in again.delta.stored)
    assert again.hash == edit.hash


@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.kind)
@pytest.mark.parametrize("nothing", [{"steps": 0}, {"lora_rank": 0}, {"steps": 0, "lora_rank": None}])
def test_doing_nothing_changes_nothing(tiny: TinyModel, method: type[Trained], nothing: dict[str, object]) -> None:
    """No step, or no rank: not a bit of the model moves."""
    model = tiny()
    before = {n: p.detach().clone() for n, p in model.parameters().items()}
    edit = method(**watched(method, **(SHORT | nothing))).fit(model, INTO if method.anchors else CAT)  # type: ignore[arg-type]
    with edit.on(model):
        assert all(torch.equal(p, before[n]) for n, p in model.parameters().items())
    assert edit.delta


def test_the_plan_counts_what_is_trained(tiny: TinyModel) -> None:
    """Factors and rows, not the weights that they change."""
    model = tiny()
    for options in ({}, {"lora_rank": 3}, {"scope": "kv-text"}, {"scope": "full", "lora_rank": 2}):
        method = METHODS["esd"](**SHORT | {"lora_rank": None, "steps": 1} | options)  # type: ignore[arg-type]
        edit = method.fit(model, CAT)
        assert isinstance(edit.delta, Composed)
        own = [v for k, v in edit.delta.stored.items() if not k.endswith(".rows")]
        assert method.size(model, CAT) == sum(v.numel() for v in own)


def test_it_starts_where_the_model_is(tiny: TinyModel) -> None:
    model = tiny()
    base = {k: v for k, v in model.parameters().items() if "attn2" in k}
    parts = Parts.start(base, {}, 2, seed=0)
    dressed = parts.weights(parts.leaves, base)
    assert len(dressed) == len(list(dressed)) > 0
    assert all(torch.equal(dressed[k], base[k]) for k in dressed)


def test_convolutions_count_as_matrices(tiny: TinyModel) -> None:
    """As peft has them: A is a convolution of the kernel's size, B one of size 1."""
    weight = tiny().parameters()["conv_in.weight"]
    factors = Parts.start({"conv_in.weight": weight}, {}, 2, seed=0).leaves
    a, b = factors["conv_in.weight.lora_A"].detach(), factors["conv_in.weight.lora_B"].detach().normal_()
    x = torch.randn(1, weight.shape[1], 8, 8)
    found = product(a, b)
    conv = torch.nn.functional.conv2d
    torch.testing.assert_close(conv(x, found, padding=1), conv(conv(x, a, padding=1), b))


def test_a_scope_without_matrices_is_refused(tiny: TinyModel) -> None:
    with pytest.raises(ExpungeError, match="no matrices"):
        METHODS["esd"](**SHORT | {"scope": r"re:norm\d\.bias"}).fit(tiny(), CAT)  # type: ignore[arg-type]


@given(seed=st.integers(0, 99), rank=st.integers(1, 6), kernel=st.sampled_from([(), (3, 3)]))
@settings(max_examples=30, deadline=None)
def test_truncation_is_the_best_of_its_rank(seed: int, rank: int, kernel: tuple[int, ...]) -> None:
    """What is left is the tail of the singular values; a change of that rank is met exactly."""
    delta = torch.randn(7, 5, *kernel, generator=torch.Generator().manual_seed(seed))
    a, b, left = truncate(delta, rank)
    found = product(a, b)
    error = float((delta - found).norm() / delta.norm())
    values = torch.linalg.svdvals(delta.flatten(1).double())
    assert error == pytest.approx(left, abs=1e-6)
    assert left == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-9)
    assert truncate(found, rank)[2] < 1e-6
