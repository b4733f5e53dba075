"""Memory and time at real size: pipelines of published shapes with random weights, nothing downloaded.

    python benchmarks/size.py [--size sd1|sdxl|flux]... [--batch N]... [--steps 3] [--lora-rank R] [--json FILE]
    python benchmarks/size.py --compare [--size sd1] [--pixels 256] [--batch N]... [--steps 3] [--json FILE]

For each size and batch, each in a process of its own: seconds of a gradient step of ESD on cross-attention (renoised
trajectory, so a step is four forward-equivalents and a backward) and the peak memory, plain, with --checkpointing, with
--offload and with both; and UCE's seconds for 1 and 100 concepts. Memory is the peak of what tensors hold: CUDA's own
count; on a CPU, which --offload does not help, counted at each operation, and beside it the process's peak resident
size, in which the CPU's libraries keep copies of their own. The machine is named.

--compare: samples a second of the published ESD loop (race.py's: two copies of the network, batch 1, a fresh rollout of
50 steps for each sample), of `esd-x`, and of the bare passes that a sample of it cannot do without, at the same batch:
two rows of the frozen network, and a row forward and backward. All three in one process, taking turns, and bf16. The
published sample is composed: 24.5 guided steps, which a rollout has on average, and a gradient step, each measured.
`esd-x` is measured from its second gradient step on; its 320 passes of start-up, two fifths of a pass for each of its
800 samples, are added. 512 pixels, or as given: on a CPU a pass at 512 takes seconds.
torch.compile is left out: on a CPU compiling the small world's denoiser alone took longer than an erasure.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
import weakref
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from race import Published
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from expunge import smallworld
from expunge.concept import Concept
from expunge.families import _family, place
from expunge.method import scoped
from expunge.methods.esd import ESD
from expunge.methods.uce import UCE
from expunge.model import Model, quiet
from expunge.training import Trainer

GIB = 2**30


def clip(width: int, layers: int, heads: int, *, projection: bool = False) -> Any:
    """A CLIP text encoder of a published shape."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = words()
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, projection_dim=width, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def words() -> Any:
    """The small world's tokenizer at Stable Diffusion's length."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(smallworld.path() / "tokenizer", model_max_length=77)


def vae(channels: int = 4) -> Any:
    """Stable Diffusion's autoencoder, or with 16 channels that of FLUX."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=channels, sample_size=512,
    )  # fmt: skip


def sd1() -> Any:
    """Stable Diffusion 1.x, 512 px: 860 M weights in the UNet."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return StableDiffusionPipeline(
        unet=unet, vae=vae(), text_encoder=clip(768, 12, 12), tokenizer=words(), scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    """Stable Diffusion XL, 1024 px: 2.57 G weights in the UNet."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        unet=unet, vae=vae(), text_encoder=clip(768, 12, 12), text_encoder_2=clip(1280, 32, 20, projection=True),
        tokenizer=words(), tokenizer_2=words(), scheduler=DDIMScheduler(),
    )  # fmt: skip


def t5() -> Any:
    """The encoder of T5 XXL, version 1.1."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    )


def flux() -> Any:
    """FLUX.1 dev, 1024 px: 11.9 G weights in the transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Tokenizer

    few = T5Tokenizer(vocab=[(word, 0.0) for word in ("<pad>", "</s>", "<unk>", "▁car")], extra_ids=0)
    return FluxPipeline(
        transformer=FluxTransformer2DModel(guidance_embeds=True), vae=vae(channels=16), text_encoder=clip(768, 12, 12),
        text_encoder_2=t5(), tokenizer=words(), tokenizer_2=few,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip


SIZES: dict[str, Callable[[], Any]] = {"sd1": sd1, "sdxl": sdxl, "flux": flux}


def built(size: str, device: str, *, offload: bool = False) -> Model:
    """The pipeline in bf16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with quiet(), torch.device("cpu" if offload else place(device)):
            pipeline = SIZES[size]()
    finally:
        torch.set_default_dtype(before)
    family = _family(type(pipeline).__name__)
    return family(pipeline, place(device), torch.bfloat16, name=size, offload=offload)


class Held(TorchDispatchMode):
    """Bytes of all tensors' storages, those of `model` and those that operations return inside the block."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.device, self.now, self.most, self.seen = model.device, 0, 0, set[int]()
        for part in model.parts().values():
            for tensor in (*part.parameters(), *part.buffers()):
                self.note(tensor)

    def note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.drop, key, size)

    def drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.note, out)
        return out

    def peak(self) -> dict[str, float]:
        """GiB."""
        if self.device.type == "cuda":
            return {"peak_gib": torch.cuda.max_memory_allocated(self.device) / GIB}
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"peak_gib": self.most / GIB, "process_gib": resident / GIB}


def step(
    size: str, device: str, batch: int, steps: int, rank: int | None, offload: bool, checkpointing: bool
) -> dict[str, Any]:
    """Seconds of a gradient step and peak memory."""
    model = built(size, device, offload=offload)
    if checkpointing:
        model.checkpointing()
    marks: list[float] = []

    def note(_: Trainer, loss: float) -> None:
        assert loss == loss  # no NaN; reading it waits for the device
        marks.append(time.monotonic())

    method = ESD(steps=steps + 1, batch=batch, grid=1, latents=1, lr=1e-5, lora_rank=rank)
    with Held(model) as held:
        method.fit(model, [Concept(name="car")], on_step=note)
    return {
        "size": size, "batch": batch, "lora_rank": rank, "offload": offload, "checkpointing": checkpointing,
        "seconds": (marks[-1] - marks[0]) / steps, **held.peak(),
        "weights_gib": model.bytes / GIB, "device": named(model.device),
    }  # fmt: skip


