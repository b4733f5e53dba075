"""Three ways to reach x_t that must agree where their definitions do."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from conftest import TinyModel
from expunge.concept import Concept
from expunge.errors import ExpungeError
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.trajectory import Fresh, Points, Pool, Renoised, Reused, Roles, Trajectory, check_per_row


def roles(model: Model, *concepts: str) -> Roles:
    return Roles({"sample": model.encode(concepts or ["a car"]), "empty": model.encode([""])})


def test_pool_of_one_walks_the_rollout(tiny: TinyModel) -> None:
    """The pool's point after k steps is the guided rollout's, from the same noise on the same grid."""
    model = tiny()
    pool, n = Pool(model, roles(model), seed=5, grid=6), 6
    start = pool.rng("pool", 0)
    x, which = pool.start(1, start)
    offset = torch.randint(pool.stride, (1,), generator=start)
    for k in range(n):
        points = pool.draw(k)
        want, t = pool.roll(x, which, torch.tensor([k]), offset)
        assert torch.equal(points.t, t)
        assert torch.equal(points.x_t, want)


def test_an_answered_pool_walks_the_same(tiny: TinyModel) -> None:
    """The learner's own prediction moves it as its own would have, and half of the rollout's passes are saved."""
    model = tiny()
    weights = {n: w.detach() + 0.01 for n, w in model.parameters().items() if "attn2" in n}
    pools = [Pool(model, roles(model), seed=5, grid=6, batch=2, sampler=lambda: weights, answered=a) for a in (0, 1)]  # type: ignore[arg-type]
    first = [pool.points(0) for pool in pools]
    pools[1].seen(first[0].rolled["sample"])
    costs = []
    for step in range(1, 9):
        both = []
        for pool in pools:
            before = model.meter.passes
            both.append(pool.points(step))
            costs.append(model.meter.passes - before)
        a, b = both
        torch.testing.assert_close(a.x_t, b.x_t)
        assert torch.equal(a.t, b.t)
        torch.testing.assert_close(a.rolled["empty"], b.rolled["empty"])
        pools[1].seen(a.rolled["sample"])
    assert set(costs[::2]) == {4}
    assert set(costs[1::2]) == {2}


@pytest.mark.parametrize("answered", [False, True])
def test_a_frozen_empty_prompt_guides_the_students_rollout(tiny: TinyModel, answered: bool) -> None:
    """The pool's step is the fresh rollout's, by the student's prompt and the model's empty one, which are as told."""
    model = tiny()
    weights = {n: w.detach() + 0.01 for n, w in model.parameters().items() if "attn2" in n}
    common = {"seed": 5, "grid": 6, "sampler": lambda: weights, "frozen_empty": True}
    pool = Pool(model, roles(model), answered=answered, **common)  # type: ignore[arg-type]
    first, which = pool.points(0), torch.zeros(1, dtype=torch.long)
    said, empty = (model.encode([text]) for text in ("a car", ""))
    e = model.predict(first.x_t, first.t, said, weights)
    o = model.predict(first.x_t, first.t, empty)
    torch.testing.assert_close(first.frozen, {"sample": model.predict(first.x_t, first.t, said), "empty": o})
    pool.seen(e)
    want = pool.advance(first.x_t, first.t, {"sample": e, "empty": o})
    torch.testing.assert_close(pool.points(1).x_t, want)
    fresh = Fresh(model, roles(model), **common)  # type: ignore[arg-type]
    torch.testing.assert_close(fresh.both(first.x_t, first.t, which), {"empty": o, "sample": e})


def test_pool_is_staggered_and_restarts(tiny: TinyModel) -> None:
    model = tiny()
    pool = Pool(model, roles(model), seed=0, grid=8, batch=4)
    first = pool.draw(0).t
    assert len(set((first // pool.stride).tolist())) == 4
    times = torch.cat([pool.draw(i).t for i in range(1, 20)])
    assert times.min() >= 0
    assert times.max() < model.horizon


def test_fresh_equals_the_stock_sampler_partway(tiny: TinyModel) -> None:
    """With the pipeline's DDIM and with our own, the same seed reaches the same x_t when the grid time agrees."""
    model = tiny()
    ours = Fresh(model, roles(model), seed=2, grid=10)
    noise, which = ours.start(1, ours.rng("fresh", 0))
    for k in (0, 3, 9):
        sampler, x = model.sampler(10, [torch.Generator()]), noise
        for i in range(k):
            e = ours.both(x, sampler.timesteps[i].expand(1), which)
            x = sampler.step(e["empty"] + 3.0 * (e["sample"] - e["empty"]), i, x)
        got, t = ours.roll(noise, which, torch.tensor([k]), torch.tensor([1]))
        assert t.item() == sampler.timesteps[k].item()
        torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-5)


