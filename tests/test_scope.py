"""The names a scope selects are the papers' lists, on a UNet of Stable Diffusion 1.x's own shape."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from expunge.errors import ExpungeError
from expunge.scope import SCOPES, UNET, select


@pytest.fixture(scope="module")
def sd1() -> nn.Module:
    """860 M parameters on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)


def names(unet: nn.Module, scope: str) -> set[str]:
    return set(select({"": unet}, scope, UNET))


def count(unet: nn.Module, scope: str) -> int:
    return sum(p.numel() for p in select({"": unet}, scope, UNET).values())


def test_it_is_stable_diffusion_1(sd1: nn.Module) -> None:
    assert sum(p.numel() for p in sd1.parameters()) == 859_520_964


def test_xattn_is_sixteen_blocks_of_five(sd1: nn.Module) -> None:
    """to_q, to_k, to_v, and to_out's weight and bias, in each of 16 transformer blocks; about 5% of the model."""
    assert len(names(sd1, "xattn")) == 16 * 5
    assert 0.04 < count(sd1, "xattn") / 859_520_964 < 0.06


def test_strict_is_keys_and_values(sd1: nn.Module) -> None:
    strict = names(sd1, "xattn-strict")
    assert len(strict) == 16 * 2
    assert all(n.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for n in strict)


def test_noxattn_is_the_papers_complement(sd1: nn.Module) -> None:
    """Everything but attn2, time_embed* and out.*: the CompVis rule in diffusers names."""
    left_out = {n for n, _ in sd1.named_parameters()} - names(sd1, "noxattn") - names(sd1, "xattn")
    layers = ("time_embedding.linear_1", "time_embedding.linear_2", "conv_norm_out", "conv_out")
    assert left_out == {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}


def test_the_2025_set_differs_from_the_papers(sd1: nn.Module) -> None:
    """It takes the time embedding and conv_out in, and leaves every norm out."""
    code, paper = names(sd1, "noxattn-2025"), names(sd1, "noxattn")
    assert code - paper == {
        f"{layer}.{leaf}"
        for layer in ("time_embedding.linear_1", "time_embedding.linear_2", "conv_out")
        for leaf in ("weight", "bias")
    }
    assert all("norm" in n for n in paper - code)


def test_partitions(sd1: nn.Module) -> None:
    everything = names(sd1, "full")
    assert everything == {n for n, _ in sd1.named_parameters()}
    assert names(sd1, "notime") == names(sd1, "noxattn") | names(sd1, "xattn")
    assert not names(sd1, "xattn") & names(sd1, "selfattn")
    assert len(names(sd1, "selfattn")) == 16 * 5


def test_kv_text_adds_the_token_embedding(sd1: nn.Module) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_embedding = nn.Embedding(4, 2)

    chosen = set(select({"": sd1, "text_encoder.": Encoder()}, "kv-text", UNET))
    assert chosen == names(sd1, "xattn-strict") | {"text_encoder.token_embedding.weight"}


@given(st.from_regex(r"(down|mid|up)[a-z_.0-9]{0,6}", fullmatch=True))
def test_a_regular_expression_selects_what_it_matches(sd1: nn.Module, pattern: str) -> None:
    import re

    want = {n for n, _ in sd1.named_parameters() if re.search(pattern, n)}
    if want:
        assert names(sd1, f"re:{pattern}") == want
    else:
        with pytest.raises(ExpungeError, match="selects none"):
            names(sd1, f"re:{pattern}")


@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_selected_is_an_error_that_lists_names(scope: str) -> None:
    """Scopes of cross-attention on a network without any: the published scripts train nothing here, silently."""
    plain = nn.Sequential(nn.Linear(2, 2))
    chosen = {"full", "notime", "noxattn", "noxattn-2025"}
    if scope in chosen:
        assert len(select({"": plain}, scope, UNET)) == 2
    else:
        with pytest.raises(ExpungeError, match=r"looked at 0\.weight, 0\.bias"):
            select({"": plain}, scope, UNET)
