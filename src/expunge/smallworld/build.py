"""Trains the whole small world from a seed: judge, tokenizer and CLIP, autoencoder, denoiser, gold standard.

Every stage runs through `expunge.training`, so a killed build resumes where its last snapshot was; a stage whose
files exist is skipped. The result is a Stable Diffusion 1.x pipeline folder beside a `judge` and a whole `clip`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from .. import __version__
from ..errors import ExpungeError
from ..exact import exact
from ..families import default_precision
from ..files import parsed, write_json, write_tensors, write_text
from ..model import quiet
from ..rng import derive, torch_rng
from ..training import Snapshots, Trainer, Training, fingerprint, train
from .data import Drawings, drawings
from .judge import Judge
from .provenance import record, verify

LENGTH = 32
WIDTH = 128


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything. The defaults are those of the shipped weights; `scale` shrinks them for tests.

    `signs` of a polishing batch are drawings with a named sign, which few of all drawings have.
    """

    LENGTHS: ClassVar[tuple[str, ...]] = ("judge", "clip", "vae", "unet", "polish", "vision")

    seed: int = 0
    pictures: int = 30_000
    judge: Training = Training(steps=2000, lr=2e-3, optimiser="adamw", weight_decay=1e-2, schedule="cosine", warmup=50)
    clip: Training = Training(
        steps=900, lr=1e-3, optimiser="adamw", weight_decay=0.05, schedule="cosine", warmup=100, clip=1.0
    )
    vision: Training = Training(
        steps=4000, lr=1e-3, optimiser="adamw", weight_decay=0.05, schedule="cosine", warmup=100, clip=1.0
    )
    vae: Training = Training(
        steps=2200, lr=2e-3, optimiser="adamw", schedule="cosine", warmup=100, clip=1.0, ema=0.99, ema_ramp=True
    )
    unet: Training = Training(
        steps=8000, lr=1e-3, optimiser="adamw", schedule="cosine", warmup=200, clip=1.0, ema=0.998, ema_ramp=True
    )
    polish: Training = Training(
        steps=1500, lr=4e-4, optimiser="adamw", schedule="cosine", warmup=50, clip=1.0, ema=0.998, ema_ramp=True
    )
    signs: int = 24
    batch: Mapping[str, int] = field(
        default_factory=lambda: {"judge": 64, "clip": 256, "vision": 128, "vae": 32, "unet": 64}
    )

    def row(self) -> dict[str, Any]:
        about = {"seed": self.seed, "pictures": self.pictures, "signs": self.signs, "batch": dict(self.batch)}
        return about | {k: getattr(self, k).model_dump(mode="json") for k in self.LENGTHS}

    def steps(self) -> str:
        """The stages' lengths in words."""
        return ", ".join(f"{k} {getattr(self, k).steps} steps" for k in self.LENGTHS)

    def scale(self, factor: float) -> Plan:
        """The same plan with every length multiplied by `factor` (at least one step and 64 pictures)."""

        def shorter(options: Training) -> Training:
            steps = max(1, round(options.steps * factor))
            return options.model_copy(update={"steps": steps, "warmup": round(options.warmup * factor)})

        lengths: dict[str, Any] = {k: shorter(getattr(self, k)) for k in self.LENGTHS}
        return replace(self, pictures=max(64, round(self.pictures * factor)), **lengths)


@dataclass
class Site:
    """Where a build happens: its folder, device, plan, and the drawings (made on first use)."""

    out: Path
    plan: Plan
    device: torch.device
    _data: Drawings | None = None

    @property
    def data(self) -> Drawings:
        if self._data is None:
            self._data = drawings(self.plan.pictures, self.plan.seed)
        return self._data

    def batch(self, purpose: str, step: int, n: int) -> tuple[Tensor, torch.Generator]:
        """Indices of this step's drawings, and a generator for whatever else the step draws."""
        rng = torch_rng(self.plan.seed, f"batch/{purpose}", step=step)
        return torch.randint(len(self.data), (n,), generator=rng), rng

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """bf16 where models are opened so by default, but for attention that learns on a CPU; else fp32."""
        kind, less = self.device.type, default_precision(self.device.type) != "fp32"
        with torch.autocast(kind, torch.bfloat16, enabled=less), exact(self.device, torch.float32):
            yield

    def fit(self, name: str, module: nn.Module, options: Training, loss: Callable[[int], Mapping[str, Tensor]]) -> None:
        """Trains `module` in place by the common loop and leaves the result in it."""
        module.to(self.device).train()
        trainer = Trainer({k: p for k, p in module.named_parameters() if p.requires_grad}, options)
        about = {"stage": name, "plan": repr(self.plan), "version": __version__}
        snapshots = Snapshots(self.out / f".{name}.snapshot.safetensors", fingerprint(about), share=0.02)
        snapshots.load(trainer)
        result = train(trainer, lambda step: [loss(step)], snapshots=snapshots, label=f"{name:>9}")
        module.load_state_dict(result, strict=False)
        module.eval().requires_grad_(False)

    def finish(self, name: str, save: Callable[[Path], Any]) -> None:
        """Saves a stage into a folder that appears whole, and drops its snapshot."""
        part = self.out / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save(part)
        shutil.rmtree(self.out / name, ignore_errors=True)
        part.replace(self.out / name)
        (self.out / f".{name}.snapshot.safetensors").unlink(missing_ok=True)


