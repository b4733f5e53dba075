"""Out and in again: the same change."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from conftest import TinyModel
from expunge import smallworld
from expunge.composed import Composed
from expunge.concept import Concept
from expunge.edit import Edit
from expunge.errors import ExpungeError
from expunge.families import _family, load
from expunge.families.stable_diffusion import StableDiffusion
from expunge.families.stable_diffusion_3 import StableDiffusion3
from expunge.families.stable_diffusion_xl import StableDiffusionXL
from expunge.formats import FORMATS, format_of, read
from expunge.formats.kohya import named
from expunge.generation import Request, Settings, images
from expunge.methods.esd import ESD
from expunge.model import Model
from tiny import build

ONLY = shutil.ignore_patterns("*.safetensors", "judge", "clip", "unet_gold")
CAR = [Concept(name="car")]


@pytest.fixture(scope="module")
def lora(tiny: TinyModel) -> Edit:
    return ESD(steps=4, grid=2, latents=2, lr=1e-2, lora_rank=3).fit(tiny(), CAR)


@pytest.fixture(scope="module")
def plain(tiny: TinyModel) -> Edit:
    return ESD(steps=4, grid=2, latents=2, lr=1e-2, scope="xattn-strict").fit(tiny(), CAR)


def close(a: Edit, b: Edit, atol: float = 1e-6) -> None:
    assert set(a.delta) == set(b.delta)
    for name in a.delta:
        torch.testing.assert_close(a.delta[name], b.delta[name], atol=atol, rtol=0)


def opened(family: str) -> Model:
    pipeline = build(family)
    return _family(type(pipeline).__name__)(pipeline, torch.device("cpu"), torch.float32, name=family)


def prediction(model: Model) -> torch.Tensor:
    x = model.noise(2, torch.Generator().manual_seed(0))
    return model.predict(x, torch.tensor(500), model.encode(["a car", ""]))


@pytest.mark.parametrize("kind", ["delta", "lora", "kohya"])
def test_a_lora_goes_round(tiny: TinyModel, lora: Edit, kind: str, tmp_path: Path) -> None:
    """Its own factors leave, and come back without loss."""
    model, file = tiny(), tmp_path / "out.safetensors"
    assert format_of(kind).write(lora, model, file, None) == ""
    back = read(file, model)
    close(back, lora)
    with lora.on(model):
        want = prediction(model)
    with back.on(model):
        torch.testing.assert_close(prediction(model), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_pictures(world: Model, kind: str, tmp_path: Path) -> None:
    """Whatever leaves, what comes back draws the edited model's pictures: no pixel further than 1/255 away."""
    edit = ESD(steps=4, grid=2, latents=2, lr=1e-2, lora_rank=3).fit(world, CAR)
    requests, settings = [Request("a red car in the city", seed) for seed in (0, 1)], Settings(steps=4)
    with edit.on(world):
        want = torch.cat([*images(world, requests, settings)])
    plain = torch.cat([*images(world, requests, settings)])
    assert (want - plain).abs().max() > 0.1
    whole = kind in ("diffusers", "compvis")
    if kind == "compvis":
        shutil.copytree(smallworld.path(), tmp_path, ignore=ONLY, dirs_exist_ok=True)
    out = tmp_path / ("pipe" if kind == "diffusers" else "out.safetensors")
    format_of(kind).write(edit, world, out, None)
    with ExitStack() as applied:
        model = load(str(out), device="cpu", precision="fp32") if whole else world
        if not whole:
            applied.enter_context(read(out, world).on(world))
        torch.testing.assert_close(torch.cat([*images(model, requests, settings)]), want, atol=2 / 255, rtol=0)


