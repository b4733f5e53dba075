"""ESD's equation, its presets, and that it lowers its own objective."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TinyModel
from expunge.concept import Concept
from expunge.methods.esd import ESD, Push
from expunge.model import Model
from expunge.objective import Learner
from expunge.recipe import preset
from expunge.trajectory import Points

CAR = [Concept(name="a car")]


def target(method: ESD, model: object, e: dict[str, torch.Tensor], concepts: list[Concept]) -> torch.Tensor:
    objective = method.part(model, concepts, Learner({}), 0)  # type: ignore[arg-type]
    n = len(e["sample"])
    points = Points(e["sample"], torch.zeros(n), torch.zeros(n, dtype=torch.long), e)
    return objective.target(points)


def predictions(seed: int, *names: str) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, 4, 8, 8, generator=rng) for name in names}


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("origin", ["empty", "concept"])
def test_coefficients_sum_to_one(tiny: TinyModel, eta: float, origin: str) -> None:
    """Adding a constant to every prediction adds it to the target: eps, v and flow need no cases."""
    method, e = ESD(eta=eta, origin=origin), predictions(0, "sample", "empty")  # type: ignore[arg-type]
    moved = {k: v + 5 for k, v in e.items()}
    torch.testing.assert_close(target(method, tiny(), moved, CAR), target(method, tiny(), e, CAR) + 5)


def test_the_2025_form_is_the_papers_target(tiny: TinyModel) -> None:
    e = predictions(1, "sample", "empty")
    paper, code = ESD(eta=1), ESD(eta=2, origin="concept")
    torch.testing.assert_close(target(paper, tiny(), e, CAR), target(code, tiny(), e, CAR))
    torch.testing.assert_close(target(ESD(eta=1, origin="concept"), tiny(), e, CAR), e["empty"])


def test_attribute_target(tiny: TinyModel) -> None:
    """Erasing c from p: e*(p) − η [e*(c) − e*(0)]."""
    e = predictions(2, "sample", "empty", "concept")
    hat = [Concept(name="cowboy hat", within="cowboy")]
    want = e["sample"] - 3 * (e["concept"] - e["empty"])
    torch.testing.assert_close(target(ESD(eta=3), tiny(), e, hat), want)


def test_mixed_concepts_take_their_own_targets(tiny: TinyModel) -> None:
    objective = ESD(eta=1).part(tiny(), [Concept(name="a", within="b"), Concept(name="c")], Learner({}), 0)
    e = predictions(3, "sample", "empty", "concept")
    points = Points(e["sample"], torch.zeros(2), torch.tensor([0, 1]), e)
    got, push = objective.target(points), e["concept"] - e["empty"]
    torch.testing.assert_close(got[0], (e["sample"] - push)[0])
    torch.testing.assert_close(got[1], (e["empty"] - push)[1])


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_eta_minus_one_is_neutral(tiny: TinyModel, loss: str) -> None:
    """η = −1 asks for what the model already says: the first loss is zero."""
    losses: list[float] = []
    ESD(eta=-1, steps=1, grid=4, loss=loss).fit(tiny(), CAR, on_step=lambda _, v: losses.append(v))  # type: ignore[arg-type]
    assert losses[0] < 1e-5


@pytest.mark.parametrize("trajectory", ["fresh", "pool", "renoised"])
def test_it_lowers_its_objective(usual: Model, trajectory: str) -> None:
    """On points it never trained on, the edited model is nearer to the target than the base was."""
    method = ESD(steps=8, grid=4, batch=4, lr=1e-3, trajectory=trajectory, latents=6)  # type: ignore[arg-type]
    edit = method.fit(usual, CAR)

    def loss(weights: dict[str, torch.Tensor]) -> float:
        objective = method.objective(usual, CAR, Learner(weights), seed=99)
        return sum(terms["erase"].item() for step in range(2) for terms in objective(step))

    base = {name: usual.parameters()[name].detach() for name in edit.delta}
    assert loss({name: w + edit.delta[name] for name, w in base.items()}) < 0.98 * loss(base)


def test_v_prediction_needs_no_case(tiny: TinyModel) -> None:
    """The same code trains a v-prediction model towards a constant-shifted target it can reach."""
    losses: list[float] = []
    method = ESD(eta=300, steps=30, grid=3, batch=4, lr=3e-3, scope="full", trajectory="renoised", latents=2, reuse=4)
    method.fit(tiny(prediction_type="v_prediction"), CAR, on_step=lambda _, v: losses.append(v))
    assert losses[-1] < 0.7 * losses[0]


def test_the_model_is_left_as_it_was(tiny: TinyModel) -> None:
    model = tiny()
    before = {n: p.clone() for n, p in model.parameters().items()}
    edit = ESD(steps=2, grid=2, lr=1e-2).fit(model, CAR)
    assert all(torch.equal(p, before[n]) for n, p in model.parameters().items())
    assert set(edit.delta) == {n for n in before if "attn2." in n}
    assert all(d.abs().max() > 0 for d in edit.delta.values())


@given(seed=st.integers(0, 3))
@settings(max_examples=3, deadline=None)
def test_same_seed_same_edit(tiny: TinyModel, seed: int) -> None:
    model, method = tiny(), ESD(steps=2, grid=3, trajectory="pool", batch=2, lr=1e-3)
    assert method.fit(model, CAR, seed=seed).hash == method.fit(model, CAR, seed=seed).hash
    assert method.fit(model, CAR, seed=seed).hash != method.fit(model, CAR, seed=seed + 1).hash


def test_keep_holds_the_kept_caption(usual: Model, rng: torch.Generator) -> None:
    """With the preserve term, the neighbour's prediction moves less than without it."""
    x, kept = usual.noise(16, rng), usual.encode(["a truck"]).repeat(16)
    t = torch.linspace(50, 950, 16).long()
    base, moved = usual.predict(x, t, kept), []
    for keep in ((), ("a truck",)):
        method = ESD(eta=3, steps=12, grid=4, batch=4, lr=1e-3, trajectory="renoised", latents=4, keep=keep)
        with method.fit(usual, CAR).on(usual):
            moved.append((usual.predict(x, t, kept) - base).square().mean().item())
    assert moved[1] < 0.6 * moved[0]


