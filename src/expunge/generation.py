"""Generation: prompts to images, as tensors or as files named by what made them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .edit import Edit
from .errors import ExpungeError
from .files import whole, write_json
from .model import Condition, Model, guide
from .picture import grid


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are sampled: scheduler steps and guidance scale s (1: the prompt alone)."""

    steps: int = 25
    cfg: float = 4.0


@dataclass(frozen=True)
class Request:
    """One image to make: the prompt, and the seed of its noise (as torch.Generator().manual_seed(seed))."""

    prompt: str
    seed: int


@torch.no_grad()
def rollout(
    model: Model, prompts: Condition, empty: Condition, rngs: list[torch.Generator], settings: Settings
) -> Tensor:
    """Clean latents by the pipeline's own scheduler, a generator for each row: the stock loop, bit for bit in fp32."""
    sampler = model.sampler(settings.steps, rngs)
    both = Condition.cat([empty, prompts]) if settings.cfg != 1 else prompts
    x = torch.cat([model.noise(1, rng) for rng in rngs]) * sampler.sigma
    for i, t in enumerate(sampler.timesteps):
        inputs = sampler.scale(torch.cat([x, x]) if settings.cfg != 1 else x, i)
        prediction = model.predict(inputs, t, both)
        if settings.cfg != 1:
            unconditional, conditional = prediction.chunk(2)
            prediction = guide(conditional, unconditional, settings.cfg)
        x = sampler.step(prediction, i, x)
    return x


def images(
    model: Model, requests: Sequence[Request], settings: Settings, *, batch: int = 0, label: str = "generating"
) -> Iterator[Tensor]:
    """Images (n, 3, H, W) in [-1, 1], `batch` at a time (0: `model.rows`), in the order of the requests."""
    batch = batch or model.rows
    with tqdm(total=len(requests), desc=label, unit="image") as bar:
        for start in range(0, len(requests), batch):
            part = requests[start : start + batch]
            rngs = [torch.Generator().manual_seed(r.seed) for r in part]
            prompts, empty = model.encode([r.prompt for r in part]), model.empty().repeat(len(part))
            yield model.decode(rollout(model, prompts, empty, rngs, settings))
            bar.update(len(part))


def check(model: Model, settings: Settings) -> None:
    """Raises ExpungeError if the model's scheduler cannot take so many steps."""
    model.sampler(settings.steps, [torch.Generator()])


def passes(requests: int, settings: Settings) -> int:
    """Network passes of that many images."""
    return requests * settings.steps * (1 if settings.cfg == 1 else 2)


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an RGB picture."""
    return Image.fromarray(((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


def file_name(model: Model, edits: Sequence[tuple[Edit, float]], request: Request, settings: Settings) -> str:
    """A readable name that ends in the hash of everything that determines the image."""
    stack = [(edit.hash, scale) for edit, scale in edits]
    about = [model.signature, str(model.dtype), model.mixed, stack, asdict(request), asdict(settings)]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    words = re.sub(r"[^a-z0-9]+", "-", request.prompt.lower()).strip("-")[:40] or "empty"
    return f"{words}-{request.seed}-{digest}.png"


def generate(
    model: Model,
    requests: Sequence[Request],
    settings: Settings,
    out: str | Path,
    edits: Sequence[tuple[Edit, float]] = (),
) -> list[dict[str, Any]]:
    """Writes a PNG for each request, each whole, skipping those already there; returns (and writes) their index.

    `edits` go on for the run; files are named after them too, so that those of different edits never meet. Raises
    ExpungeError if the model carries an edit already: its pictures could not be told from the base's.
    """
    out = Path(out)
    if model.applied:
        raise ExpungeError(f"edit {model.applied[-1]!r} is on the model; take it off, and give it in `edits` instead")
    names = [file_name(model, edits, r, settings) for r in requests]
    todo = {n: r for n, r in zip(names, requests, strict=True) if not (out / n).exists()}
    paths = (out / name for name in todo)
    with ExitStack() as applied:
        for edit, scale in edits:
            applied.enter_context(edit.on(model, scale))
        for image in (image for part in images(model, [*todo.values()], settings) for image in part):
            with whole(next(paths)) as temporary:
                to_pil(image).save(temporary, format="PNG")
    rows = [{**asdict(r), "file": n} for n, r in zip(names, requests, strict=True)]
    write_json(out / "images.json", rows)
    return rows


def before_after(model: Model, edit: Edit, prompts: Sequence[str], settings: Settings, path: Path) -> None:
    """Both models at the same seeds: a row for each prompt, four seeds, base on the left."""
    requests = [Request(p, seed) for p in prompts for seed in range(4)]
    base = [to_pil(i) for part in images(model, requests, settings, label="before") for i in part]
    with edit.on(model):
        after = [to_pil(i) for part in images(model, requests, settings, label="after") for i in part]
    rows = [(p, base[4 * j : 4 * j + 4] + after[4 * j : 4 * j + 4]) for j, p in enumerate(prompts)]
    with whole(path) as temporary:
        grid(rows, titles=[("before", 4), (f"after: {edit.name}", 4)]).save(temporary, format="PNG")