def test_renoised_points_are_diffused_clean_latents(tiny: TinyModel) -> None:
    """Solving the forward process for the noise gives what was drawn: mean 0, variance 1."""
    model = tiny()
    route = Renoised(model, roles(model, "a car", "a cat"), seed=1, grid=4, batch=64, latents=4)
    points = route.points(0)
    assert sorted(set(points.which.tolist())) == [0, 1]
    nearest = torch.stack([model.diffuse(c[None], torch.zeros(1), points.t) for c in route.clean()])
    left = (points.x_t - nearest).flatten(2).norm(dim=2).min(0).values
    alpha = 1 - model.pipeline.scheduler.alphas_cumprod[points.t]
    high = points.t > 300
    ratio = (left / (alpha.sqrt() * points.x_t[0].numel() ** 0.5))[high]
    assert abs(ratio.mean().item() - 1) < 0.05


@pytest.mark.parametrize("kind", [Fresh, Pool, Renoised])
def test_frozen_predictions_are_the_models(tiny: TinyModel, kind: type[Trajectory]) -> None:
    model = tiny()
    route = kind(model, roles(model, "a car", "a cat"), seed=3, grid=5, batch=3)
    points = route.draw(0)
    for role in ("sample", "empty"):
        want = model.predict(points.x_t, points.t, route.roles.rows(role, points.which))
        torch.testing.assert_close(points.frozen[role], want, rtol=1e-4, atol=1e-5)


def same(a: Points, b: Points) -> bool:
    return torch.equal(a.x_t, b.x_t) and torch.equal(a.t, b.t) and torch.equal(a.which, b.which)


@pytest.mark.parametrize("kind", [Fresh, Pool, Renoised])
def test_restored_state_continues_the_same(tiny: TinyModel, kind: type[Trajectory]) -> None:
    model = tiny()
    first = kind(model, roles(model, "a car", "a cat"), seed=4, grid=5, batch=2)
    for i in range(4):
        first.draw(i)
    second = kind(model, roles(model, "a car", "a cat"), seed=4, grid=5, batch=2)
    second.restore({k: v.clone() for k, v in first.state().items()})
    for i in range(4, 12):
        assert same(first.draw(i), second.draw(i))


def test_reused_draws_from_its_bank(tiny: TinyModel) -> None:
    model = tiny()
    inner = Renoised(model, roles(model), seed=0, grid=3, batch=4, latents=2)
    bank = Reused(inner, 8, 2)
    bank.draw(0)
    before = model.meter.passes
    again = Reused(inner, 8, 2)
    again.restore(bank.state())
    assert same(bank.draw(7), again.draw(7))
    assert model.meter.passes == before