def test_text_encoders_go_round_in_old_and_new_names(tmp_path: Path) -> None:
    """CLIP's layers lie under "text_model" in other tools' files, whatever this library calls them."""
    model = StableDiffusionXL(build("sdxl"), torch.device("cpu"), torch.float32, name="xl")
    parameters, rng = model.parameters(), torch.Generator().manual_seed(0)
    chosen = [n for n in parameters if n.endswith("layers.0.self_attn.q_proj.weight")]
    assert [n.split(".")[0] for n in chosen] == ["text_encoder", "text_encoder_2"]
    delta = {}
    for name in [*chosen, "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"]:
        out, inner = parameters[name].shape
        delta[f"{name}.lora_A"] = torch.randn(2, inner, generator=rng)
        delta[f"{name}.lora_B"] = torch.randn(out, 2, generator=rng)
    edit = Edit(Composed(delta), {"base": {"hash": model.hash}})
    heads = {"lora": "text_encoder_2.text_model.encoder", "kohya": "lora_te2_text_model_encoder"}
    for kind in ("lora", "kohya", "delta"):
        file = tmp_path / f"{kind}.safetensors"
        format_of(kind).write(edit, model, file, None)
        close(read(file, model), edit, atol=1e-5)
        stored = load_file(file)
        assert any(heads.get(kind, "text_encoder_2.text_model") in key for key in stored)
        if kind != "kohya":
            save_file({k.replace("text_model.", ""): v for k, v in stored.items()}, file)
            close(read(file, model), edit, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "kohya"])
def test_a_full_edit_as_lora_tells_its_error(tiny: TinyModel, plain: Edit, kind: str, tmp_path: Path) -> None:
    model, file = tiny(), tmp_path / "out.safetensors"
    with pytest.raises(ExpungeError, match="--rank"):
        format_of(kind).write(plain, model, file, None)
    assert not file.exists()
    said = format_of(kind).write(plain, model, file, 4)
    back = read(file, model)
    lost = sum(float((back.delta[n] - d).square().sum()) for n, d in plain.delta.items())
    whole = sum(float(d.square().sum()) for d in plain.delta.values())
    assert f"{(lost / whole) ** 0.5:.2%}" in said
    assert 0 < lost / whole < 1
    assert format_of(kind).write(plain, model, file, 999) == ""
    close(read(file, model), plain)


def test_diffusers_loads_the_lora(tiny: TinyModel, lora: Edit, tmp_path: Path) -> None:
    """`load_lora_weights` on the stock pipeline predicts what the edited model does."""
    model = tiny()
    format_of("lora").write(lora, model, tmp_path / "out.safetensors", None)
    with lora.on(model):
        want = prediction(model)
    other = tiny()
    before = prediction(other)
    assert isinstance(other.pipeline, StableDiffusionPipeline)
    other.pipeline.load_lora_weights(tmp_path, weight_name="out.safetensors")
    torch.testing.assert_close(prediction(other), want, atol=1e-5, rtol=0)
    other.pipeline.unload_lora_weights()
    torch.testing.assert_close(prediction(other), before)
    assert (want - before).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_diffusers_loads_it_on_every_family_that_takes_one(family: str, tmp_path: Path) -> None:
    """And what went out, as kohya's too, comes in again."""
    model, other = opened(family), opened(family)
    edit = ESD(steps=4, grid=2, latents=2, lr=1e-2, lora_rank=3).fit(model, CAR)
    for kind in ("kohya", "lora"):
        format_of(kind).write(edit, model, tmp_path / f"{kind}.safetensors", None)
        close(read(tmp_path / f"{kind}.safetensors", model), edit)
    other.pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    before = prediction(model)
    with edit.on(model):
        torch.testing.assert_close(prediction(other), prediction(model), atol=1e-5, rtol=0)
    assert (prediction(other) - before).abs().max() > 1e-3


def test_kohya_has_no_names_for_pixart(tmp_path: Path) -> None:
    model = opened("pixart")
    edit = ESD(steps=1, grid=2, latents=2, lora_rank=3).fit(model, CAR)
    with pytest.raises(ExpungeError, match="no tool loads kohya's names"):
        format_of("kohya").write(edit, model, tmp_path / "kohya.safetensors", None)
    format_of("lora").write(edit, model, tmp_path / "lora.safetensors", None)
    close(read(tmp_path / "lora.safetensors", model), edit)