def test_pushes_of_contexts_and_implied_captions() -> None:
    """A context moves the caption that says the concept, an implied one the caption that does not; both push alike."""
    method = ESD(contexts=("a cat [by {}]",), implied=("a city [with a {} in it] at night",))
    said = "a city with a sign in it at night"
    assert method.pushes([Concept(name="sign")]) == [
        Push("sign", "sign"),
        Push("a cat by sign", "a cat by sign", "a cat"),
        Push("a city at night", said, "a city at night"),
    ]


@pytest.mark.parametrize(
    ("options", "concept", "stays"),
    [
        ({"origin": "concept"}, Concept(name="car"), True),
        ({"origin": "concept", "contexts": ("a car [by {}]",)}, Concept(name="Marlow"), True),
        ({"origin": "concept", "implied": ("a car [by {}]",)}, Concept(name="Marlow"), False),
        ({}, Concept(name="car", within="in the city"), True),
        ({}, Concept(name="car"), False),
    ],
)
def test_no_push_moves_no_bit(tiny: TinyModel, options: dict[str, object], concept: Concept, stays: bool) -> None:
    """η = 0: the target is the origin of the push, which is e*(p) itself but for the paper's."""
    model = tiny()
    edit = ESD(eta=0.0, steps=3, grid=2, latents=2, lr=1e-2, **options).fit(model, [concept])  # type: ignore[arg-type]
    before = {n: p.detach().clone() for n, p in model.parameters().items()}
    with edit.on(model):
        assert all(torch.equal(p, before[n]) for n, p in model.parameters().items()) == stays


