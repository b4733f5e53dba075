"""Generation: prompts to images, as tensors or as files named by what made them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .edit import Edit
from .errors import ExpungeError
from .files import whole, write_json, write_text
from .guided import Guidance
from .journal import Journal, beside
from .lock import locked
from .model import Condition, Model
from .picture import grid
from .signals import obey, stop_signals
from .steering import Run, Steering
from .training import fitted

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are sampled: scheduler steps, guidance scale s (1: the prompt alone), and what else guides."""

    steps: int = 25
    cfg: float = 4.0
    guidance: tuple[Guidance, ...] = ()

    def row(self) -> dict[str, Any]:
        """What JSON can hold; without the guidance where there is none."""
        found: dict[str, Any] = {"steps": self.steps, "cfg": self.cfg}
        rules = [g.row() for g in self.guidance]
        return found | ({"guidance": rules} if rules else {})


@dataclass(frozen=True)
class Request:
    """One image to make: the prompt, the seed of its noise (as torch.Generator().manual_seed(seed)), and its own scale.

    `cfg` is the guidance scale; None: that of the settings.
    """

    prompt: str
    seed: int
    cfg: float | None = None

    def row(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}


@torch.no_grad()
def rollout(
    model: Model,
    prompts: Condition,
    steering: Steering,
    rngs: list[torch.Generator],
    settings: Settings,
    s: float | Tensor | None = None,
) -> Tensor:
    """Clean latents by the pipeline's own scheduler, a generator for each row: the stock loop, bit for bit in fp32.

    `s` is the guidance scale, one for all or one for each row; None: that of the settings.
    """
    s = settings.cfg if s is None else s
    sampler, run, empty = model.sampler(settings.steps, rngs), steering.begin(), steering.empty.repeat(len(prompts))
    x = torch.cat([model.noise(1, rng) for rng in rngs]) * sampler.sigma
    for i, t in enumerate(sampler.timesteps):
        prediction = guided(model, run, i, sampler.scale(x, i), t, prompts, empty, s)
        x = sampler.step(prediction, i, x)
    return x


def guided(
    model: Model, run: Run, i: int, x_t: Tensor, t: Tensor, prompts: Condition, empty: Condition, s: float | Tensor
) -> Tensor:
    """The prediction under classifier-free guidance and the run's rules: one call of the network."""
    asked = run.asks(i)
    rows = [prompts] if not asked and isinstance(s, float | int) and s == 1 else [empty, prompts]
    rows += [run.condition(a).repeat(len(prompts)) for a in asked]
    e = model.predict(torch.cat([x_t] * len(rows)), t, Condition.cat(rows)).chunk(len(rows))
    if len(rows) == 1:
        return run.steer(i, e[0], e[0], {}).guide(e[0], e[0], 1.0) if run.rules else e[0]
    return run.steer(i, e[0], e[1], dict(zip(asked, e[2:], strict=True))).guide(e[1], e[0], s)


def images(
    model: Model, requests: Sequence[Request], settings: Settings, *, batch: int = 0, label: str = "generating"
) -> Iterator[Tensor]:
    """Images (n, 3, H, W) in [-1, 1], `batch` at a time (0: `model.rows`), in the order of the requests.

    Where memory runs out, a batch goes through the networks in pieces.
    """
    batch, steering = batch or model.rows, Steering.of(model, settings.guidance)
    with tqdm(total=len(requests), desc=label, unit="image", disable=not requests) as bar:
        for start in range(0, len(requests), batch):
            part = requests[start : start + batch]
            made = fitted(partial(painted, model, part, steering, settings), model.lighter, bar)
            check_drawn(made, part)
            yield made
            bar.update(len(part))


def painted(model: Model, requests: Sequence[Request], steering: Steering, settings: Settings) -> Tensor:
    """The images of one batch."""
    return model.decode(latents(model, requests, steering, settings))


def latents(model: Model, requests: Sequence[Request], steering: Steering, settings: Settings) -> Tensor:
    """The clean latents (n, c, h, w) of one batch."""
    rngs = [torch.Generator().manual_seed(r.seed) for r in requests]
    prompts = model.encode([r.prompt for r in requests])
    return rollout(model, prompts, steering, rngs, settings, scales(model, requests, settings))