def seeded(make: Callable[[], Any], seed: int, purpose: str) -> Any:
    """Initial weights as a function of the seed, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, f"init/{purpose}"))
        return make()


def half(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.half() for k, v in module.state_dict().items()}


def blur(images: Tensor, rng: torch.Generator) -> Tensor:
    """The judge's augmentation: half the pictures slightly blurred, all with a little noise, as a decoder gives."""
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    shape = (len(images), 1, 1, 1)
    amount = (torch.rand(shape, generator=rng) * 1.2 - 0.6).clamp(min=0).to(images.device)
    noise = torch.randn(images.shape, generator=rng).to(images.device)
    level = (torch.rand(shape, generator=rng) * 0.1).to(images.device)
    return images + amount * (soft - images) + level * noise


def build_judge(site: Site) -> None:
    judge = seeded(Judge, site.plan.seed, "judge")

    def loss(step: int) -> dict[str, Tensor]:
        index, rng = site.batch("judge", step, site.plan.batch["judge"])
        images = blur(site.data.pixels(index).to(site.device), rng)
        labels = site.data.labels[index].to(site.device)
        with site.autocast():
            logits = judge(images)
        return {k: F.cross_entropy(v.float(), labels[:, i]) for i, (k, v) in enumerate(logits.items())}

    site.fit("judge", judge, site.plan.judge, loss)
    site.finish("judge", lambda path: write_tensors(path / "model.safetensors", half(judge), {"format": "pt"}))


def build_tokenizer(site: Site) -> None:
    """A byte-pair encoding of the world's own captions, in CLIP's file format; every word of theirs is one token."""
    site.finish("tokenizer", lambda path: _tokenizer(site.data.vocabulary, path))


def learn_merges(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016): the commonest pair first, ties in alphabetical order."""
    counts = Counter(word for text in texts for word in text.lower().split())
    pieces = {word: [*word[:-1], f"{word[-1]}</w>"] for word in counts}
    merges: list[tuple[str, str]] = []
    while any(len(p) > 1 for p in pieces.values()):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            pairs.update(dict.fromkeys(pairwise(parts), counts[word]))
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        pieces = {word: _merged(parts, *merges[-1]) for word, parts in pieces.items()}
    return merges


def _merged(parts: list[str], first: str, second: str) -> list[str]:
    merged: list[str] = []
    for part in parts:
        joins = part == second and merged and merged[-1] == first
        merged = [*merged[:-1], first + second] if joins else [*merged, part]
    return merged


def _tokenizer(texts: Sequence[str], path: Path) -> None:
    from tokenizers import pre_tokenizers

    letters, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), learn_merges(texts)
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH).save_pretrained(path)
    write_json(path / "vocab.json", vocab)
    write_text(path / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def tokens(tokenizer: Any, captions: list[str]) -> Tensor:
    """Token numbers of shape (n, 32)."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def clip_config(vocab: int, start: int, end: int) -> CLIPConfig:
    text = {
        "vocab_size": vocab, "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": LENGTH, "projection_dim": WIDTH,
        "bos_token_id": start, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = {
        "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4,
        "image_size": 64, "patch_size": 8, "projection_dim": WIDTH,
    }  # fmt: skip
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)