BLOCK = "transformer_blocks"
KOHYA = {
    "sdxl": {
        f"input_blocks_4_1_{BLOCK}_0_attn2_to_k": f"down_blocks.1.attentions.0.{BLOCK}.0.attn2.to_k",
        "input_blocks_8_1_proj_in": "down_blocks.2.attentions.1.proj_in",
        "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks_4_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
        f"middle_block_1_{BLOCK}_9_attn1_to_out_0": f"mid_block.attentions.0.{BLOCK}.9.attn1.to_out.0",
        "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
        f"output_blocks_0_1_{BLOCK}_0_ff_net_0_proj": f"up_blocks.0.attentions.0.{BLOCK}.0.ff.net.0.proj",
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_3_0_emb_layers_1": "up_blocks.1.resnets.0.time_emb_proj",
        "time_embed_0": "time_embedding.linear_1",
        "label_emb_0_2": "add_embedding.linear_2",
        "input_blocks_0_0": "conv_in",
        "out_2": "conv_out",
    },
    "sd1": {
        f"down_blocks_0_attentions_0_{BLOCK}_0_attn2_to_k": f"down_blocks.0.attentions.0.{BLOCK}.0.attn2.to_k",
        "mid_block_attentions_0_proj_in": "mid_block.attentions.0.proj_in",
    },
}
"""Names in published files: kohya's keep the original's for XL."""


@pytest.mark.parametrize("family", KOHYA)
def test_kohyas_names_are_those_of_published_files(family: str) -> None:
    from diffusers import UNet2DConditionModel

    xl = {
        "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True,
        "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    model = opened("sdxl" if family == "sdxl" else "sd2")
    with torch.device("meta"):
        model.pipeline.unet = UNet2DConditionModel(**(xl if family == "sdxl" else {}))
    modules = dict(model.denoiser.named_modules())
    for theirs, ours in KOHYA[family].items():
        assert named(model, ours) == f"lora_unet_{theirs}"
        assert ours in modules
    own = [named(model, n) for n, m in modules.items() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(set(own)) == len(own)
    assert named(model, f"text_encoder{'_2' * (family == 'sdxl')}.text_model.encoder.layers.0.mlp.fc1") == (
        f"lora_te{'2' * (family == 'sdxl')}_text_model_encoder_layers_0_mlp_fc1"
    )


def test_a_lora_of_xl_by_either_names(tmp_path: Path) -> None:
    """The original's, and diffusers', as some tools write them."""
    model, where = opened("sdxl"), tmp_path / "kohya.safetensors"
    edit = ESD(steps=1, grid=2, latents=2, lora_rank=3, lr=1e-2).fit(model, CAR)
    format_of("kohya").write(edit, model, where, None)
    stored = load_file(where)
    assert isinstance(edit.delta, Composed)
    modules = [name.removesuffix(".weight") for name in edit.delta]
    other = {named(model, n): f"lora_unet_{n.replace('.', '_')}" for n in modules}
    save_file({other[k.split(".")[0]] + "." + k.split(".", 1)[1]: v for k, v in stored.items()}, where)
    close(read(where, model), edit)


def test_what_diffusers_saves_comes_in(tiny: TinyModel, lora: Edit, tmp_path: Path) -> None:
    """A LoRA written by the library itself, old names and alpha included."""
    model = tiny()
    found = {f"unet.{k.replace('.weight.lora', '.lora')}.weight": v for k, v in lora.delta.stored.items()}  # type: ignore[attr-defined]
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers={k.removeprefix("unet."): v for k, v in found.items()}
    )
    close(read(tmp_path / "pytorch_lora_weights.safetensors", model), lora)
    old = {
        k.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): v.contiguous() for k, v in found.items()
    }
    alphas = {
        k.replace(".lora.down.weight", ".alpha"): torch.tensor(1.5) for k in old if k.endswith(".lora.down.weight")
    }
    save_file(old | alphas, tmp_path / "old.safetensors")
    halved = read(tmp_path / "old.safetensors", model)
    for name, delta in lora.delta.items():
        torch.testing.assert_close(halved.delta[name], delta / 2)


