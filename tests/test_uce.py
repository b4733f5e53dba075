"""The closed form is the least-squares solution that it says it is."""

from __future__ import annotations

import pytest
import torch

from conftest import TinyModel
from expunge.concept import Concept
from expunge.errors import ExpungeError
from expunge.methods.uce import UCE
from expunge.model import Model
from expunge.recipe import preset

PAIRS = [Concept(name="a red car", anchor="a truck"), Concept(name="Marlow")]


def columns(model: Model, method: UCE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """c, g and k, straight from the text encoder."""

    def state(text: str) -> torch.Tensor:
        ids = model.pipeline.tokenizer(text).input_ids
        rows = model.encode([text]).tensors["text"][0].double()[len(ids) - 2 :]
        return rows[:1] if method.tokens == "last" else rows

    pairs = [(state(c.name), state(c.anchor or method.guide)) for c in PAIRS]
    sizes = [min(map(len, pair)) for pair in pairs]
    c, g = (torch.cat([pair[i][:n] for pair, n in zip(pairs, sizes, strict=True)]).T for i in (0, 1))
    return c, g, torch.cat([state(k) for k in method.keep]).T


@pytest.mark.parametrize("tokens", ["last", "rest"])
def test_it_is_the_least_squares_solution(tiny: TinyModel, tokens: str) -> None:
    """λ ‖W − W₀‖² + α_e ‖W c − W₀ g‖² + α_p ‖W k − W₀ k‖², by a direct solve in fp64."""
    model = tiny()
    method = UCE(tokens=tokens, ridge=0.3, erase_weight=2.0, keep=("a cat", "a boat"), keep_weight=0.7)  # type: ignore[arg-type]
    c, g, k = columns(model, method)
    base = method._projections(model)["text"]
    edited = method._solve(base, c, g, k)
    for name, w in base.items():
        weights = [0.3**0.5, 2**0.5, 0.7**0.5]
        left = torch.cat([s * part for s, part in zip(weights, (torch.eye(len(c)).double(), c, k), strict=True)], 1)
        right = torch.cat(
            [s * w @ part for s, part in zip(weights, (torch.eye(len(c)).double(), g, k), strict=True)], 1
        )
        want = torch.linalg.lstsq(left.T, right.T).solution.T
        torch.testing.assert_close(edited[name], want, atol=1e-8, rtol=0)
    edit = method.fit(model, PAIRS)
    torch.testing.assert_close(edit.delta, {n: (edited[n] - w).float() for n, w in base.items()})
    assert set(edit.delta) == {n for n in model.parameters() if "attn2.to_k" in n or "attn2.to_v" in n}


def test_a_concept_that_is_its_own_anchor_changes_nothing(tiny: TinyModel) -> None:
    edit = UCE().fit(tiny(), [Concept(name="a car", anchor="a car")])
    assert max(float(d.abs().max()) for d in edit.delta.values()) < 1e-6


def test_rece_finds_the_text_that_is_taken_for_the_concept(tiny: TinyModel) -> None:
    """c' is where Σ ‖W c' − W₀ c‖² + λ' ‖c'‖² has no slope."""
    model, method = tiny(), UCE(rece_ridge=0.2)
    base = method._projections(model)["text"]
    c = torch.cat([method._rows(model, "text", said) for said in ("a car", "Marlow")], 1)
    edited = method._solve(base, c, 0 * c, c[:, :0])
    found = method._found(edited, base, c).requires_grad_()
    loss = sum((w @ found - base[n] @ c).square().sum() for n, w in edited.items()) + 0.2 * found.square().sum()
    (slope,) = torch.autograd.grad(loss, found)
    assert slope.abs().max() < 1e-8


def test_each_round_leaves_less_to_find(world: Model) -> None:
    """After RECE the nearest text that still brings the concept lies further from bringing it."""
    base = UCE()._projections(world)["text"]
    c = UCE()._rows(world, "text", "Marlow")
    left = []
    for rounds in (0, 3):
        method = UCE(rounds=rounds)
        edited = method._solve(base, c, method._rows(world, "text", ""), c[:, :0])
        found = method._found(edited, base, c)
        left.append(sum((w @ found - base[n] @ c).square().sum().item() for n, w in edited.items()))
    assert left[1] > 1.5 * left[0]


def test_a_scope_that_reads_no_text_is_refused(tiny: TinyModel) -> None:
    with pytest.raises(ExpungeError, match="is no matrix that reads"):
        UCE(scope="selfattn").fit(tiny(), PAIRS)


PAPER = {"scope": "reads-text", "ridge": 0.5, "erase_weight": 1.0, "keep_weight": 1.0}
PRESETS = {
    "uce-2024": {"tokens": "rest", "keep": ("",)},
    "uce-2025": {"tokens": "last"},
    "rece-2024": {"tokens": "rest", "keep": ("",), "rounds": 3, "rece_ridge": 0.1},
    "rece-style-2024": {"tokens": "rest", "keep": ("",), "rounds": 1, "rece_ridge": 0.1},
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_values(name: str) -> None:
    assert UCE(**preset(name).options).model_dump() == UCE().model_dump() | PAPER | PRESETS[name]
