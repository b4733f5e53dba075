"""fp32 trained weights over a bf16 body: small updates are not lost."""

from __future__ import annotations

import pytest
import torch

from conftest import TinyModel
from expunge.concept import Concept
from expunge.errors import ExpungeError
from expunge.methods.esd import ESD


def test_updates_below_bf16_resolution_survive(tiny: TinyModel) -> None:
    """Adam moves a weight by about lr a step; bf16 could not hold 1e-5 beside 0.1, the edit's fp32 can."""
    model = tiny(dtype=torch.bfloat16)
    edit = ESD(steps=3, grid=2, lr=1e-5, trajectory="renoised", latents=2).fit(model, [Concept(name="a car")])
    assert {d.dtype for d in edit.delta.values()} == {torch.float32}
    assert all(0 < d.abs().max() <= 4e-5 for d in edit.delta.values())


def test_fp16_is_refused_for_training(tiny: TinyModel) -> None:
    with pytest.raises(ExpungeError, match="fp16 gradients underflow"):
        ESD(steps=1).fit(tiny(dtype=torch.float16), [Concept(name="a car")])


def test_edits_made_in_bf16_fit_the_fp32_base(tiny: TinyModel) -> None:
    edit = ESD(steps=1, grid=2, lr=1e-4).fit(tiny(dtype=torch.bfloat16), [Concept(name="a car")])
    with edit.on(tiny()):
        pass