@pytest.mark.parametrize(
    "options",
    [
        {"trajectory": "pool", "batch": 3},
        {"trajectory": "pool", "batch": 2, "sampler": "student"},
        {"trajectory": "pool", "batch": 2, "sampler": "student", "empty": "frozen"},
        {"trajectory": "fresh", "grid": 1, "batch": 2, "sampler": "student", "empty": "frozen"},
        {"trajectory": "renoised", "latents": 4, "batch": 2},
        {"trajectory": "renoised", "latents": 4, "batch": 2, "reuse": 8},
        {"trajectory": "pool", "batch": 2, "reuse": 40},
        {"trajectory": "renoised", "latents": 4, "batch": 2, "keep": ("a cat",), "keep_weight": 0},
        {"trajectory": "renoised", "latents": 4, "batch": 2, "keep": ("a cat", "a boat"), "keep_batch": 2},
        {"trajectory": "renoised", "latents": 1, "batch": 2, "contexts": ("a cat [by {}]", "a boat [by {}]")},
        {"trajectory": "pool", "batch": 3, "contexts": ("a cat [by {}]",), "keep": ("a boat",)},
        {"trajectory": "pool", "batch": 2, "implied": ("a cat [by {}]",), "sampler": "student"},
        {"trajectory": "pool", "batch": 2, "implied": ("a cat [by {}]",), "sampler": "student", "empty": "frozen"},
        {"trajectory": "fresh", "grid": 1, "batch": 2, "implied": ("a cat [by {}]",), "contexts": ("a boat [by {}]",)},
    ],
)
def test_passes_are_as_announced(tiny: TinyModel, options: dict[str, object]) -> None:
    """What the plan says is what the meter counts, exactly, where no length is random."""
    model = tiny()
    method = ESD(**{"steps": 5, "grid": 6, "lr": 1e-3, **options})  # type: ignore[arg-type]
    concepts = [Concept(name="a car")]
    method.fit(model, concepts)
    assert model.meter.passes == method.passes(concepts)


def test_fresh_costs_what_the_papers_loop_costs(tiny: TinyModel) -> None:
    """About 24.5 guided steps of two passes to reach x_t, then 5 for the loss: 54 a sample."""
    model = tiny()
    ESD(steps=5, batch=16, grid=50, trajectory="fresh").fit(model, [Concept(name="a car")])
    assert 44 < model.meter.passes / 80 < 64
    assert ESD(steps=60, grid=50, trajectory="fresh").passes([Concept(name="a car")]) == 60 * 54


def test_pool_refuses_schedulers_with_one_time_for_all(tiny: TinyModel) -> None:
    model = tiny(EulerDiscreteScheduler)
    with pytest.raises(ExpungeError, match="EulerDiscreteScheduler"):
        ESD(steps=1, trajectory="pool", scheduler="pipeline").fit(model, [Concept(name="a car")])


def test_pool_refuses_what_its_step_does_not_do(tiny: TinyModel) -> None:
    with pytest.raises(ExpungeError, match="DDIMScheduler clips or thresholds"):
        check_per_row(tiny(thresholding=True))
    check_per_row(tiny())


def test_euler_inputs_are_scaled(tiny: TinyModel) -> None:
    """The published trap: under an Euler scheduler x_t is what the network sees, of variance 1 at the start, not σ²."""
    model = tiny(EulerDiscreteScheduler, timestep_spacing="trailing")
    assert model.sampler(1, [torch.Generator()]).sigma > 10
    x_t = Fresh(model, roles(model), seed=0, grid=1, scheduler="pipeline").draw(0).x_t
    assert 0.8 < x_t.std() < 1.2


@pytest.mark.parametrize(("concepts", "latents"), [(5, 3), (3, 4), (2, 6)])
def test_every_concept_has_its_share_of_renoised_latents(tiny: TinyModel, concepts: int, latents: int) -> None:
    """Also where there are more concepts than latents, or an uneven number of them for each."""
    model = tiny()
    route = Renoised(
        model, roles(model, *(f"a {i}" for i in range(concepts))), seed=1, grid=2, batch=600, latents=latents
    )
    counts = torch.bincount(route.points(0).which, minlength=concepts)
    assert len(route.clean()) == max(concepts, latents)
    assert (counts - 600 / concepts).abs().max() < 5 * (600 / concepts) ** 0.5
