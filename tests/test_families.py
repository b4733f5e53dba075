"""Each family: the stock denoiser's prediction, the stock pipeline's pictures, every method, every scope."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.concept import Concept
from expunge.erasure import build_method
from expunge.errors import ExpungeError
from expunge.families import _family, load
from expunge.generation import Settings, rollout
from expunge.method import Trained, scoped
from expunge.methods import METHODS
from expunge.methods.ablation import Ablation
from expunge.methods.esd import ESD
from expunge.methods.uce import UCE
from expunge.model import Model, guide
from expunge.objective import Learner
from expunge.recipe import preset, preset_names
from expunge.scope import SCOPES, select
from expunge.steering import Steering
from expunge.trajectory import Fresh, Pool, Roles
from tiny import FAMILIES, VARIANTS, build, watched

CAT = [Concept(name="red cat")]
TOKENIZERS = {
    "sd2": ["tokenizer"], "sdxl": ["tokenizer"], "sd3": ["tokenizer", "tokenizer_3"], "flux": ["tokenizer_2"],
    "pixart": ["tokenizer"],
}  # fmt: skip
INTO = [Concept(name="red cat", anchor="cat")]
TRAINED = [m for m in METHODS.values() if issubclass(m, Trained)]


@cache
def opened(family: str) -> Model:
    pipeline = build(family)
    return _family(type(pipeline).__name__)(pipeline, torch.device("cpu"), torch.float32, name=family)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Model:
    return opened(request.param)


@pytest.mark.parametrize("family", [*FAMILIES, *VARIANTS])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_a_rollout_is_the_stock_pipelines(family: str, cfg: float) -> None:
    """Same noise, same steps, same latents at the end."""
    model, flux = opened(family), family in ("flux", "schnell")
    if flux and cfg != 1.0:
        pytest.skip("the stock pipeline has distilled guidance alone")
    x = model.noise(1, torch.Generator().manual_seed(3))
    prompt, seeds = "a red car", [torch.Generator().manual_seed(3)]
    ours = rollout(model, model.encode([prompt]), Steering.of(model, ()), seeds, Settings(steps=4, cfg=cfg))
    latents = model.denoise(x, torch.tensor([0]), model.encode([prompt]))[0][0] if flux else x
    more = {} if flux else {"guidance_scale": cfg}
    more |= {"use_resolution_binning": False} if family in ("pixart", "alpha") else {}
    stock = model.pipeline(prompt, num_inference_steps=4, latents=latents, output_type="latent", **more).images
    torch.testing.assert_close(ours, model.restore(stock, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, *VARIANTS])
def test_a_prediction_is_the_stock_denoisers(family: str) -> None:
    """What the stock pipeline's denoiser was given and said, seen by a hook, is what ours says there."""
    model, flux = opened(family), family in ("flux", "schnell")
    seen: list[tuple[Any, ...]] = []

    def note(_: Any, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
        x = args[0] if args else given.get("sample", given.get("hidden_states"))
        seen.append((x, args[1] if len(args) > 1 else given["timestep"], out[0]))

    hook = model.denoiser.register_forward_hook(note, with_kwargs=True)
    more: dict[str, Any] = {} if flux else {"guidance_scale": 1.0}
    more |= {"use_resolution_binning": False} if family in ("pixart", "alpha") else {}
    model.pipeline("a red car", num_inference_steps=3, output_type="latent", **more)
    hook.remove()
    for x, t, out in seen:
        latents = model.restore(x, model.noise(1, torch.Generator()))
        time = t.flatten()[0] * (1000 if flux else 1)
        want = model.restore(out, latents)
        torch.testing.assert_close(
            model.predict(latents, time, model.encode(["a red car"])), want, atol=1e-5, rtol=1e-5
        )
    assert len(seen) == 3


def test_parts_are_on_the_device_while_they_work(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With offload: encoders and autoencoder run on the device alone, and leave it. (Here "cpu:0" is the device.)"""
    place: dict[int, str] = {}
    move = torch.nn.Module.to

    def note(part: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if args and not isinstance(args[0], torch.dtype):
            place[id(part)] = str(args[0])
        return move(part, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", note)
    away = type(model)(build(model.name), torch.device("cpu:0"), torch.float32, name=model.name, offload=True)
    parts, ran = away.parts(), set[str]()
    hooks = []
    for name, part in parts.items():

        def check(part: torch.nn.Module, *_: Any, name: str = name) -> None:
            assert place[id(part)] == "cpu:0", name
            ran.add(name)

        hooks.append(part.register_forward_pre_hook(check))
    assert {n for n, p in parts.items() if place[id(p)] == "cpu:0"} == {away.component}
    ESD(steps=1, grid=1, latents=1).fit(away, CAT)
    UCE().fit(away, INTO)
    assert away.spans("a red car")
    away.decode(away.noise(1, torch.Generator()))
    assert {n for n, p in parts.items() if place[id(p)] == "cpu:0"} == {away.component}
    assert {n for n in parts if n.startswith("text_encoder")} <= ran
    assert away.bytes < model.bytes


def test_rows_of_the_text_are_the_concepts_own(model: Model) -> None:
    """Decoded again, the tokens of the spans are the prompt's words, and nothing before or after them."""
    for span, name in zip(model.spans("Red Car"), TOKENIZERS[model.name], strict=True):
        tokenizer = getattr(model.pipeline, name)
        ids = tokenizer("red car" if model.name == "pixart" else "Red Car", add_special_tokens=False).input_ids
        assert span.last - span.first + 1 == len(ids)
        assert span.end <= model.positions


def test_empty_is_the_pipelines_own_unconditional(model: Model) -> None:
    """For SDXL zeros, where its config says so; elsewhere the embedding of ""."""
    empty, said = model.empty().tensors, model.encode(["a car", ""])[1:].tensors
    assert bool((empty["text"] == 0).all()) == (model.name == "sdxl")
    assert (said["text"] != 0).any()
    if model.name != "sdxl":
        torch.testing.assert_close(dict(empty), dict(said))


def test_the_empty_caption_is_the_unconditional(model: Model) -> None:
    """For what methods say of "": the push of a bare name beside contexts, and a caption to keep."""
    said = model.captions(["a car", "", "red"])
    torch.testing.assert_close(dict(said[[1]].tensors), dict(model.empty().tensors))
    torch.testing.assert_close(dict(said[[0, 2]].tensors), dict(model.encode(["a car", "red"]).tensors))
    plain, among = (ESD(contexts=c).part(model, CAT, Learner({}), 0) for c in ((), ("a car [by {}]",)))
    reference = among.roles.conditions["reference"][[0]]
    torch.testing.assert_close(dict(reference.tensors), dict(plain.roles.conditions["empty"].tensors))


def test_guidance_by_default_is_the_pipelines() -> None:
    """FLUX has its own inside."""
    assert {f: opened(f).cfg for f in FAMILIES} == {"sd2": 7.5, "sdxl": 5.0, "sd3": 7.0, "flux": 1.0, "pixart": 4.5}


def test_truth_and_steps_agree(model: Model, rng: torch.Generator) -> None:
    """From x_t, a perfect prediction leads back to x_0 in one step, and to x_s on the way."""
    x_0, noise, t, s = model.noise(2, rng), model.noise(2, rng), torch.tensor([900, 300]), torch.tensor([600, 10])
    x_t = model.diffuse(x_0, noise, t)
    truth = model.truth(x_0, noise, t)
    torch.testing.assert_close(model.advance(truth, x_t, t, s), model.diffuse(x_0, noise, s), atol=1e-4, rtol=1e-4)


def test_flows_begin_where_noise_is_pure(model: Model, rng: torch.Generator) -> None:
    """From noise, wherever the grid's first time lies, a perfect prediction leads onto the straight line."""
    route = Pool(model, Roles({"sample": model.encode(["a"]), "empty": model.empty()}), seed=0, grid=5, batch=3)
    nominal, x_0, noise = torch.tensor([999, 900, 810]), model.noise(3, rng), model.noise(3, rng)
    if model.pure is None:
        assert torch.equal(route.at(nominal), nominal)
        return
    assert route.at(nominal).tolist() == [1000, 1000, 1000]
    truth = model.truth(x_0, noise, nominal)
    moved = route.advance(noise, nominal, {"sample": truth, "empty": truth})
    torch.testing.assert_close(moved, model.diffuse(x_0, noise, nominal - route.stride), atol=1e-5, rtol=1e-5)
    assert set(route.draw(0).t.tolist()) & {1000}


def test_the_pipelines_own_schedule(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout by the pipeline's scheduler asks at its times, and is at each where the stock sampler is."""
    said, asked, predict = model.encode(["a red car"]), list[float](), type(model).predict

    def note(own: Model, x: torch.Tensor, t: torch.Tensor, *more: Any) -> torch.Tensor:
        asked.append(float(t.flatten()[0]))
        return predict(own, x, t, *more)

    route = Fresh(model, Roles({"sample": said, "empty": model.empty()}), seed=0, grid=6, batch=2, scheduler="pipeline")
    monkeypatch.setattr(type(model), "predict", note)
    found = next(p for p in map(route.points, range(50)) if len(asked) == 4 or asked.clear())
    monkeypatch.undo()
    step = next(i for i in range(50) if torch.equal(route.points(i).x_t, found.x_t))
    sampler = model.sampler(6, [torch.Generator()] * 2)
    x = route.start(2, route.rng("fresh", step))[0] * sampler.sigma
    assert asked == sampler.timesteps[:4].tolist()
    for i, t in enumerate(sampler.timesteps[:4]):
        e, o = (model.predict(sampler.scale(x, i), t, c.repeat(2)) for c in (said, model.empty()))
        x = sampler.step(guide(e, o, 1.0 if model.distilled else 3.0), i, x)
    torch.testing.assert_close(found.x_t, sampler.scale(x, 4), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [m for m in TRAINED if m.kind != "closed-loop"], ids=lambda m: m.kind)
def test_every_trained_method_lowers_its_objective(model: Model, method: type[Trained]) -> None:
    """On points it never trained on. Ablation's target, the student's own, runs away where weights are random. The
    closed loop's objective changes as it looks."""
    own = {"steps": 24} if method.kind != "ablation" else {"steps": 24, "variant": "noise", "images": 24}
    chosen = method(grid=3, batch=4, lr=3e-4, **own)  # type: ignore[arg-type]
    concepts = INTO if method.anchors else CAT
    edit = chosen.fit(model, concepts)
    base = {name: model.parameters()[name].detach() for name in edit.delta}

    def loss(weights: dict[str, torch.Tensor]) -> float:
        objective = chosen.objective(model, concepts, Learner(weights, weights), 99)
        return sum(sum(terms.values()).item() for step in range(4) for terms in objective(step))  # type: ignore[union-attr]

    assert loss({name: w + edit.delta[name] for name, w in base.items()}) < loss(base)


def test_the_closed_form_lowers_its_objective(model: Model) -> None:
    """‖W c − W₀ g‖² of every matrix that reads the text; the others stay."""
    method = UCE(ridge=0.1)
    edit = method.fit(model, INTO)
    projections = method._projections(model)
    assert set(edit.delta) == {name for base in projections.values() for name in base}
    for source, base in projections.items():
        c, g = method._pair(model, source, "red cat", "cat")
        for name, w in base.items():
            before, after = (((w + d) @ c - w @ g).norm() for d in (0, edit.delta[name].double()))
            assert after < before


def test_ablation_draws_the_concept_to_its_anchor(model: Model) -> None:
    """A small step brings e(x_t, p*) nearer to what e(x_t, p) was there: the gradient is stopped."""
    method = Ablation(steps=1, grid=3, images=4, batch=8, lr=1e-5)
    edit = method.fit(model, INTO)
    rows = method.part(model, INTO, Learner({}), 0).rows(0)

    def apart() -> torch.Tensor:
        return (model.predict(rows.x_t, rows.t, rows.prompts).double() - rows.target).square().sum()

    before = apart()
    with edit.on(model):
        assert apart() < before


SMALL: dict[str, Any] = {
    "steps": 1, "grid": 2, "batch": 2, "images": 2, "latents": 2, "warmup": 0, "keep": (),
    "contexts": (), "implied": (), **watched(METHODS["closed-loop"]),
}  # fmt: skip


def readers(model: Model, scope: str) -> bool:
    """Whether a weight of the scope reads the text itself."""
    return any(part in name for name in scoped(model, scope) for part in model.layout.reads)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_runs(model: Model, name: str) -> None:
    """Shortened, but by its own trajectory, scheduler, scope and optimiser."""
    recipe = preset(name)
    own = {k: v for k, v in SMALL.items() if k in METHODS[recipe.method].model_fields and recipe.method != "uce"}
    captions = {"prompts": ("a car [by {}]", "a car")} if recipe.method == "ablation" else {}
    method = build_method(recipe, own | captions)
    concepts = INTO if method.anchors and "style" not in name else CAT
    if getattr(method, "fixed", ()) and not readers(model, method.scope):
        with pytest.raises(ExpungeError, match="scope has none"):
            method.fit(model, concepts)
        return
    edit = method.fit(model, concepts)
    assert edit.delta
    assert all(bool(d.isfinite().all()) for d in edit.delta.values())
    assert any(bool((d != 0).any()) for d in edit.delta.values())


def test_checkpointing_changes_no_gradient(model: Model) -> None:
    """And keeps fewer activations: the student's weights are the ones that run again."""

    def gradients() -> tuple[int, list[torch.Tensor]]:
        kept = 0

        def keep(x: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += x.numel()
            return x

        base = select(model.networks(), "attention", model.layout)
        weights = {n: (w.detach() + 0.01).requires_grad_() for n, w in base.items()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            e = model.predict(model.noise(2, torch.Generator().manual_seed(0)), torch.tensor(500), said, weights)
        return kept, list(torch.autograd.grad(e.square().sum(), [*weights.values()]))

    said = model.encode(["a red cat", "a car"])
    much, plain = gradients()
    model.checkpointing()
    try:
        little, again = gradients()
    finally:
        model.denoiser.disable_gradient_checkpointing()  # type: ignore[operator]
    assert little < much
    torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("scope", ["embedding", "kv-text"])
def test_text_encoders_learn_the_concepts_rows_alone(model: Model, scope: str) -> None:
    """Whatever the case of its letters; and prompts encoded under the edit are those that training saw."""
    edit = ESD(scope=scope, steps=3, grid=2, latents=2, lr=1e-2).fit(model, [Concept(name="Red Cat")])
    tables = [name for name in edit.delta if model.of_encoder(name)]
    for name in tables:
        moved = edit.delta[name].abs().sum(1).nonzero().flatten().tolist()
        assert moved
        assert set(moved) <= set(model.tokens(name, "Red Cat"))
    x, t, said, before = model.noise(1, torch.Generator().manual_seed(0)), torch.tensor(500), "a Red Cat", model.hash
    weights = {name: model.parameters()[name].detach() + d for name, d in edit.delta.items()}
    trained = model.predict(x, t, model.encode([said]), weights)
    plain = model.predict(x, t, model.encode([said]))
    with edit.on(model):
        torch.testing.assert_close(model.predict(x, t, model.encode([said])), trained)
    assert not torch.allclose(trained, plain, atol=1e-6)
    assert torch.equal(model.predict(x, t, model.encode([said])), plain)
    assert model.hash == before


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_selects(model: Model, scope: str) -> None:
    chosen = select(model.networks(), scope, model.layout)
    assert 0 < len(chosen) <= len(model.parameters())


ADDED = {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
ATTENDS = {
    "sd2": ({"attn2"}, {"attn1"}), "sdxl": ({"attn2"}, {"attn1"}), "pixart": ({"attn2"}, {"attn1"}),
    "sd3": (ADDED, {"to_q", "to_k", "to_v", "to_out"}),
    "flux": ({*ADDED, "context_embedder"}, {"to_q", "to_k", "to_v", "to_out"}),
}  # fmt: skip
APART = {
    "sd2": {"time_embedding", "conv_norm_out", "conv_out"},
    "sdxl": {"time_embedding", "conv_norm_out", "conv_out"},
    "pixart": {"adaln_single", "proj_out", "scale_shift_table"},
    "sd3": {"time_text_embed", "norm_out", "proj_out"},
    "flux": {"time_text_embed", "norm_out", "proj_out"},
}
READS = {
    "sd2": {"to_k", "to_v"}, "sdxl": {"to_k", "to_v"}, "pixart": {"linear_1"},
    "sd3": {"context_embedder", "linear_1"}, "flux": {"context_embedder", "linear_1"},
}  # fmt: skip


def test_scopes_part_the_network(model: Model) -> None:
    """By whole name parts: which attend to the text, which to the picture, which stand apart, which read the text."""

    def names(scope: str) -> set[str]:
        return set(select(model.networks(), scope, model.layout))

    def said(parts: set[str]) -> set[str]:
        return {n for n in names("full") if parts & set(n.split("."))}

    text, picture = ATTENDS[model.name]
    pooled = {n for n in names("full") if model.name == "flux" and "text_embedder.linear_1" in n}
    assert names("full") == {n for n, _ in model.denoiser.named_parameters()}
    assert names("xattn") == said(text) | pooled
    assert names("selfattn") == said(picture) - names("xattn")
    assert names("attention") == names("xattn") | names("selfattn")
    assert names("full") - names("notime") == {n for n in names("full") if n.split(".")[0] in APART[model.name]} - (
        {n for n in names("full") if "text_embedder" in n} if model.name == "flux" else set()
    )
    assert names("noxattn") == names("notime") - names("xattn")
    assert names("noxattn-2025") == {n for n in names("full") - names("xattn") if weighs(model, n)}
    assert names("reads-text") == {n for n in said(READS[model.name]) if n.endswith("weight") and reads(model, n)}
    assert {n for n in names("kv-text") if model.of_encoder(n)} == names("embedding")


def weighs(model: Model, name: str) -> bool:
    """Whether it belongs to a linear layer or a convolution."""
    layer = model.denoiser.get_submodule(name.rpartition(".")[0])
    return isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)


def reads(model: Model, name: str) -> bool:
    """Whether that matrix is given a text's embedding itself, as the network runs."""
    condition, found = model.encode(["a red car"]), list[bool]()
    texts = [condition.tensors["text"], condition.tensors.get("pooled", condition.tensors["text"])]

    def look(_: Any, args: tuple[Any, ...]) -> None:
        found.append(any(t.shape == args[0].shape and torch.equal(t, args[0]) for t in texts))

    hook = model.denoiser.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(look)
    model.predict(model.noise(1, torch.Generator().manual_seed(0)), torch.tensor(500), condition)
    hook.remove()
    return all(found)


def test_transformers_scope_is_the_text_stream() -> None:
    """add_{k,v,q}_proj and to_add_out; FLUX also context_embedder and text_embedder.linear_1."""
    own = ("add_k_proj", "add_v_proj", "add_q_proj", "to_add_out")
    for family, more in (("sd3", ()), ("flux", ("context_embedder", "text_embedder.linear_1"))):
        model = opened(family)
        chosen = set(select(model.networks(), "xattn", model.layout))
        assert chosen == {n for n, _ in model.denoiser.named_parameters() if any(part in n for part in (*own, *more))}


def test_a_folder_opens_as_its_family(model: Model, tmp_path: Path) -> None:
    model.pipeline.save_pretrained(tmp_path / "pipe")
    again = load(str(tmp_path / "pipe"), device="cpu", precision="fp32")
    x, condition = model.noise(1, torch.Generator().manual_seed(0)), model.encode(["a red car"])
    assert type(again) is type(model)
    torch.testing.assert_close(
        again.predict(x, torch.tensor(500), again.encode(["a red car"])), model.predict(x, torch.tensor(500), condition)
    )
    assert np.isfinite(again.decode(x).numpy()).all()