def test_old_names_of_diffusers_and_peft(tiny: TinyModel, lora: Edit, tmp_path: Path) -> None:
    """Attention processors' names of 2023, and peft's own, whose alpha stands in a file beside."""
    model = tiny()
    assert isinstance(lora.delta, Composed)
    names = {k: k.replace(".weight.lora_", ".lora_") + ".weight" for k in lora.delta.stored}
    old, peft = {}, {}
    for key, name in names.items():
        value = lora.delta.stored[key]
        peft[f"base_model.model.{name}"] = value
        name = re.sub(r"\.(to_[qkv])\.lora_A", r".processor.\1_lora.down", name)
        name = re.sub(r"\.(to_[qkv])\.lora_B", r".processor.\1_lora.up", name)
        name = name.replace(".to_out.0.lora_A", ".processor.to_out_lora.down")
        old[name.replace(".to_out.0.lora_B", ".processor.to_out_lora.up")] = value
    save_file(old, tmp_path / "old.safetensors")
    assert any(".processor.to_out_lora.up.weight" in name for name in old)
    close(read(tmp_path / "old.safetensors", model), lora)
    save_file(peft, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "r": 3}))
    twice = read(tmp_path / "adapter_model.safetensors", model)
    for name, delta in lora.delta.items():
        torch.testing.assert_close(twice.delta[name], 2 * delta)


@pytest.mark.parametrize(("about", "factor"), [({"use_rslora": False}, 0.5), ({"use_rslora": True}, 0.5 * 3**0.5)])
def test_a_loras_scale_is_read_from_its_metadata(
    tiny: TinyModel, lora: Edit, about: dict[str, object], factor: float, tmp_path: Path
) -> None:
    """diffusers keeps alpha there; the stock pipeline's prediction says what it means."""
    model, other = tiny(), tiny()
    assert isinstance(lora.delta, Composed)
    layers = {k.replace(".weight.lora_", ".lora_") + ".weight": v for k, v in lora.delta.stored.items()}
    targets = sorted({k.split(".lora_")[0] for k in layers})
    config = {"r": 3, "lora_alpha": 1.5, "target_modules": targets, **about}
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=config)
    found = read(tmp_path / "pytorch_lora_weights.safetensors", model)
    for name, delta in lora.delta.items():
        torch.testing.assert_close(found.delta[name], factor * delta)
    other.pipeline.load_lora_weights(tmp_path)
    with found.on(model):
        torch.testing.assert_close(prediction(model), prediction(other), atol=1e-5, rtol=0)


def test_a_files_own_metadata_counts_more_than_what_lies_beside(tiny: TinyModel, lora: Edit, tmp_path: Path) -> None:
    assert isinstance(lora.delta, Composed)
    layers = {k.replace(".weight.lora_", ".lora_") + ".weight": v for k, v in lora.delta.stored.items()}
    targets = sorted({k.split(".lora_")[0] for k in layers})
    config = {"r": 3, "lora_alpha": 1.5, "target_modules": targets}
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=config)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 9}))
    found = read(tmp_path / "pytorch_lora_weights.safetensors", tiny())
    for name, delta in lora.delta.items():
        torch.testing.assert_close(found.delta[name], 0.5 * delta)