def closed(size: str, device: str, concepts: int) -> dict[str, Any]:
    """UCE's seconds."""
    model = built(size, device)
    asked = [Concept(name=f"{i} car", anchor="boat") for i in range(concepts)]
    with Held(model) as held:
        edit = UCE(keep=("",)).fit(model, asked)
    return {
        "size": size,
        "concepts": concepts,
        "seconds": edit.provenance["cost"]["seconds"],
        **held.peak(),
        "device": named(model.device),
    }


def sized(size: str, device: str, pixels: int) -> Model:
    """The pipeline for pictures of that side."""
    model = built(size, device)
    model.denoiser.register_to_config(sample_size=pixels // 8)  # type: ignore[operator]
    return model


def published(model: Model) -> dict[str, Callable[[], Any]]:
    """A guided step of the published rollout, and its gradient step."""
    loop, t = Published(model, "car", 1e-5, 1.0, 0), torch.tensor(500)
    return {"rolls": lambda: loop.rolled(1), "learns": lambda: loop.learn(loop.model.noise(1, loop.rng), t)}


def bare(model: Model, batch: int) -> Callable[[], Any]:
    """Two rows of the frozen network and one of the student for each sample, and nothing else."""
    own = {name: w.detach().clone().requires_grad_() for name, w in scoped(model, "xattn").items()}
    x = model.noise(batch, torch.Generator().manual_seed(0)).to(model.dtype)
    text, t = model.encode(["car"] * batch).tensors["text"].to(model.dtype), torch.tensor(500, device=model.device)

    def run() -> None:
        with torch.no_grad():
            model.denoiser(torch.cat([x, x]), t, torch.cat([text, text]))
        torch.autograd.grad(functional_call(model.denoiser, own, (x, t, text)).sample.sum(), [*own.values()])

    return run


def compare(size: str, device: str, batch: int, steps: int, pixels: int) -> dict[str, Any]:
    """Seconds of a sample: published, ours, and bare passes, in turn."""
    model = sized(size, device, pixels)
    runs, times = {**published(model), "bare": bare(model, batch)}, defaultdict[str, list[float]](list)
    mark = time.monotonic()

    def note(*_: Any) -> None:
        nonlocal mark
        times["ours"].append(time.monotonic() - mark)
        for name, run in runs.items():
            start = time.monotonic()
            run()
            torch.zeros((), device=model.device).item()  # waits for the device
            times[name].append(time.monotonic() - start)
        mark = time.monotonic()

    ESD(steps=steps + 1, batch=batch, grid=1, latents=1, lr=1e-5).fit(model, [Concept(name="car")], on_step=note)
    median = {name: statistics.median(t[1:]) for name, t in times.items()}
    each = {"published": 24.5 * median["rolls"] + median["learns"], "bare": median["bare"] / batch}
    each["ours"] = median["ours"] / batch + 0.4 * each["bare"] / 5
    return {"size": size, "batch": batch, "pixels": pixels, **each, "times": each["published"] / each["ours"],
            "of bare": each["bare"] * batch / median["ours"], "device": named(model.device)}  # fmt: skip


def copies(size: str, device: str, pixels: int) -> dict[str, Any]:
    """Peak memory of the published loop."""
    model = sized(size, device, pixels)
    with Held(model) as held:
        for run in published(model).values():
            run()
    return {"size": size, "pixels": pixels, "loop": "published", **held.peak(), "device": named(model.device)}


def named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"


def told(found: dict[str, Any]) -> str:
    resident = f", process {found['process_gib']:.1f}" if "process_gib" in found else ""
    return f"peak {found['peak_gib']:5.1f} GiB{resident}  ({found['device']})"


def flags(device: str) -> list[tuple[bool, bool]]:
    """Pairs of --offload and --checkpointing that can differ there."""
    return [(o, c) for o in (False, True) for c in (False, True) if not o or place(device).type != "cpu"]


def alone(job: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """In a process of its own, so that peaks do not mix."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(job, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=SIZES)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--lora-rank", type=int)
    parser.add_argument("--compare", action="store_true", help="with the published loop and bare passes")
    parser.add_argument("--pixels", type=int, default=512, help="compare: side of the pictures")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = compared(options) if options.compare else measured(options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def compared(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a sample, batch by batch, and the published loop's memory."""
    rows = []
    for size in options.size or ["sd1"]:
        rows.append(alone(copies, size, options.device, options.pixels))
        print(f"{size} {options.pixels} px, published: {told(rows[-1])}", flush=True)
        for batch in options.batch or [1, 4, 16]:
            r = alone(compare, size, options.device, batch, options.steps, options.pixels)
            rows.append(r)
            print(
                f"{size} {options.pixels} px batch {batch:2}: a sample takes {r['published']:.2f} s published,"
                f" {r['ours']:.2f} s ours, {r['bare']:.2f} s of bare passes; {r['times']:.1f}x the samples,"
                f" {r['of bare']:.0%} of bare passes' rate  ({r['device']})",
                flush=True,
            )
    return rows


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Gradient steps under each flag, and closed forms."""
    rows = []
    for size in options.size or ["sd1"]:
        for batch in options.batch or [1, 4]:
            for offload, checkpointing in flags(options.device):
                found = alone(
                    step, size, options.device, batch, options.steps, options.lora_rank, offload, checkpointing
                )
                rows.append(found)
                said = " ".join(f for f, on in (("--offload", offload), ("--checkpointing", checkpointing)) if on)
                print(f"{size} batch {batch} {said or 'plain':26} {found['seconds']:7.2f} s a step, {told(found)}")
        for concepts in (1, 100):
            found = alone(closed, size, options.device, concepts)
            rows.append(found)
            print(f"{size} UCE, {concepts} concepts: {found['seconds']:.2f} s, {told(found)}")
    return rows


if __name__ == "__main__":
    main()
