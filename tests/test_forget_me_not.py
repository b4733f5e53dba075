"""Attention re-steering: the maps are the network's own, and it turns them away."""

from __future__ import annotations

import pytest
import torch

from conftest import TinyModel
from expunge.attention import attention_maps
from expunge.concept import Concept
from expunge.methods.forget_me_not import ForgetMeNot
from expunge.objective import Learner
from expunge.recipe import preset

CAR = [Concept(name="red car")]
SHORT = {"steps": 4, "images": 2, "grid": 2, "batch": 2, "lr": 1e-2}


def test_the_maps_are_those_the_network_uses(tiny: TinyModel, rng: torch.Generator) -> None:
    """Map times values is what the layer hands to its output projection."""
    model, seen = tiny(), []
    layer = next(m for n, m in model.denoiser.named_modules() if n.endswith("attn2"))
    values: list[torch.Tensor] = []
    hooks = [
        layer.to_v.register_forward_hook(lambda _m, _x, out: values.append(out)),
        layer.to_out[0].register_forward_pre_hook(lambda _m, x: seen.append(x[0])),
    ]
    with attention_maps(model, 32) as maps, torch.no_grad():
        model.predict(model.noise(2, rng), torch.tensor(500), model.encode(["a", "a red car"]))
    v = values[0].unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    torch.testing.assert_close((maps[0] @ v).transpose(1, 2).flatten(2), seen[0])
    for hook in hooks:
        hook.remove()
    assert not any(m._forward_hooks for m in model.denoiser.modules())


@pytest.mark.parametrize(("loss", "power"), [("l2", 2), ("l1", 1)])
def test_the_loss_counts_the_concepts_own_tokens(tiny: TinyModel, loss: str, power: int) -> None:
    """Not the start, nor what comes after the last token."""
    model = tiny()
    student = {k: v.detach() for k, v in model.parameters().items() if "attn2" in k}
    objective = ForgetMeNot(**SHORT | {"loss": loss}).objective(model, CAR, Learner(student), 0)  # type: ignore[arg-type]
    points = objective.route.points(1)  # type: ignore[attr-defined]
    with attention_maps(model, 32) as maps, torch.no_grad():
        model.predict(points.x_t, points.t, model.encode(["red car"]).repeat(2))
    want = sum(m[..., 1:3].pow(power).sum(-1).mean() for m in maps) / len(maps)
    torch.testing.assert_close(next(objective(1))["attention"], want)


def test_maps_are_not_kept_for_the_backward_pass(tiny: TinyModel) -> None:
    """No more tensors of places × tokens than the network itself keeps, and the gradients are there."""
    model, student = tiny(), {k: v for k, v in tiny().parameters().items() if "attn2" in k}
    weights = {k: v.detach().clone().requires_grad_() for k, v in student.items()}
    objective = ForgetMeNot(**SHORT).objective(model, CAR, Learner(weights), 0)  # type: ignore[arg-type]
    points = objective.route.points(1)  # type: ignore[attr-defined]
    shapes: list[tuple[int, ...]] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return x

    def maps() -> int:
        found = sum(len(s) > 2 and s[-1] == 32 for s in shapes)
        shapes.clear()
        return found

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.predict(points.x_t, points.t, model.encode(["red car"]).repeat(2), weights)
        own = maps()
        looks = next(objective(1))["attention"]
        assert maps() <= own
    found = torch.autograd.grad(looks, [*weights.values()], allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in found)


def test_attention_turns_away(tiny: TinyModel) -> None:
    losses: list[float] = []
    ForgetMeNot(**SHORT | {"steps": 15}).fit(tiny(), CAR, on_step=lambda _, loss: losses.append(loss))  # type: ignore[arg-type]
    assert losses[-1] < 0.5 * losses[0]


def test_the_preset_is_as_published() -> None:
    own = {"scope": "xattn", "steps": 35, "batch": 1, "lr": 2e-6, "optimiser": "adamw", "weight_decay": 1e-2}
    assert ForgetMeNot(**preset("forget-me-not-2023").options).model_dump() == ForgetMeNot().model_dump() | own


@pytest.mark.parametrize("options", [{}, {"keep": ("a boat", "a cat")}])
def test_passes_are_as_announced(tiny: TinyModel, options: dict[str, object]) -> None:
    model, method = tiny(), ForgetMeNot(**SHORT | options)  # type: ignore[arg-type]
    edit = method.fit(model, CAR)
    assert model.meter.passes == method.passes(CAR)
    assert set(edit.delta) == {n for n in model.parameters() if "attn2" in n}
