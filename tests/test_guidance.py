"""Guidance equals diffusers' own deprecated pipelines, composes, costs what it says, and leaves nothing behind."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as pipelines
from expunge import ExpungeError, Settings
from expunge.families import around
from expunge.generation import images, passes, rollout
from expunge.guidance import PRESETS, guidance
from expunge.guidance.negative import Negative
from expunge.guidance.safe_latent import SafeLatent
from expunge.guidance.semantic import Semantic
from expunge.guided import Guidance
from expunge.model import Model
from expunge.steering import Steering, Step

PROMPTS = ["a red car in the city", "a cat"]
STEPS = 12


def ours(model: Model, *rules: Guidance, cfg: float = 4.0, prompts: list[str] = PROMPTS) -> torch.Tensor:
    """Latents of our own loop."""
    seeds = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    options = Settings(steps=STEPS, cfg=cfg, guidance=rules)
    return rollout(model, model.encode(prompts), Steering.of(model, rules), seeds, options)


@pytest.fixture(scope="module")
def plain(world: Model) -> torch.Tensor:
    """Without any rule."""
    return ours(world)


def stock(pipeline: Any, cfg: float = 4.0, prompts: list[str] = PROMPTS, **more: Any) -> torch.Tensor:
    """Latents of a diffusers pipeline."""
    seeds = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": STEPS, "guidance_scale": cfg, "generator": seeds, "output_type": "latent", **more}
    given |= {"use_resolution_binning": False} if "PixArt" in type(pipeline).__name__ else {}
    found: torch.Tensor = pipeline(prompts, **given).images
    return found


def deprecated(world: Model, name: str, *concepts: str, **more: Any) -> torch.Tensor:
    """Latents of diffusers' own pipeline of that name on the small world's networks."""
    import diffusers

    old, last = world.pipeline, list[torch.Tensor]()
    parts = {k: getattr(old, k) for k in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    with warnings.catch_warnings(action="ignore"):
        pipeline = getattr(diffusers, name)(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        if concepts:
            pipeline.safety_concept = ", ".join(concepts)
        stock(pipeline, output_type="np", callback=lambda *at: last.append(at[2].clone()), **more)
    return last[-1]


@pytest.mark.parametrize("name", ["sld-weak", "sld-medium", "sld-strong", "sld-max"])
def test_sld_equals_its_deprecated_pipeline(world: Model, plain: torch.Tensor, name: str) -> None:
    rule = guidance(f"{name},warmup=3", ["hazard sign", "stop sign"])
    assert isinstance(rule, SafeLatent)
    options = {"guidance_scale": rule.scale, "warmup_steps": rule.warmup, "threshold": rule.threshold}
    options |= {"momentum_scale": rule.momentum, "mom_beta": rule.beta}
    sld = {f"sld_{k}": v for k, v in options.items()}
    theirs = deprecated(world, "StableDiffusionPipelineSafe", *rule.concepts, **sld)
    assert (plain - theirs).abs().max() > 1e-2
    torch.testing.assert_close(ours(world, rule), theirs, rtol=0, atol=1e-5)


SEGAS: list[dict[str, Any]] = [
    {"warmup": 3},
    {"concepts": ("red", "city"), "direction": ("-", "+"), "scale": (4.0, 6.0), "warmup": (2, 6), "weight": (1.0, 0.5)},
    {"concepts": ("red", "city"), "warmup": (2, 6), "cooldown": (8, 4), "threshold": (0.8, 0.95), "momentum": 0.5},
    {"warmup": 5, "momentum": 0.0, "cooldown": 9},
]


@pytest.mark.parametrize("options", SEGAS)
def test_sega_equals_its_deprecated_pipeline(world: Model, plain: torch.Tensor, options: dict[str, Any]) -> None:
    rule = Semantic(**{"concepts": ("hazard sign",), **options})

    def each(name: str) -> list[Any]:
        value = getattr(rule, name)
        return list(value) if isinstance(value, tuple) else [value] * len(rule.concepts)

    fields = {"edit_guidance_scale": "scale", "edit_warmup_steps": "warmup", "edit_threshold": "threshold"}
    sega = {theirs: each(own) for theirs, own in fields.items()} | {"edit_weights": each("weight")}
    sega |= {"editing_prompt": list(rule.concepts), "reverse_editing_direction": [d == "-" for d in each("direction")]}
    sega |= {"edit_momentum_scale": rule.momentum, "edit_mom_beta": rule.beta}
    sega |= {"edit_cooldown_steps": each("cooldown")} if rule.cooldown is not None else {}
    theirs = deprecated(world, "SemanticStableDiffusionPipeline", **sega)
    assert (plain - theirs).abs().max() > 1e-2
    torch.testing.assert_close(ours(world, rule), theirs, rtol=0, atol=1e-5)


def test_a_negative_prompt_equals_the_stock_one(world: Model) -> None:
    theirs = stock(world.pipeline, negative_prompt=["car, city"] * 2)
    torch.testing.assert_close(ours(world, Negative(concepts=("car", "city"))), theirs, rtol=0, atol=1e-5)


def fresh(family: str) -> Any:
    """A tiny pipeline as loaders leave it: nothing drops out."""
    pipeline = pipelines.build(family)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


FAMILIES = [f for f in pipelines.FAMILIES if f != "flux"]
RULES = [Negative(concepts=("red",)), SafeLatent.max("red"), Semantic(concepts=("red", "cat"), warmup=(0, 2))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rules", [*([r] for r in RULES), RULES], ids=["negative", "sld", "sega", "all"])
def test_a_stock_pipeline_is_guided_as_our_own_loop(family: str, rules: list[Guidance]) -> None:
    pipeline, prompts = fresh(family), ["a cat"]  # stochastic schedulers draw for each row apart from here
    with torch.no_grad():
        plain = stock(pipeline, prompts=prompts)
        with ExitStack() as stack:
            for rule in rules:
                stack.enter_context(rule.on(pipeline))
            guided, again = stock(pipeline, prompts=prompts), stock(pipeline, prompts=prompts)
        after = stock(pipeline, prompts=prompts)
    assert torch.equal(guided, again), "momentum outlived its run"
    assert torch.equal(plain, after), "the context left something behind"
    assert not torch.equal(plain, guided)
    expected = ours(around(pipeline), *rules, prompts=prompts)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-3)  # a threshold may fall on either side


@pytest.mark.parametrize("family", FAMILIES)
def test_neutral_guidance_is_bitwise_the_stock_pipeline(family: str) -> None:
    pipeline, neutral = (
        fresh(family),
        [SafeLatent(concepts=("red",), scale=0), Semantic(concepts=("red",), scale=0)],
    )
    with torch.no_grad():
        plain, exact = stock(pipeline), wide(around(pipeline))
        for rule in neutral:
            with rule.on(pipeline):
                found = stock(pipeline)
            assert torch.equal(plain, found) or (not exact and torch.allclose(plain, found, atol=1e-3)), rule.kind


def wide(model: Model) -> bool:
    """Whether this machine computes rows of a wider call to the same bits; matrix products may depend on the size."""
    n, generator = len(PROMPTS), torch.Generator().manual_seed(0)
    x, c, t = model.noise(3 * n, generator), model.encode([*["red"] * n, *PROMPTS, *["red"] * n]), torch.tensor(500)
    return torch.equal(model.predict(x, t, c)[: 2 * n], model.predict(x[: 2 * n], t, c[[*range(2 * n)]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_borrowed_pipeline_stays_as_it_was(family: str) -> None:
    pipeline = fresh(family)
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    before = {n: (p.training, [w.requires_grad for w in p.parameters()]) for n, p in parts.items()}
    with torch.no_grad(), SafeLatent.max("red").on(pipeline):
        stock(pipeline, prompts=["a cat"])
    assert before == {n: (p.training, [w.requires_grad for w in p.parameters()]) for n, p in parts.items()}
    denoiser = around(pipeline).denoiser
    assert not denoiser._forward_hooks and not denoiser._forward_pre_hooks


def test_stock_guidance_without_cfg_asks_for_the_empty_prompt_itself() -> None:
    pipeline, rule = fresh("sd2"), SafeLatent.max("red")
    with torch.no_grad(), rule.on(pipeline):
        guided = stock(pipeline, cfg=1.0)
    torch.testing.assert_close(guided, ours(around(pipeline), rule, cfg=1.0), rtol=0, atol=1e-4)


def test_flux_is_guided_by_our_own_loop_alone() -> None:
    pipeline, rule = fresh("flux"), SafeLatent.max("red")
    with pytest.raises(ExpungeError, match="guides in two calls"), rule.on(pipeline):
        pass
    model = around(pipeline)
    assert not torch.allclose(ours(model, cfg=1.0), ours(model, rule, cfg=1.0), atol=1e-3)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_cost_is_as_said(world: Model, name: str) -> None:
    rule, before = guidance(name, ["car"]), world.meter.passes
    ours(world, rule)
    options = Settings(steps=STEPS, cfg=4.0, guidance=(rule,))
    assert world.meter.passes - before == passes(len(PROMPTS), options)


@pytest.mark.parametrize(
    "rule", [guidance("sld-weak,warmup=6", ["red"]), Semantic(concepts=("red", "cat"), warmup=(3, 1), momentum=0)]
)
def test_skipped_predictions_change_nothing(world: Model, rule: Guidance) -> None:
    """What is not asked for could not have mattered: with every prediction at every step the latents are the same."""
    every = {"needs": lambda self, _: [*range(len(self.prompts))]}
    everything = type("Nosy", (type(rule),), every).model_validate(rule.model_dump())
    torch.testing.assert_close(ours(world, rule), ours(world, everything), rtol=0, atol=1e-3)  # other batches
    assert sum(len(rule.needs(i)) for i in range(STEPS)) < STEPS * len(rule.prompts)


tensors = st.integers(0, 2**16).map(
    lambda seed: torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
)


@given(tensors, st.floats(1, 5000), st.floats(-1, 1))
@settings(deadline=None, max_examples=50)
def test_sld_never_moves_away_from_a_concept_that_is_far(e: torch.Tensor, scale: float, threshold: float) -> None:
    """g is 0 wherever e(p) − e(S) ≥ λ, and never longer than e(S) − e(0)."""
    rule = SafeLatent(concepts=("x",), scale=scale, threshold=threshold, warmup=0, momentum=0)
    delta, _ = rule.change(Step(0, e[0], e[1], {0: e[2]}), None)
    assert delta is not None
    assert (delta[e[1] - e[2] >= threshold] == 0).all()
    assert (delta.abs() <= (e[2] - e[0]).abs() + 1e-6).all()


@given(tensors, st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_sega_keeps_the_upper_part(e: torch.Tensor, threshold: float) -> None:
    rule = Semantic(concepts=("x",), threshold=threshold, warmup=0, momentum=0)
    delta, _ = rule.change(Step(0, e[0], e[1], {0: e[2]}), None)
    assert delta is not None
    kept = (delta != 0).flatten(2).float().mean(2)
    assert (kept >= 1 - threshold - 1 / 16 - 1e-6).all() and (kept <= 1 - threshold + 1 / 16 + 1e-6).all()


@pytest.mark.parametrize(
    ("text", "concepts", "message"),
    [
        ("sld-mux", ["a"], "did you mean 'sld-m"),
        ("sld-max", [], "give --concept"),
        ("sld-max,scal=3", ["a"], "did you mean 'scale'"),
        ("sld-max,scale=-1", ["a"], "scale in guidance sld-max"),
        ("sega,threshold=2", ["a"], "quantile"),
        ("sega,weight=-1", ["a"], "not negative"),
        ("sega,cooldown=5", ["a"], "leaves no step to act"),
        ("sega,warmup=[1, 2]", ["a"], "warmup has 2 values for 1 concepts"),
        ("negative", [" "], "concepts"),
    ],
)
def test_bad_guidance_is_one_clear_line(text: str, concepts: list[str], message: str) -> None:
    with pytest.raises(ExpungeError, match=message) as error:
        guidance(text, concepts)
    assert "\n" not in str(error.value)


def test_two_negative_prompts_are_refused(world: Model) -> None:
    rules = (Negative(concepts=("car",)), Negative(concepts=("cat",)))
    with pytest.raises(ExpungeError, match="two guidances want the empty prompt's place"):
        list(images(world, [], Settings(guidance=rules)))


def test_a_pipeline_is_let_go_of_and_never_mixed_up() -> None:
    import gc
    import weakref

    import diffusers

    pipeline, rule = fresh("sdxl"), SafeLatent.max("red")
    other = diffusers.StableDiffusionXLPipeline(**pipeline.components)
    with rule.on(pipeline), rule.on(pipeline):
        with pytest.raises(ExpungeError, match="another pipeline with this denoiser"), rule.on(other):
            pass
        assert pipeline.unet._forward_hooks
    assert not pipeline.unet._forward_hooks
    gone = weakref.ref(pipeline.unet)
    del pipeline, other
    gc.collect()
    assert gone() is None


def test_momentum_outlasts_a_cooldown_without_cfg(world: Model) -> None:
    """With s = 1 as with any other: after the cooldown the past still counts."""
    short = Semantic(concepts=("red",), warmup=0, cooldown=3, momentum=0.9)
    forgetful = Semantic(concepts=("red",), warmup=0, cooldown=3, momentum=0)
    assert (ours(world, short, cfg=1.0) - ours(world, forgetful, cfg=1.0)).abs().max() > 1e-3


def test_towards_is_not_away() -> None:
    assert Semantic(concepts=("a", "b"), direction=("-", "+")).away == ("a",)