@pytest.mark.parametrize(
    "about", [{"lora_alpha": None}, {"lora_alpha": "much"}, {"lora_alpha": 1, "alpha_pattern": [1]}, {"lora_alpha": {}}]
)
def test_a_lora_whose_alpha_is_no_number(tiny: TinyModel, lora: Edit, about: object, tmp_path: Path) -> None:
    assert isinstance(lora.delta, Composed)
    stored = {
        f"base_model.model.{k.replace('.weight.lora_', '.lora_')}.weight": v for k, v in lora.delta.stored.items()
    }
    save_file(stored, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(ExpungeError, match=r"says no number as base_model\.model\.lora_alpha"):
        read(tmp_path / "adapter_model.safetensors", tiny())


def test_several_networks_of_one_pickle(tiny: TinyModel, plain: Edit, tmp_path: Path) -> None:
    """Concept ablation's delta.bin: the text encoder's part beside the UNet's; what was not edited is left out."""
    model = tiny()
    base = model.parameters()
    table = next(n for n in base if n.endswith("token_embedding.weight"))
    inner = table.removeprefix("text_encoder.")
    moved = base[table].detach().clone()
    moved[5] += 1
    still = base["conv_in.weight"].detach().clone()
    unet = {k: base[k].detach() + d for k, d in plain.delta.items()} | {"conv_in.weight": still}
    torch.save({"unet": unet, "text_encoder": {inner: moved}}, tmp_path / "delta.bin")
    found = read(tmp_path / "delta.bin", model, allow_pickle=True)
    assert set(found.delta) == {*plain.delta, table}
    torch.save({"unet": unet, "modifier_token": {"<new>": torch.ones(4)}}, tmp_path / "delta.bin")
    with pytest.raises(ExpungeError, match="modifier_token"):
        read(tmp_path / "delta.bin", model, allow_pickle=True)


def test_an_edit_is_no_import(tiny: TinyModel, plain: Edit, tmp_path: Path) -> None:
    """Its differences under plain names would be taken for weights."""
    plain.save(tmp_path / "edit.safetensors")
    with pytest.raises(ExpungeError, match="is an edit already"):
        read(tmp_path / "edit.safetensors", tiny())


def test_a_text_encoders_lora_is_what_diffusers_loads(world: Model, tmp_path: Path) -> None:
    """The stock pipeline with our file encodes as the edited model does."""
    rng = torch.Generator().manual_seed(0)
    parameters = world.parameters()
    name = next(n for n in parameters if n.endswith("layers.0.self_attn.q_proj.weight"))
    out, inner = parameters[name].shape
    factors = {
        f"{name}.lora_A": torch.randn(2, inner, generator=rng), f"{name}.lora_B": torch.randn(out, 2, generator=rng)
    }  # fmt: skip
    edit = Edit(Composed(factors), {"base": {"hash": world.hash}})
    format_of("lora").write(edit, world, tmp_path / "out.safetensors", None)
    with edit.on(world):
        want = world.encode(["a red car"]).tensors["text"]
    other = load("smallworld", device="cpu", precision="fp32")
    plain = other.encode(["a red car"]).tensors["text"]
    other.pipeline.load_lora_weights(tmp_path, weight_name="out.safetensors")
    torch.testing.assert_close(other.encode(["a red car"]).tensors["text"], want, atol=1e-5, rtol=1e-5)
    assert (want - plain).abs().max() > 1e-2


def test_a_plain_state_dict(tiny: TinyModel, plain: Edit, tmp_path: Path) -> None:
    """Stock `load_state_dict` makes the edited model of it."""
    model, other = tiny(), tiny()
    format_of("delta").write(plain, model, tmp_path / "out.safetensors", None)
    missing, strange = other.denoiser.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=False)
    assert missing
    assert not strange
    with plain.on(model):
        torch.testing.assert_close(prediction(other), prediction(model))


