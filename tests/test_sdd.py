"""SDD's loss, its presets, and what it samples from."""

from __future__ import annotations

import pytest
import torch

from conftest import TinyModel
from expunge.concept import Concept
from expunge.methods.sdd import SDD
from expunge.objective import Learner
from expunge.recipe import preset

TWO = [Concept(name="a car"), Concept(name="a cat")]
BOTH = "a car, a cat"
EMA = {"ema": 0.9, "sampler": "average", "trajectory": "pool", "grid": 4, "steps": 4, "batch": 2, "lr": 1e-3}


def weights(model: object) -> dict[str, torch.Tensor]:
    """Cross-attention weights that differ from the base's."""
    found = {k: v for k, v in model.parameters().items() if "attn2" in k}  # type: ignore[attr-defined]
    return {k: v.detach() + 0.01 for k, v in found.items()}


@pytest.mark.parametrize("joined", ["loss", "sample"])
def test_the_loss_is_the_papers(tiny: TinyModel, joined: str) -> None:
    """‖ e(x_t, c_s) − e(x_t, 0) ‖², both from the student, with x_t on the way of one concept."""
    model = tiny()
    student = weights(model)
    method = SDD(joined=joined, trajectory="fresh", grid=3, batch=6)  # type: ignore[arg-type]
    objective = method.objective(model, TWO, Learner(student, student), 5)
    points = method.part(model, TWO, Learner(student, student), 5).route.draw(0)
    said = [BOTH] * 6 if joined == "loss" else [TWO[i].name for i in points.which]
    e = [model.predict(points.x_t, points.t, model.encode(text), student) for text in (said, [""] * 6)]
    torch.testing.assert_close(next(objective(0))["erase"], (e[0] - e[1]).square().mean())
    assert set(points.which.tolist()) == {0, 1}


def test_x_t_comes_from_the_average(tiny: TinyModel) -> None:
    """Another student does not move the points; another average does."""
    model = tiny()
    base, other = weights(model), {k: v + 0.05 for k, v in weights(model).items()}
    method = SDD(**EMA | {"trajectory": "fresh"})  # type: ignore[arg-type]

    def x(student: dict[str, torch.Tensor], average: dict[str, torch.Tensor]) -> torch.Tensor:
        return method.part(model, TWO, Learner(student, average), 0).route.draw(2).x_t

    assert torch.equal(x(base, base), x(other, base))
    assert not torch.equal(x(base, base), x(base, other))


def test_the_edit_is_the_geometric_average_of_the_student(tiny: TinyModel) -> None:
    """m^k W₀ + (1 − m) Σ m^(k−i) W_i."""
    model, path = tiny(), []
    method = SDD(**EMA)  # type: ignore[arg-type]
    edit = method.fit(
        model,
        TWO,
        on_step=lambda trainer, _: path.append({k: v.detach().clone() for k, v in trainer.parameters.items()}),
    )
    own = method.model_copy(update={"result": "student"}).fit(model, TWO)
    for name, delta in edit.delta.items():
        base = model.parameters()[name].detach()
        average = base * 0.9**4 + sum(0.1 * 0.9 ** (3 - i) * step[name] for i, step in enumerate(path))
        torch.testing.assert_close(base + delta, average)
        torch.testing.assert_close(own.delta[name], path[-1][name] - base)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trajectory": "renoised", "sampler": "frozen"},
        {"joined": "sample"},
        {"sampler": "student"},
        {"sampler": "student", "empty": "frozen"},
    ],
)
def test_passes_are_as_announced(tiny: TinyModel, options: dict[str, object]) -> None:
    model, method = tiny(), SDD(**EMA | options)  # type: ignore[arg-type]
    method.fit(model, TWO)
    assert model.meter.passes == method.passes(TWO)


PAPER = {"scope": "xattn", "sampler": "average", "trajectory": "fresh", "grid": 50, "guidance": 3.0, "batch": 1}
PAPER |= {"optimiser": "adamw", "lr": 1e-5, "weight_decay": 1e-2, "clip": 1.0, "joined": "loss", "result": "average"}
LONG = {"steps": 1500, "schedule": "cosine", "warmup": 500, "ema": 0.999}
QUICK = {"steps": 1000, "schedule": "constant", "warmup": 0, "ema": 0.998}


@pytest.mark.parametrize(("name", "own"), [("sdd-2023", LONG), ("sdd-fast-2023", QUICK)])
def test_presets_are_the_published_values(name: str, own: dict[str, object]) -> None:
    assert SDD(**preset(name).options).model_dump() == SDD(ema=0.9).model_dump() | PAPER | own


def test_sdd_x_is_the_faster_setting_four_samples_a_step() -> None:
    """As many samples, as far at the same rate for each, averaged over as many."""
    fast = SDD(**preset("sdd-fast-2023").options)
    assert fast.ema is not None
    four = {"batch": 4, "steps": fast.steps // 4, "lr": 4 * fast.lr, "ema": round(fast.ema**4, 3)}
    assert SDD(**preset("sdd-x").options) == fast.model_copy(update={**four, "trajectory": "pool", "grid": 10})