def check_drawn(made: Tensor, requests: Sequence[Request]) -> None:
    """Raises ExpungeError, with its request, for a picture that is NaN somewhere: it would be kept as a black one."""
    bad = made.isnan().flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        asked = requests[bad[0]]
        raise ExpungeError(
            f"the picture of {asked.prompt!r}, seed {asked.seed}, is NaN; lower the guidance scale or an edit's, or use"
            " --precision fp32"
        )


def scales(model: Model, requests: Sequence[Request], settings: Settings) -> float | Tensor:
    """The guidance scales of requests: one for all, or where they differ one for each row, (n, 1, 1, 1)."""
    own = [settings.cfg if r.cfg is None else r.cfg for r in requests]
    return own[0] if len({*own}) == 1 else torch.tensor(own, device=model.device).view(-1, 1, 1, 1)


def check(model: Model, settings: Settings, requests: Sequence[Request] = ()) -> None:
    """Raises ExpungeError if the model's scheduler cannot take so many steps, or a guidance would have no effect."""
    model.sampler(settings.steps, [torch.Generator()])
    late = [g for g in settings.guidance if g.starts >= settings.steps]
    if late:
        raise ExpungeError(
            f"{late[0].kind} first acts at step {late[0].starts} and there are {settings.steps}: nothing would change;"
            " give more steps, or a shorter warmup"
        )
    if 1 in {settings.cfg, *(r.cfg for r in requests)} and any(g.negative for g in settings.guidance):
        raise ExpungeError("a negative prompt works by guidance, which --cfg 1 turns off; give a larger --cfg")


def passes(requests: int, settings: Settings) -> int:
    """Network passes of that many images."""
    asked = [sum(len(g.needs(i)) for g in settings.guidance) for i in range(settings.steps)]
    return requests * sum(n + (2 if n or settings.cfg != 1 else 1) for n in asked)


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an RGB picture."""
    return Image.fromarray(((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


class Sieve(Protocol):
    """Which finished images (n, 3, H, W) are blocked, and all that decides on it."""

    def __call__(self, images: Tensor) -> list[bool]: ...
    def row(self) -> dict[str, Any]: ...


def file_name(
    model: Model, edits: Sequence[tuple[Edit, float]], request: Request, settings: Settings, sieve: Sieve | None = None
) -> str:
    """A readable name that ends in the hash of everything that determines the image, and whether it is blocked."""
    stack = [(edit.hash, scale) for edit, scale in edits]
    about = [model.signature, str(model.dtype), model.mixed, stack, request.row(), settings.row()]
    about += [sieve.row()] if sieve else []
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    words = re.sub(r"[^a-z0-9]+", "-", request.prompt.lower()).strip("-")[:40] or "empty"
    return f"{words}-{request.seed}-{digest}.png"


def generate(
    model: Model,
    requests: Sequence[Request],
    settings: Settings,
    out: str | Path,
    edits: Sequence[tuple[Edit, float]] = (),
    sieve: Sieve | None = None,
) -> list[dict[str, Any]]:
    """Writes a PNG for each request, as `drawn` does; returns (and writes) their index.

    One that the sieve blocks is not written: its "file" is None, and it is "blocked". Raises ExpungeError if another
    run writes there.
    """
    folder = Path(out)
    with locked(folder, folder=True):
        names = drawn(model, requests, settings, folder, edits, sieve=sieve)
        rows = [{**r.row(), "file": n} for n, r in zip(names, requests, strict=True)]
        rows = [row | ({"file": None, "blocked": True} if stop(folder / row["file"]).exists() else {}) for row in rows]
        write_json(folder / "images.json", rows)
    return rows


def part(
    model: Model,
    requests: Sequence[Request],
    settings: Settings,
    out: Path,
    shard: tuple[int, int],
    edits: Sequence[tuple[Edit, float]] = (),
    sieve: Sieve | None = None,
) -> None:
    """One part of `generate`'s pictures, beside others that make theirs."""
    with locked(out, folder=True, shared=True):
        drawn(model, requests, settings, out, edits, shard=shard, sieve=sieve)


def stop(path: Path) -> Path:
    """The empty file that stands for a picture which was blocked."""
    return path.with_suffix(".blocked")