def test_a_pipeline_folder(world: Model, tmp_path: Path) -> None:
    """Stock diffusers opens it, and it draws what the edited model draws."""
    edit = ESD(steps=2, grid=2, latents=2, lr=1e-3).fit(world, CAR)
    format_of("diffusers").write(edit, world, tmp_path / "pipe", None)
    other = load(str(tmp_path / "pipe"), device="cpu", precision="fp32")
    with edit.on(world):
        torch.testing.assert_close(prediction(other), prediction(world), atol=1e-5, rtol=0)
    with pytest.raises(ExpungeError, match="there already"):
        format_of("diffusers").write(edit, world, tmp_path / "pipe", None)


def test_a_single_file(world: Model, tmp_path: Path) -> None:
    """diffusers' own converter reads the original names back to every weight."""
    edit = ESD(steps=2, grid=2, latents=2, lr=1e-3).fit(world, CAR)
    format_of("compvis").write(edit, world, tmp_path / "one.safetensors", None)
    other = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "one.safetensors"),
        config=str(smallworld.path()),
        torch_dtype=torch.float32,
        local_files_only=True,
    )
    for part in ("vae", "text_encoder"):
        ours, theirs = (getattr(p, part).state_dict() for p in (world.pipeline, other))
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
        assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    with edit.on(world):
        ours, theirs = world.denoiser.state_dict(), other.unet.state_dict()
        assert all(torch.equal(v, theirs[k]) for k, v in ours.items())


def test_a_single_file_of_xl(tmp_path: Path) -> None:
    """diffusers reads both of its text encoders, the autoencoder and the UNet back."""
    pipeline = build("sdxl")
    model = StableDiffusionXL(pipeline, torch.device("cpu"), torch.float32, name="xl")
    pipeline.save_pretrained(tmp_path / "pipe")
    edit = ESD(steps=2, grid=2, latents=2, lr=1e-3).fit(model, CAR)
    format_of("compvis").write(edit, model, tmp_path / "pipe" / "one.safetensors", None)
    for file in (tmp_path / "pipe").glob("*/*.safetensors"):
        file.unlink()
    other = load(str(tmp_path / "pipe" / "one.safetensors"), device="cpu", precision="fp32")
    with edit.on(model):
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            ours, theirs = (getattr(p, part).state_dict() for p in (pipeline, other.pipeline))
            assert all(torch.equal(v, theirs[k]) for k, v in ours.items()), part


def test_a_single_file_of_v2(tmp_path: Path) -> None:
    """Its text encoder leaves as OpenCLIP's."""
    pipeline = build("sd2")
    model = StableDiffusion(pipeline, torch.device("cpu"), torch.float32, name="v2")
    pipeline.save_pretrained(tmp_path / "pipe")
    format_of("compvis").write(
        Edit({}, {"base": {"hash": model.hash}}), model, tmp_path / "pipe" / "one.safetensors", None
    )
    for file in (tmp_path / "pipe").glob("*/*.safetensors"):
        file.unlink()
    other = load(str(tmp_path / "pipe" / "one.safetensors"), device="cpu", precision="fp32")
    for part in ("unet", "text_encoder"):
        ours, theirs = (getattr(p, part).state_dict() for p in (pipeline, other.pipeline))
        assert all(torch.equal(v, theirs[k]) for k, v in ours.items()), part


def test_transformers_have_no_original_layout(tmp_path: Path) -> None:
    pipeline = build("sd3")
    model = StableDiffusion3(pipeline, torch.device("cpu"), torch.float32, name="sd3")
    with pytest.raises(ExpungeError, match="no layout of the original code"):
        format_of("compvis").write(Edit({}, {"base": {"hash": model.hash}}), model, tmp_path / "one.safetensors", None)


