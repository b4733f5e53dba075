"""The adapter is the stock pipeline: same latents bit for bit, same solver, same forward process."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from conftest import TinyModel
from expunge.errors import ExpungeError
from expunge.families import Precision, load
from expunge.generation import Settings, rollout
from expunge.model import Condition, Model
from expunge.steering import Steering

SCHEDULERS = [DDIMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, PNDMScheduler]


def stock(model: Model, prompt: str, seed: int, settings: Settings) -> torch.Tensor:
    """Latents of the untouched diffusers pipeline."""
    model.pipeline.set_progress_bar_config(disable=True)
    latents: torch.Tensor = model.pipeline(
        prompt,
        num_inference_steps=settings.steps,
        guidance_scale=settings.cfg,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        height=model.pipeline.unet.config.sample_size * 4,
        width=model.pipeline.unet.config.sample_size * 4,
    ).images
    return latents


def ours(model: Model, prompt: str, seed: int, settings: Settings) -> torch.Tensor:
    rngs = [torch.Generator().manual_seed(seed)]
    return rollout(model, model.encode([prompt]), Steering.of(model, ()), rngs, settings)


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_rollout_is_the_stock_pipeline_on_the_small_world(world: Model, cfg: float) -> None:
    settings = Settings(steps=4, cfg=cfg)
    assert torch.equal(ours(world, "a red cat", 3, settings), stock(world, "a red cat", 3, settings).to(torch.float32))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_rollout_is_the_stock_pipeline_for_other_schedulers(tiny: TinyModel, scheduler: type, kind: str) -> None:
    model, settings = tiny(scheduler, prediction_type=kind), Settings(steps=5)
    assert torch.equal(ours(model, "a car", 1, settings), stock(model, "a car", 1, settings))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_advance_is_ddim_step_at_every_time(tiny: TinyModel, rng: torch.Generator, kind: str) -> None:
    model = tiny(prediction_type=kind)
    scheduler = DDIMScheduler.from_config(model.pipeline.scheduler.config)
    scheduler.set_timesteps(20)
    t = torch.tensor([0, 7, 49, 50, 51, 500, 999])
    x, prediction = torch.randn(7, 4, 8, 8, generator=rng), torch.randn(7, 4, 8, 8, generator=rng)
    got = model.advance(prediction, x, t, t - 50)
    for j, one in enumerate(t):
        want = scheduler.step(prediction[j : j + 1], int(one), x[j : j + 1]).prev_sample
        torch.testing.assert_close(got[j : j + 1], want, rtol=1e-5, atol=1e-5)


def test_diffuse_is_add_noise(world: Model, rng: torch.Generator) -> None:
    x, noise, t = world.noise(5, rng), world.noise(5, rng), torch.tensor([0, 1, 500, 998, 999])
    torch.testing.assert_close(world.diffuse(x, noise, t), world.pipeline.scheduler.add_noise(x, noise, t))


def test_replaced_weights_act_like_changed_weights(tiny: TinyModel, rng: torch.Generator) -> None:
    model = tiny()
    x, condition = model.noise(2, rng), model.encode(["a cat", "a car"])
    name, weight = next((n, p) for n, p in model.parameters().items() if "attn2.to_v" in n)
    replaced = model.predict(x, torch.tensor(300), condition, {name: weight + 1})
    with torch.no_grad():
        weight += 1
    assert torch.equal(replaced, model.predict(x, torch.tensor(300), condition))


def test_meter_counts_rows_and_backwards(tiny: TinyModel, rng: torch.Generator) -> None:
    model = tiny()
    x, condition = model.noise(3, rng), model.encode(["a"] * 3)
    model.predict(x, torch.tensor(1), condition)
    name, weight = next(iter(model.parameters().items()))
    model.predict(x, torch.tensor(1), condition, {name: weight.clone().requires_grad_()})
    assert (model.meter.passes, model.meter.calls) == (3 + 9, 2)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "mixed"])
def test_hash_is_the_same_in_every_precision(world: Model, tmp_path: Path, precision: Precision) -> None:
    """Also for weights that fp16 cannot hold, which would round twice on their way to bf16."""
    world.pipeline.save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = {name: w + torch.randn_like(w) * 1e-3 for name, w in load_file(file).items()}
    save_file(weights, file)
    want = load(str(tmp_path), device="cpu", precision="fp32").hash
    assert load(str(tmp_path), device="cpu", precision=precision).hash == want != world.hash


def test_condition_rows(world: Model) -> None:
    both = world.encode(["a cat", "a car"])
    again = Condition.cat([both[[0]], both[[1]]])
    assert len(again) == 2
    assert torch.equal(again.tensors["text"], both.tensors["text"])


@pytest.mark.parametrize("collecting", [True, False])
def test_loading_leaves_garbage_collection_as_it_was(collecting: bool) -> None:
    """Also when it fails."""
    try:
        gc.enable() if collecting else gc.disable()
        with pytest.raises(ExpungeError):
            load("./nowhere")
        assert gc.isenabled() == collecting
    finally:
        gc.enable()