def drawn(
    model: Model,
    requests: Sequence[Request],
    settings: Settings,
    out: Path,
    edits: Sequence[tuple[Edit, float]] = (),
    label: str = "generating",
    shard: tuple[int, int] = (0, 1),
    sieve: Sieve | None = None,
    home: Path | None = None,
) -> list[str]:
    """The names of the requests' PNGs in `out`: each is made whole, unless it is there.

    Requests go in batches that a kill and a resume do not change: a batch that lacks a picture is made again, so that
    the same rounding gives the same bits. `shard` (i, n) makes every n-th batch, from the i-th on. A
    journal in `home` (None: in `out`) tells what was done.
    `edits` go on for the run; files are named after them too, so that those of different edits never meet. Raises
    ExpungeError if the model carries an edit already: its pictures could not be told from the base's. On SIGINT or
    SIGTERM the batch in progress is finished and kept, and Interrupted raised.
    """
    if model.applied:
        raise ExpungeError(f"edit {model.applied[-1]!r} is on the model; take it off, and give it in `edits` instead")
    check(model, settings, requests)
    names = [file_name(model, edits, r, settings, sieve) for r in requests]
    wanted = dict(zip(names, requests, strict=True))
    todo = [name for batch in lacking(wanted, out, model.rows, shard) for name in batch]
    stack = [(edit.hash, scale) for edit, scale in edits]
    about: dict[str, Any] = {"model": model.signature, "edits": stack, "settings": settings.row()}
    about |= {"shard": shard, "pictures": len(todo)}
    journal = Journal(beside(home or out, shard), model.device, about, model.meter)
    made, asked = 0, [wanted[name] for name in todo]
    with ExitStack() as applied, stop_signals() as received:
        for edit, scale in edits:
            applied.enter_context(edit.on(model, scale))
        for part, own in zip(images(model, asked, settings, label=label), batched(todo, model.rows), strict=True):
            blocked = sieve(part) if sieve else [False] * len(part)
            for image, name, hidden in zip(part, own, blocked, strict=True):
                write_text(stop(out / name), "") if hidden else keep(image, out / name)
            journal(pictures=len(own), seeds=[wanted[name].seed for name in own])
            made += len(own)
            obey(received, made, len(todo), "pictures")
    return names


def batches(
    model: Model,
    requests: Sequence[Request],
    settings: Settings,
    out: Path,
    edits: Sequence[tuple[Edit, float]] = (),
    sieve: Sieve | None = None,
) -> list[list[Request]]:
    """The batches of `drawn` that lack a picture in `out`."""
    wanted = {file_name(model, edits, r, settings, sieve): r for r in requests}
    return [[wanted[name] for name in batch] for batch in lacking(wanted, out, model.rows)]


def lacking(names: Iterable[str], out: Path, n: int, shard: tuple[int, int] = (0, 1)) -> list[list[str]]:
    """The batches of n that lack a picture in `out`, among those of the shard."""
    batches = [*batched(dict.fromkeys(names), n)][shard[0] :: shard[1]]
    return [batch for batch in batches if not all(done(out / name) for name in batch)]


def done(path: Path) -> bool:
    """Whether the picture is there, or was blocked."""
    return path.exists() or stop(path).exists()


def batched(names: Iterable[T], n: int) -> Iterator[list[T]]:
    """In lists of n, the last of what is left."""
    rest = [*names]
    for start in range(0, len(rest), n):
        yield rest[start : start + n]


def keep(image: Tensor, path: Path) -> None:
    """Writes a PNG, unless it is there."""
    if not path.exists():
        with whole(path) as temporary:
            to_pil(image).save(temporary, format="PNG")


def before_after(model: Model, edit: Edit, prompts: Sequence[str], settings: Settings, path: Path) -> None:
    """Both models at the same seeds: a row for each prompt, four seeds, base on the left."""
    requests = [Request(p, seed) for p in prompts for seed in range(4)]
    base = [to_pil(i) for part in images(model, requests, settings, label="before") for i in part]
    with edit.on(model):
        after = [to_pil(i) for part in images(model, requests, settings, label="after") for i in part]
    rows = [(p, base[4 * j : 4 * j + 4] + after[4 * j : 4 * j + 4]) for j, p in enumerate(prompts)]
    with whole(path) as temporary:
        grid(rows, titles=[("before", 4), (f"after: {edit.name}", 4)]).save(temporary, format="PNG")
