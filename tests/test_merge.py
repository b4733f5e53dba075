"""Merging is stacking."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TinyModel
from expunge.edit import Edit
from expunge.errors import ExpungeError
from expunge.merge import merge, overlaps
from expunge.model import Model

KEYS = ("up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_in.weight", "conv_out.bias")


def edit(model: Model, seed: int, keys: tuple[str, ...], name: str = "one") -> Edit:
    rng, base = torch.Generator().manual_seed(seed), model.parameters()
    delta = {k: torch.randn(base[k].shape, generator=rng) for k in keys}
    return Edit(delta, {"base": {"name": model.name, "hash": model.hash}, "concepts": [{"name": name}]}, name)


@given(scales=st.lists(st.floats(-2, 2), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_merged_edit_is_the_stack(tiny: TinyModel, scales: list[float]) -> None:
    model = tiny()
    parts = [(edit(model, i, KEYS[i % 2 :], str(i)), s) for i, s in enumerate(scales)]
    one = merge(parts)
    base = {k: v.detach().clone() for k, v in model.parameters().items()}
    for key, delta in one.delta.items():
        want = sum(s * e.delta[key] for e, s in parts if key in e.delta)
        torch.testing.assert_close(delta, want, atol=1e-5, rtol=0)
    assert [c["name"] for c in one.provenance["concepts"]] == [str(i) for i in range(len(scales))]
    with one.on(model):
        assert model.applied == ["merged"]
    assert all(torch.equal(base[k], v) for k, v in model.parameters().items())


def test_overlap_is_said(tiny: TinyModel) -> None:
    model = tiny()
    a, b, c = edit(model, 0, KEYS[:2], "a"), edit(model, 1, KEYS[1:], "b"), edit(model, 2, KEYS[:1], "c")
    said = overlaps([(a, 1.0), (b, 1.0), (c, 1.0)])
    assert len(said) == 2
    assert "'a' and 'b' change 1 tensors both" in said[0]
    assert "cosine +1.00" in overlaps([(a, 1.0), (a, 1.0)])[0]


def test_other_bases_do_not_mix(tiny: TinyModel) -> None:
    one = edit(tiny(), 0, KEYS)
    other = Edit(one.delta, {"base": {"name": "else", "hash": "0"}}, "other")
    with pytest.raises(ExpungeError, match="different bases"):
        merge([(one, 1.0), (other, 1.0)])
    with pytest.raises(ExpungeError, match="nothing to merge"):
        merge([])