@pytest.fixture(scope="module")
def single(world: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint beside a pipeline's folders without their weights."""
    folder = tmp_path_factory.mktemp("single")
    shutil.copytree(smallworld.path(), folder / "a", ignore=ONLY)
    nothing = Edit({}, {"base": {"hash": world.hash}})
    format_of("compvis").write(nothing, world, folder / "a" / "one.safetensors", None)
    return folder / "a" / "one.safetensors"


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_is_a_model(world: Model, single: Path, suffix: str) -> None:
    """Wherever a model is asked for; the same weights, so that edits of one fit the other."""
    file = single.with_suffix(suffix)
    if suffix == ".ckpt":
        torch.save({"state_dict": load_file(single)}, file)
    other = load(str(file), device="cpu", precision="fp32")
    assert other.hash == world.hash
    torch.testing.assert_close(prediction(other), prediction(world))


def test_single_files_that_are_none(single: Path, tmp_path: Path) -> None:
    """A part that is missing, another model's, a pickle with code, and no network to look its configuration up."""
    whole = load_file(single)
    lost = next(k for k in whole if "input_blocks.1" in k)
    for name, tensors in (("lacking", {k: v for k, v in whole.items() if k != lost}), ("other", {"a": torch.ones(2)})):
        save_file(tensors, single.with_name(f"{name}.safetensors"))
        with pytest.raises(ExpungeError, match="cannot open"):
            load(str(single.with_name(f"{name}.safetensors")), device="cpu")
    (tmp_path / "bomb.ckpt").write_bytes(pickle.dumps(Bomb(), protocol=4))
    with pytest.raises(ExpungeError, match="no checkpoint of tensors alone"):
        load(str(tmp_path / "bomb.ckpt"), device="cpu")
    save_file(whole, tmp_path / "alone.safetensors")
    with pytest.raises(ExpungeError, match=r"alone.safetensors looks like \S+, whose configuration cannot be had"):
        load(str(tmp_path / "alone.safetensors"), device="cpu")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


def test_pickles(tiny: TinyModel, plain: Edit, tmp_path: Path) -> None:
    """Refused unless allowed; then tensors alone, and code is never run."""
    model = tiny()
    base = model.parameters()
    torch.save({"unet": {k: base[k].detach() + d for k, d in plain.delta.items()}}, tmp_path / "delta.bin")
    with pytest.raises(ExpungeError, match="pickle"):
        read(tmp_path / "delta.bin", model)
    close(read(tmp_path / "delta.bin", model, allow_pickle=True), plain)
    (tmp_path / "bomb.bin").write_bytes(pickle.dumps(Bomb(), protocol=4))
    with pytest.raises(ExpungeError, match="nothing of it was run"):
        read(tmp_path / "bomb.bin", model, allow_pickle=True)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"something.else": torch.ones(2)}, "neither weights nor a LoRA"),
        ({"conv_in.weight": torch.ones(2)}, "is no weight of"),
        ({"unet.conv_in.lora_A.weight": torch.ones(1, 4, 3, 3)}, "no pair of matrices"),
        ({"unet.conv_in.lora_A.weight": torch.ones(1), "unet.conv_in.lora_B.weight": torch.ones(1)}, "no pair of"),
        (
            {f"conv_in.lora_{x}.weight": torch.ones(1, 1) for x in "AB"}
            | {"conv_in.lora_magnitude_vector": torch.ones(1)},
            "is more than a plain LoRA",
        ),
        ({"conv_in.lora_A.weight": torch.ones(()), "conv_in.lora_B.weight": torch.ones(1)}, "no pair of matrices"),
        ({"conv_in.lora_A.weight": torch.ones(0, 4), "conv_in.lora_B.weight": torch.ones(4, 0)}, "no pair of matrices"),
        ({"conv_in.bias": torch.full((16,), float("nan"))}, "holds NaN"),
        ({"unet.no.lora_A.weight": torch.ones(1, 4), "unet.no.lora_B.weight": torch.ones(4, 1)}, "does not fit"),
        ({"lora_unet_nowhere.lora_down.weight": torch.ones(1, 4)}, "is no module of"),
    ],
)
def test_strange_files_are_told(tiny: TinyModel, tensors: dict[str, torch.Tensor], says: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ExpungeError, match=says):
        read(tmp_path / "odd.safetensors", tiny())