def test_an_attribute_moves_its_own_prompt_alone() -> None:
    """What is erased from one prompt only has no contexts, and stays in the captions to keep."""
    method, hat = ESD(contexts=("a cat [in a {}]",), keep=("a hat", "a coat")), Concept(name="hat", within="cowboy")
    assert method.pushes([hat]) == [Push("cowboy", "hat", attribute=True)]
    assert method.held([hat]) == ["a hat", "a coat"]
    assert [push.p for push in method.pushes([hat, Concept(name="coat")])] == ["cowboy", "coat", "a cat in a coat"]


def test_a_caption_that_says_a_concept_anyway_is_no_context() -> None:
    method = ESD(contexts=("a red [{}]",), implied=("a red car [with a {}]", "a red boat [with a {}]"))
    assert [push.p for push in method.pushes([Concept(name="sign"), Concept(name="car")])] == [
        "sign", "car", "a red sign", "a red car", "a red boat", "a red boat",
    ]  # fmt: skip
    assert [push.p for push in method.pushes([Concept(name="red")])] == ["red"]


def test_target_in_a_context(tiny: TinyModel) -> None:
    """e*(r) − η [e*(c) − e*(r)], whichever of the two moves; bare names and attributes keep theirs."""
    method = ESD(eta=2, contexts=("a cat [by {}]",), implied=("a city [with {}]",))
    objective = method.part(tiny(), [Concept(name="x"), Concept(name="y", within="z")], Learner({}), 0)
    one = predictions(4, "sample", "concept", "reference")
    e = {k: v[:1].repeat(4, 1, 1, 1) for k, v in one.items()}
    got = objective.target(Points(e["sample"], torch.zeros(4), torch.arange(4), e))
    push = 2 * (e["concept"] - e["reference"])[0]
    for row, start in enumerate(("reference", "sample", "reference", "reference")):
        torch.testing.assert_close(got[row], e[start][0] - push)


def test_a_push_asks_only_for_what_its_target_needs() -> None:
    """Two predictions for the paper's loop; three texts where the contexts have them."""
    name, hat = Concept(name="x"), Concept(name="x", within="y")
    for method, concept, needs in (
        (ESD(), name, {"sample", "empty"}),
        (ESD(), hat, {"sample", "concept", "empty"}),
        (ESD(contexts=("a cat [by {}]",)), name, {"sample", "reference"}),
        (ESD(implied=("a cat [by {}]",)), name, {"concept", "reference"}),
    ):
        assert method.needs(method.pushes([concept])) == needs


def test_a_caption_that_says_the_concept_is_not_kept() -> None:
    method = ESD(keep=("a red car", "a carpet", "a cat"))
    assert method.held(CAR[:0]) == ["a red car", "a carpet", "a cat"]
    assert method.held([Concept(name="Car")]) == ["a carpet", "a cat"]


FROZEN = {"sampler": "frozen", "scheduler": "pipeline", "origin": "concept", "jitter": False}
PAPER = {
    "esd-2023": {"sampler": "student", "jitter": True, "eta": 1.0, "steps": 1000, "lr": 1e-5, "scope": "xattn"},
    "esd-2025": {**FROZEN, "eta": 2.0, "steps": 200, "lr": 5e-5},
    "esd-sdxl-2025": {**FROZEN, "eta": 1.0, "steps": 200, "lr": 2e-4, "guidance": 2.0},
    "esd-x-3": {"sampler": "student", "eta": 3.0, "steps": 1000, "lr": 1e-5, "scope": "xattn"},
    "esd-u-3": {"sampler": "student", "eta": 3.0, "steps": 1000, "lr": 1e-5, "scope": "noxattn"},
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_presets_are_the_published_values(name: str) -> None:
    """The whole of each preset: what the papers do not mention is off."""
    common = {"trajectory": "fresh", "grid": 50, "guidance": 3.0, "batch": 1, "scope": "xattn", "origin": "empty"}
    off = {"clip": None, "ema": None, "weight_decay": 0.0, "schedule": "constant", "keep": (), "reuse": 0}
    own = {"jitter": True, "sampler": "student"} | PAPER[name]
    assert ESD(**preset(name).options).model_dump() == ESD().model_dump() | common | off | own
