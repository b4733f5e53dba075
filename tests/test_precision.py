"""fp32 trained weights over a bf16 body: small updates are not lost; and attention that learns on a CPU is fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from conftest import TinyModel
from expunge.concept import Concept
from expunge.errors import ExpungeError
from expunge.exact import KEYS, ExactAttention
from expunge.families import load
from expunge.methods.esd import ESD
from expunge.model import Model


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


@pytest.fixture
def mixed() -> Iterator[Model]:
    """The small world with fp32 weights under bf16 autocast."""
    model = load("smallworld", device="cpu", precision="mixed")
    yield model
    model.denoiser.disable_gradient_checkpointing()  # type: ignore[operator]


def attended(dtype: torch.dtype, around: AbstractContextManager[Any], keys: int = 24) -> list[torch.Tensor]:
    """What attention gives for the same numbers in that precision, and its gradients."""
    rng = torch.Generator().manual_seed(0)
    own = [torch.randn(2, 2, n, 8, generator=rng).bfloat16().to(dtype).requires_grad_() for n in (24, keys, keys)]
    with around, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = F.scaled_dot_product_attention(own[0], own[1], value=own[2])
    return [out, *torch.autograd.grad(out, own, torch.ones_like(out))]


def test_exact_attention_is_that_of_fp32_rounded() -> None:
    """Bit for bit, in what it gives and in its gradients; without it bf16's are others."""
    found, wanted = attended(torch.bfloat16, ExactAttention()), attended(torch.float32, nullcontext())
    assert all(x.dtype == torch.bfloat16 for x in found)
    assert all(torch.equal(x, y.bfloat16()) for x, y in zip(found, wanted, strict=True))
    rough = attended(torch.bfloat16, nullcontext())
    assert not all(torch.equal(x, y) for x, y in zip(found, rough, strict=True))


def test_attention_to_many_keys_is_left_alone() -> None:
    found, plain = (attended(torch.bfloat16, around, KEYS + 1) for around in (ExactAttention(), nullcontext()))
    assert all(torch.equal(x, y) for x, y in zip(found, plain, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exact_attention_is_given_as_autocast_would_with_a_mask_and_shared_keys(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 5, 8, generator=rng, dtype=torch.float32).to(dtype) for heads in (4, 2, 2))
    mask = torch.zeros(5, 5, dtype=torch.bfloat16).masked_fill(torch.ones(5, 5).triu(1).bool(), -9.0)
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
        with ExactAttention():
            found = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    assert found.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, atol=0.02, rtol=0.02)


class Seen(TorchFunctionMode):
    """The precisions that attention is computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            self.dtypes.add(args[0].dtype)
        return function(*args, **(kwargs or {}))


def predicted(model: Model) -> tuple[torch.Tensor, set[torch.dtype]]:
    """A prediction with the weights as learning ones, and what its attention was computed in."""
    weights = {k: w.detach().requires_grad_() for k, w in model.parameters().items() if "attn2" in k}
    x_t, said = model.noise(2, torch.Generator().manual_seed(1)), model.encode(["a car"]).repeat(2)
    with Seen() as seen:
        return model.predict(x_t, torch.tensor(400), said, weights), seen.dtypes


def test_attention_is_exact_where_something_learns(mixed: Model) -> None:
    learning, exact = predicted(mixed)
    with torch.no_grad():
        plain, rough = predicted(mixed)
    assert (exact, rough) == ({torch.float32}, {torch.bfloat16})
    torch.testing.assert_close(learning, plain, atol=0.05, rtol=0.05)


def test_checkpointed_attention_is_exact_both_times(mixed: Model) -> None:
    """The block that runs again in the backward pass gives the same gradients."""

    def gradients() -> list[torch.Tensor]:
        weights = {k: w.detach().requires_grad_() for k, w in mixed.parameters().items() if "attn2" in k}
        x_t = mixed.noise(2, torch.Generator().manual_seed(1))
        e = mixed.predict(x_t, torch.tensor(400), mixed.encode(["a car"]).repeat(2), weights)
        return list(torch.autograd.grad(e.square().sum(), [*weights.values()]))

    plain = gradients()
    mixed.checkpointing()
    torch.testing.assert_close(gradients(), plain)