def contrast(site: Site, clip: CLIPModel, ids: Mapping[str, Tensor]) -> Callable[[int], dict[str, Tensor]]:
    """The contrastive loss (Radford et al. 2021); equal captions in a batch are all right answers."""

    def loss(step: int) -> dict[str, Tensor]:
        index, rng = site.batch("clip", step, site.plan.batch["clip"])
        text = torch.stack([ids[c] for c in said_captions(site.data, index, rng)]).to(site.device)
        with site.autocast():
            out = clip(input_ids=text, pixel_values=site.data.pixels(index).to(site.device))
        logits = out.logits_per_image.float()
        same = (text[:, None] == text[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        return {"image": F.cross_entropy(logits, target) / 2, "text": F.cross_entropy(logits.T, target) / 2}

    return loss


def numbered(site: Site, tokenizer: Any) -> dict[str, Tensor]:
    """The token numbers of every caption."""
    words = site.data.vocabulary
    return dict(zip(words, tokens(tokenizer, words), strict=True))


def build_text_encoder(site: Site) -> None:
    """A CLIPModel trained jointly; its text tower becomes the pipeline's frozen text encoder."""
    tokenizer = CLIPTokenizer.from_pretrained(site.out / "tokenizer")
    config = clip_config(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    clip = seeded(lambda: CLIPModel(config), site.plan.seed, "clip")
    site.fit("text_encoder", clip, site.plan.clip, contrast(site, clip, numbered(site, tokenizer)))
    site.finish("clip_joint", lambda path: _save_clip(clip.cpu(), site, path))
    text = CLIPTextModel(config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    site.finish("text_encoder", lambda path: _save_half(text, path))


def build_clip(site: Site) -> None:
    """The image tower learns on beside the locked text tower (Zhai et al. 2022, LiT), so that it suits the encoder."""
    ids = numbered(site, CLIPTokenizer.from_pretrained(site.out / "tokenizer"))
    clip = CLIPModel.from_pretrained(site.out / "clip_joint", dtype=torch.float32, attn_implementation="eager")
    for part in (clip.text_model, clip.text_projection):
        part.requires_grad_(False)
    site.fit("clip", clip, site.plan.vision, recognition(site, clip.to(site.device), ids))
    site.finish("clip", lambda path: _save_clip(clip.cpu(), site, path))


def recognition(site: Site, clip: CLIPModel, ids: Mapping[str, Tensor]) -> Callable[[int], dict[str, Tensor]]:
    """log p(caption | picture) over every caption of the data, which a locked text tower makes affordable.

    The few captions of a batch seldom differ in the object alone, so telling them apart teaches little about objects.
    """
    said = {caption: i for i, caption in enumerate(ids)}
    right = torch.tensor([[said[c] for c in row] for row in site.data.captions])
    words = caption_features(clip, torch.stack(list(ids.values())).to(site.device))

    def loss(step: int) -> dict[str, Tensor]:
        index, _ = site.batch("vision", step, site.plan.batch["vision"])
        with site.autocast():
            images = clip.get_image_features(site.data.pixels(index).to(site.device)).pooler_output
        logits = clip.logit_scale.exp() * F.normalize(images.float(), dim=-1) @ words.T
        return {"nll": -logits.log_softmax(1).gather(1, right[index].to(site.device)).mean()}

    return loss


@torch.no_grad()
def caption_features(clip: CLIPModel, ids: Tensor) -> Tensor:
    """Unit text features of shape (n, WIDTH)."""
    parts = [clip.get_text_features(input_ids=part).pooler_output for part in torch.split(ids, 512)]
    return F.normalize(torch.cat(parts), dim=-1)


def _save_clip(clip: CLIPModel, site: Site, path: Path) -> None:
    _save_half(clip, path)
    shutil.copytree(site.out / "tokenizer", path, dirs_exist_ok=True)


def _save_half(module: Any, path: Path) -> None:
    """fp16 on disk, fp32 by default when loaded, as diffusers' own parts are."""
    module.half().save_pretrained(path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    write_json(path / "config.json", config | {"dtype": "float32"})


def said_captions(data: Drawings, index: Tensor, rng: torch.Generator, drop: float = 0.0) -> list[str]:
    """One of each picture's captions, replaced by the empty one with probability `drop`."""
    which = torch.randint(4, (len(index),), generator=rng).tolist()
    empty = (torch.rand(len(index), generator=rng) < drop).tolist()
    return ["" if e else data.captions[i][w] for i, w, e in zip(index.tolist(), which, empty, strict=True)]


def build_vae(site: Site) -> None:
    """L1 + gradient differences + a light KL term; the scaling factor makes latents of unit variance."""
    vae = seeded(
        lambda: AutoencoderKL(
            block_out_channels=(32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=64,
        ),
        site.plan.seed,
        "vae",
    )

    def loss(step: int) -> dict[str, Tensor]:
        index, rng = site.batch("vae", step, site.plan.batch["vae"])
        images = site.data.pixels(index).to(site.device)
        with site.autocast():
            posterior = vae.encode(images).latent_dist
            z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng).to(site.device)
            again = vae.decode(z).sample.float()
        edges = sum((torch.diff(again, dim=d) - torch.diff(images, dim=d)).abs().mean() for d in (2, 3))
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return {"l1": (again - images).abs().mean(), "edges": 0.5 * torch.as_tensor(edges), "kl": 1e-4 * kl}

    site.fit("vae", vae, site.plan.vae, loss)
    with torch.no_grad():
        z = vae.encode(site.data.pixels(slice(0, 512)).to(site.device)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 5))
    site.finish("vae", lambda path: vae.cpu().half().save_pretrained(path))


@torch.no_grad()
def latents(site: Site, data: Drawings) -> Tensor:
    """Scaled latents of all drawings: fp16 of shape (n, 4, 16, 16)."""
    with quiet():
        vae = AutoencoderKL.from_pretrained(site.out / "vae", dtype=torch.float32).to(site.device)
    parts = []
    for start in range(0, len(data), 64):
        with site.autocast():
            z = vae.encode(data.pixels(slice(start, start + 64)).to(site.device)).latent_dist.mean
        parts.append((z.float() * vae.config.scaling_factor).half().cpu())
    return torch.cat(parts)


@torch.no_grad()
def text_states(site: Site, data: Drawings) -> dict[str, Tensor]:
    """What the frozen text encoder makes of every caption: bf16 of shape (32, width)."""
    encoder = CLIPTextModel.from_pretrained(site.out / "text_encoder", dtype=torch.float32).to(site.device)
    tokenizer = CLIPTokenizer.from_pretrained(site.out / "tokenizer")
    words = ["", *data.vocabulary]
    states: list[Tensor] = []
    for ids in torch.split(tokens(tokenizer, words), 512):
        with site.autocast():
            states += encoder(ids.to(site.device)).last_hidden_state.bfloat16().cpu().unbind()
    return dict(zip(words, states, strict=True))


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def denoising(
    site: Site, unet: UNet2DConditionModel, data: Drawings, purpose: str, signs: int = 0
) -> Callable[[int], dict[str, Tensor]]:
    """Noise prediction; each step's error is weighted by min(SNR, 5)/SNR (Hang et al. 2023, min-SNR-γ).

    A batch's timesteps are spread evenly from a random start (Kingma et al. 2021): the same mean, less variance.
    `signs` more of the batch are drawings with a named sign, always with their captions: since captions say every
    named sign, the distribution given a caption stays as it is.
    """
    said, clean = text_states(site, data), latents(site, data)
    alphas, n = new_scheduler().alphas_cumprod.to(site.device), site.plan.batch["unet"]
    named = torch.tensor([i for i, row in enumerate(data.captions) if " sign" in row[0]])

    def loss(step: int) -> dict[str, Tensor]:
        index, rng = site.batch(purpose, step, n - signs)
        captions = said_captions(data, index, rng, drop=0.1)
        if signs:
            more = named[torch.randint(len(named), (signs,), generator=rng)]
            index, captions = torch.cat([index, more]), captions + said_captions(data, more, rng)
        words = torch.stack([said[c] for c in captions]).to(site.device).float()
        x, noise = clean[index].float().to(site.device), torch.randn((n, 4, 16, 16), generator=rng).to(site.device)
        t = ((torch.rand(1, generator=rng) + torch.arange(n) / n) % 1 * 1000).long().clamp(max=999).to(site.device)
        a = alphas[t].view(-1, 1, 1, 1)
        with site.autocast():
            predicted = unet(a.sqrt() * x + (1 - a).sqrt() * noise, t, words).sample
        weight = (5 * (1 - a) / a).clamp(max=1)
        return {"eps": (weight * (predicted.float() - noise) ** 2).mean()}

    return loss


def build_unet(site: Site, name: str = "unet", data: Drawings | None = None) -> None:
    """The denoiser, on the drawings as they come, then polished on more of the rare ones."""
    data = data or site.data
    if not (site.out / f"{name}_long").is_dir():
        _build_long(site, f"{name}_long", data)
    unet = new_unet()  # not from_pretrained, which would leave the folder's path in the config
    unet.load_state_dict(load_file(site.out / f"{name}_long" / "diffusion_pytorch_model.safetensors"))
    site.fit(name, unet, site.plan.polish, denoising(site, unet, data, "polish", site.plan.signs))
    site.finish(name, lambda path: unet.cpu().half().save_pretrained(path))


def _build_long(site: Site, name: str, data: Drawings) -> None:
    unet = seeded(new_unet, site.plan.seed, "unet")
    site.fit(name, unet, site.plan.unet, denoising(site, unet, data, "unet"))
    site.finish(name, lambda path: unet.cpu().half().save_pretrained(path))


def build_gold(site: Site) -> None:
    """The gold standard: the same training on drawings that never show the hazard sign."""
    without = frozenset({"hazard"})
    build_unet(site, "unet_gold", drawings(site.plan.pictures, site.plan.seed, without=without))


def build_scheduler(site: Site) -> None:
    site.finish("scheduler", lambda path: new_scheduler().save_pretrained(path))


STAGES: dict[str, Callable[[Site], None]] = {
    "judge": build_judge,
    "tokenizer": build_tokenizer,
    "text_encoder": build_text_encoder,
    "vae": build_vae,
    "unet": build_unet,
    "scheduler": build_scheduler,
    "clip": build_clip,
}

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


HALFWAY = {"clip": "clip_joint", "unet": "unet_long", "unet_gold": "unet_gold_long"}
"""What a stage starts from, of no use when it is finished."""

COSTS: dict[str, dict[str, tuple[str, float]]] = {
    "judge": {"judge": ("judge", 0.12)},
    "text_encoder": {"text_encoder": ("clip", 1.5)},
    "vae": {"vae": ("vae", 0.77)},
    "unet": {"unet_long": ("unet", 1.0), "unet": ("polish", 1.0)},
    "clip": {"clip": ("vision", 0.24)},
    "unet_gold": {"unet_gold_long": ("unet", 1.0), "unet_gold": ("polish", 1.0)},
}
"""The folders that a stage makes, each with its length and what one step takes, in steps of the denoiser (on two CPU
cores)."""


def seconds(site: Site, stages: Iterable[str]) -> float:
    """About how long the stages that are not built yet will train, by a few steps of the denoiser on this device."""
    todo = [COSTS.get(name, {}) for name in stages if not (site.out / name).is_dir()]
    left = [cost for stage in todo for folder, cost in stage.items() if not (site.out / folder).is_dir()]
    steps = sum(getattr(site.plan, length).steps * cost for length, cost in left)
    return steps * _step_seconds(site) if steps else 0.0


def _step_seconds(site: Site) -> float:
    """Seconds of one training step of the denoiser, after one of a single row."""
    unet, n = seeded(new_unet, site.plan.seed, "unet").to(site.device), site.plan.batch["unet"]
    x, words = torch.zeros(n, 4, 16, 16, device=site.device), torch.zeros(n, LENGTH, WIDTH, device=site.device)
    for rows in (1, n):
        start = time.perf_counter()
        with site.autocast():
            loss = unet(x[:rows], 500, words[:rows]).sample.square().mean()
        loss.backward()
        loss.item()  # waits for the device
    return time.perf_counter() - start


def build_world(
    out: Path,
    plan: Plan,
    device: torch.device,
    command: str,
    *,
    gold: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Trains what is not there yet, then writes model_index.json and, with `command` in it, provenance.json.

    Raises ExpungeError if `out` cannot be written, or holds a world of another plan or a damaged one.
    """
    _claim(out, plan)
    site, stages = Site(out, plan, device), STAGES | ({"unet_gold": build_gold} if gold else {})
    say(f"about {seconds(site, stages) / 60:.0f} minutes of training on {device}, and up to 3 GiB of memory")
    for name, stage in stages.items():
        if (out / name).is_dir():
            say(f"{name}: already built")
        else:
            stage(site)
        if name in HALFWAY:
            shutil.rmtree(out / HALFWAY[name], ignore_errors=True)
    write_json(out / "model_index.json", INDEX)
    record(out, command, plan.row())
    (out / PLAN).unlink()


PLAN = ".plan.json"


def _claim(out: Path, plan: Plan) -> None:
    """Notes the plan in an empty or unfinished folder; refuses the folder of another one."""
    if (out / PLAN).exists():
        if parsed((out / PLAN).read_bytes(), str(out / PLAN)) != plan.row():
            raise ExpungeError(f"{out} holds an unfinished world of another plan; repeat its options or remove it")
    elif out.is_dir() and any(out.iterdir()) and not _finished(out, plan):
        raise ExpungeError(f"{out} is not empty and holds no world of this plan; choose another --out")
    write_json(out / PLAN, plan.row())


def _finished(out: Path, plan: Plan) -> bool:
    """A whole world of this plan, to which a gold standard may be added. Raises ExpungeError if it is damaged."""
    try:
        recorded = parsed((out / "provenance.json").read_bytes(), "provenance.json")
    except (OSError, ExpungeError):
        return False
    if not isinstance(recorded, dict) or recorded.get("plan") != plan.row():
        return False
    sound, found = verify(out)
    if not sound:
        raise ExpungeError(f"{out} holds a damaged world: {found}")
    return True
