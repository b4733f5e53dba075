"""Model: six families of diffusion pipelines behind one interface.

Above this file there are no cases for eps, v or flow: a prediction is whatever the denoiser outputs, and every
training target is a linear combination of predictions whose coefficients sum to 1.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from .errors import ExpungeError
from .exact import exact
from .files import hash_tensors
from .memo import Memo, Shelf
from .scope import Layout
from .team import ALONE, Team


@dataclass(frozen=True)
class Condition:
    """What predictions are conditioned on: named tensors whose first dimension runs over prompts.

    `texts` are those prompts; None for a row that no text encodes to, such as a neighbour of one.
    """

    tensors: Mapping[str, Tensor]
    texts: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Condition:
        chosen = torch.arange(len(self))[rows].tolist()
        return Condition({k: v[rows] for k, v in self.tensors.items()}, tuple(self.texts[i] for i in chosen))

    def repeat(self, n: int) -> Condition:
        """A single prompt as n equal rows."""
        return self[torch.zeros(n, dtype=torch.long)]

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        tensors = {k: torch.cat([p.tensors[k] for p in parts]) for k in parts[0].tensors}
        return Condition(tensors, tuple(text for p in parts for text in p.texts))


Teacher = Callable[[Tensor, Tensor, Condition], Tensor]
"""Predictions at x_t and t under a condition."""


@dataclass(frozen=True)
class Span:
    """One encoder's part of the condition's "text": the prompt's own tokens are first … last, padding ends before end.

    A prompt without tokens has last = first, or before it.
    """

    first: int
    last: int
    end: int

    @classmethod
    def of(cls, tokenizer: Any, prompt: str, end: int, start: int = 0) -> Span:
        """Of a tokenizer that closes each prompt by one token, and may open it by one, in start … end - 1."""
        ids = tokenizer(prompt, truncation=True, max_length=end - start).input_ids
        first = start + (ids[0] == tokenizer.bos_token_id)
        return cls(first, max(start, start + len(ids) - 2), end)


@dataclass
class Meter:
    """Network passes (one row through the denoiser once; a backward counts two more) and calls."""

    passes: int = 0
    calls: int = 0

    def count(self, rows: int, *, backward: bool) -> None:
        self.passes += rows * (3 if backward else 1)
        self.calls += 1


class Sampler(ABC):
    """One stock sampling run: the pipeline's own scheduler, fresh for each run."""

    timesteps: Tensor
    sigma: float

    @abstractmethod
    def scale(self, x_t: Tensor, i: int) -> Tensor:
        """The network's input at step i, such as Euler's x / sqrt(1 + σ²)."""

    @abstractmethod
    def step(self, prediction: Tensor, i: int, x_t: Tensor) -> Tensor:
        """x at step i + 1."""


@dataclass
class Model(ABC):
    """A diffusers pipeline as functions of tensors. Latents and predictions are float32 of shape (n, c, h, w).

    `applied` names the edits that are on the model at the moment; pictures that training draws once are kept in the
    folder `cache`, if there is one, named by their content. With `offload` text encoders and autoencoder are on the
    device while they work alone. One that is `sharded` will be `divided` among processes, and waits for that in main
    memory. A `borrowed` pipeline is someone else's and stays as it is. `component` is the
    denoiser's name in the pipeline. The rows of a prediction are divided among the `team`, and then into `pieces` that
    follow each other; the `widest` prediction so far had that many rows. A `teacher` predicts in the frozen model's
    stead.
    """

    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    mixed: bool = False
    name: str = "model"
    cache: Path | None = None
    offload: bool = False
    borrowed: bool = False
    sharded: bool = False
    meter: Meter = field(default_factory=Meter)
    applied: list[str] = field(default_factory=list)
    memo: Memo | None = None
    teacher: Teacher | None = None
    team: Team = ALONE
    pieces: int = 1
    widest: int = 1
    divided: bool = False

    layout: ClassVar[Layout]
    pure: ClassVar[int | None] = None
    """The time at which noise is pure, if that is one time alone."""
    component: ClassVar[str] = "unet"
    texts: ClassVar[Mapping[str, str]] = {"text": "encoder_hidden_states"}
    """Which arguments of the denoiser's forward hold a condition's texts; "a.b" is b of the dictionary a."""
    halves: ClassVar[bool] = True
    """Whether the stock pipeline asks for e(x_t, 0) and e(x_t, p) in one call."""

    def __post_init__(self) -> None:
        """Freezes the networks and moves them to the device; with `offload`, the denoiser alone."""
        if self.borrowed:
            return
        for name, part in self.parts().items():
            part.eval().requires_grad_(False)
            waits = self.sharded if name == self.component else self.offload
            part.to("cpu" if waits else self.device)

    def parts(self) -> dict[str, nn.Module]:
        """The pipeline's networks by their names there."""
        return {name: part for name, part in self.pipeline.components.items() if isinstance(part, nn.Module)}

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        """The networks whose names begin so are on the device inside the block; with `offload`, not after it."""
        own = [part for key, part in self.parts().items() if key.startswith(name) and self.offload]
        try:
            for part in own:
                part.to(self.device)
            yield
        finally:
            for part in own:
                part.to("cpu")

    def checkpointing(self) -> None:
        """Keeps the activations between the denoiser's blocks alone; each block runs once more in the backward pass."""
        self.denoiser.enable_gradient_checkpointing(_again)  # type: ignore[operator]

    @property
    def denoiser(self) -> nn.Module:
        """The network whose weights edits change."""
        network: nn.Module = getattr(self.pipeline, self.component)
        return network

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Text embeddings and whatever else the denoiser reads, one row for each prompt."""
        if self.memo is None or self.applied:
            return Condition(self._embedded(prompts), tuple(prompts))
        found = self.memo(self._key(self.encoders, *prompts), lambda: self._embedded(prompts))
        return Condition({name: rows.to(self.device) for name, rows in found.items()}, tuple(prompts))

    def _embedded(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        with self.working("text_encoder"):
            return self.embed(prompts)

    def _key(self, *asked: str) -> str:
        """A hash of what is asked of these networks, and of how they compute."""
        about = [str(self.dtype), self.mixed, self.device.type, *asked]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def empty(self) -> Condition:
        """The pipeline's unconditional: one row."""
        return self.encode([""])

    def captions(self, texts: Sequence[str]) -> Condition:
        """As `encode`, but "" is the pipeline's unconditional, where that is something else."""
        return self.encode(texts)

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The tensors of `encode`."""

    def spans(self, prompt: str) -> list[Span]:
        """Where a prompt's tokens stand in the condition's "text", for each encoder that has a part of it."""
        return [Span.of(self.pipeline.tokenizer, prompt, self.positions)]

    def vocabulary(self) -> tuple[Any, Tensor]:
        """A tokenizer, and the embedding of each of its tokens (rows, d) where its encoder reads them."""
        return self.pipeline.tokenizer, self.pipeline.text_encoder.get_input_embeddings().weight

    @torch.no_grad()
    def neighbours(self, text: str, n: int, but: Sequence[str] = ()) -> list[str]:
        """The vocabulary's `n` whole words nearest to `text` by the cosine of their token embeddings.

        Words of `text` and of the texts `but` are left out.
        """
        tokenizer, table = self.vocabulary()
        own = tokenizer(text, add_special_tokens=False).input_ids
        near = torch.cosine_similarity(table.float(), table[own].float().mean(0, keepdim=True))
        said = set(f"{text} {' '.join(but)}".lower().split())
        found = dict[str, None]()
        for i in near.argsort(descending=True).tolist():
            word = _word(tokenizer.convert_ids_to_tokens(i))
            if word and word not in said:
                found[word] = None
            if len(found) == n:
                break
        return [*found]

    @torch.no_grad()
    def likeness(self, text: str, others: Sequence[str]) -> list[float]:
        """Cosines between the text and each of the others, of the means of their token embeddings."""
        tokenizer, table = self.vocabulary()
        ids = [tokenizer(one, add_special_tokens=False).input_ids for one in (text, *others)]
        means = torch.stack([table[own].float().mean(0) for own in ids])
        found: list[float] = torch.cosine_similarity(means[:1], means[1:]).tolist()
        return found

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Standard normal latents, drawn on the CPU so that seeds mean the same everywhere."""
        config: Any = self.denoiser.config
        shape = (n, config.in_channels, config.sample_size, config.sample_size)
        return torch.randn(shape, generator=rng).to(self.device)

    @abstractmethod
    def sampler(self, steps: int, rngs: list[torch.Generator]) -> Sampler:
        """The pipeline's own scheduler, set to `steps` steps; stochastic ones draw from each row's generator."""

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the denoiser's forward for a batch."""

    @abstractmethod
    def advance(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The deterministic solver step from time t to s < t, row by row; s < 0 means the clean latent."""

    @abstractmethod
    def diffuse(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t given the clean latent: the forward process, row by row."""

    @abstractmethod
    def truth(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser was trained to predict at `diffuse(x_0, noise, t)`: the noise, or the velocity."""

    @torch.no_grad()
    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [-1, 1], float32 of shape (n, 3, H, W)."""
        scale, shift = self._normal()
        with self.working("vae"), self.autocast():
            vae, z = self._vae(), (x_0 / scale + shift).to(self.pipeline.vae.dtype)
            images = torch.cat([vae.decode(part).sample for part in z.chunk(self.pieces)])
        return images.float().clamp(-1, 1)

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Clean latents of images (n, 3, H, W) in [-1, 1]: what `decode` undoes."""
        scale, shift = self._normal()
        with self.working("vae"), self.autocast():
            z: Tensor = self._vae().encode(images.to(self.device, self.pipeline.vae.dtype)).latent_dist.mean
        return (z.float() - shift) * scale

    def _normal(self) -> tuple[float, float]:
        """What the autoencoder's latents are multiplied by, after this is taken from them."""
        config = self.pipeline.vae.config
        return config.scaling_factor, config.get("shift_factor") or 0.0

    def _vae(self) -> Any:
        """The autoencoder, in fp32 where it overflows in fp16 (`force_upcast`, Stable Diffusion XL)."""
        upcast = self.pipeline.vae.config.get("force_upcast") and self.dtype == torch.float16
        return self.pipeline.vae.to(torch.float32) if upcast else self.pipeline.vae

    @property
    def side(self) -> int:
        """Height and width of images in pixels."""
        factor: int = 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)
        return self.noise(1, torch.Generator()).shape[-1] * factor

    def blank(self) -> Tensor:
        """One grey image, to try on it what looks at images."""
        return torch.zeros(1, 3, self.side, self.side, device=self.device)

    @property
    def distilled(self) -> bool:
        """Whether a prediction has its guidance inside, so that rollouts need none."""
        return False

    @property
    def cfg(self) -> float:
        """The guidance scale that pictures are asked for with by default: the pipeline's own."""
        if self.name.startswith("smallworld"):
            return 4.0
        default: float = inspect.signature(type(self.pipeline).__call__).parameters["guidance_scale"].default
        return default

    @property
    def horizon(self) -> int:
        """Number of training timesteps; t runs over 0 … horizon - 1."""
        return 1000

    @property
    def rows(self) -> int:
        """Images that fit side by side in little memory: 32 of 16×16 latents, 4 of 64×64, 1 of 128×128 or more."""
        latent = self.noise(1, torch.Generator())
        return max(1, min(32, 16384 // (latent.shape[-1] * latent.shape[-2])))

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext()

    def predict(
        self, x_t: Tensor, t: Tensor, condition: Condition, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The denoiser's raw prediction at (x_t, t), t of shape () or (n,).

        `weights` replace the denoiser's by name for this call: teacher and student are one network. Gradients
        reach `weights` where they require them. Counted in `meter`, unless it is remembered.
        """
        if self.teacher and not weights:
            return self.teacher(x_t, t, condition)
        if self.memo is None or weights or self.applied or torch.is_grad_enabled():
            return self._predicted(x_t, t, condition, weights)
        asked = hash_tensors({"x_t": x_t, "t": t, **{f"condition.{k}": v for k, v in condition.tensors.items()}})
        key = self._key(self.hash, asked)
        found = self.memo(key, lambda: {"e": self._predicted(x_t, t, condition, None)}, len(x_t))
        return found["e"].to(self.device)

    @contextmanager
    def remembering(self, limit: int = 2**30, disk: int = 0) -> Iterator[Memo]:
        """Inside the block the model's own predictions and embeddings are kept, in so many bytes, and not made twice.

        With `disk` also in so many bytes of the folder `cache`, for other processes and later runs.
        """
        self.memo = Memo(limit, Shelf(self.cache / "predictions", disk) if self.cache and disk else None)
        try:
            yield self.memo
        finally:
            self.memo = None

    @contextmanager
    def together(self, team: Team) -> Iterator[None]:
        """Inside the block these processes share the work of each prediction: all must ask for the same."""
        before, self.team = self.team, team
        try:
            yield
        finally:
            self.team = before

    def lighter(self) -> str:
        """Asks the network for half as many rows at a time from now on, and says so; "" where there is no half."""
        if self.pieces >= self.widest or self.team.size > 1:
            return ""
        self.pieces *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return f"from now on each batch goes through the network in {self.pieces} pieces; what is computed is the same"

    def _predicted(self, x_t: Tensor, t: Tensor, condition: Condition, weights: Mapping[str, Tensor] | None) -> Tensor:
        own = {name: w.to(self.dtype) for name, w in (weights or {}).items()}
        learning = torch.is_grad_enabled() and any(w.requires_grad for w in own.values())
        self.meter.count(len(x_t), backward=learning)
        self.widest, pieces = max(self.widest, len(x_t)), 1 if learning else self.pieces
        if self.team.size == pieces == 1:
            return self._asked(x_t, t, condition, own)
        times = t.expand(len(x_t))

        def ask(rows: Tensor) -> Tensor:
            parts = rows.chunk(pieces)
            return torch.cat([self._asked(x_t[part], times[part], condition[part], own) for part in parts])

        return self.team.spread(len(x_t), ask)

    def _asked(self, x_t: Tensor, t: Tensor, condition: Condition, weights: Mapping[str, Tensor]) -> Tensor:
        """One call of the denoiser with these weights in place of its own."""
        own = dict(weights)
        texts = {name: own.pop(name) for name in [*own] if self.of_encoder(name)}
        condition = self._again(condition, texts) if texts else condition
        args, kwargs = self.denoise(x_t.to(self.dtype), t.to(self.device).expand(len(x_t)), condition)
        with self.autocast(), exact(self.device, self.dtype):
            out = functional_call(self.denoiser, own, args, kwargs)
        return self.restore(out[0], x_t).float()

    def of_encoder(self, name: str) -> bool:
        """Whether that parameter is a text encoder's."""
        return name.startswith(self._encoders)

    @cached_property
    def _encoders(self) -> tuple[str, ...]:
        return tuple(prefix for prefix in self.networks() if prefix)

    @cached_property
    def positions(self) -> int:
        """Length of the condition's "text"."""
        return self.encode([""]).tensors["text"].shape[1]

    def _again(self, condition: Condition, weights: Mapping[str, Tensor]) -> Condition:
        """The condition as the text encoders with `weights` would have it; rows without a text stay."""
        said = [text for text in dict.fromkeys(condition.texts) if text is not None]
        encoded = functional_call(_Encoders(self), dict(weights), (said,))
        found = Condition(encoded, tuple(said))
        rows = [
            found[[said.index(text)]] if text is not None else condition[[i]] for i, text in enumerate(condition.texts)
        ]
        return Condition.cat(rows)

    def restore(self, out: Tensor, x_t: Tensor) -> Tensor:  # noqa: ARG002
        """The denoiser's output in the latents' shape."""
        return out

    @cached_property
    def hash(self) -> str:
        """sha256 of the denoiser's weights rounded to bf16, so that fp32 and bf16 loads of one file agree."""
        return hash_tensors({k: v.to(torch.bfloat16) for k, v in self.denoiser.state_dict().items()})

    @cached_property
    def encoders(self) -> str:
        """The same of the text encoders' weights."""
        parts = {prefix: part for prefix, part in self.networks().items() if prefix}
        return hash_tensors({p + k: v.to(torch.bfloat16) for p, m in parts.items() for k, v in m.state_dict().items()})

    def identity(self, names: Iterable[str]) -> dict[str, str]:
        """What an edit of the weights `names` says of its base: hashes of the denoiser, and of encoders it changes."""
        more = {"encoders": self.encoders} if any(self.of_encoder(name) for name in names) else {}
        return {"name": self.name, "hash": self.hash, **more}

    @cached_property
    def signature(self) -> str:
        """A hash of all that turns noise into images: every network's weights, and the scheduler's settings."""
        parts = [part for part in self.parts().values() if part is not self.denoiser]
        others = [hash_tensors({k: v.to(torch.bfloat16) for k, v in p.state_dict().items()}) for p in parts]
        scheduler = f"{type(self.pipeline.scheduler).__name__} {sorted(self.pipeline.scheduler.config.items())}"
        return hashlib.sha256(" ".join([self.hash, *others, scheduler]).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Memory of the weights of all networks that stay on the device."""
        parts = [self.denoiser] if self.offload else self.parts().values()
        weights = [p for part in parts for p in part.parameters()]
        here = [p.to_local() if isinstance(p, DTensor) else p for p in weights]
        return sum(p.numel() * p.element_size() for p in here)

    @torch.no_grad()
    def seconds_per_pass(self, rows: int) -> float:
        """Time of one network pass in a call of `rows`, measured on the model as it is (warm-up, then one call)."""
        x, condition = self.noise(rows, torch.Generator().manual_seed(0)), self.encode([""] * rows)
        passes, calls = self.meter.passes, self.meter.calls
        times = []
        for _ in range(2):
            start = time.monotonic()
            self.predict(x, torch.tensor(500), condition)[0, 0, 0, 0].item()
            times.append(time.monotonic() - start)
        self.meter.passes, self.meter.calls = passes, calls
        return times[-1] / rows

    def kohya(self, module: str) -> str:
        """A module's name as kohya's scripts write it."""
        return module.replace(".", "_")

    def networks(self) -> dict[str, nn.Module]:
        """Networks by the prefix of their parameters' names: "" is the denoiser; and the text encoders."""
        encoders = {f"{name}.": part for name, part in self.parts().items() if name.startswith("text_encoder")}
        return {"": self.denoiser, **encoders}

    def tokens(self, name: str, text: str) -> list[int]:
        """The text's tokens, as rows of the text encoder's parameter of that name."""
        tokenizer = getattr(self.pipeline, name.split(".")[0].replace("text_encoder", "tokenizer"))
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def parameters(self) -> dict[str, nn.Parameter]:
        """The denoiser's parameters by diffusers name, and the text encoders' after their prefix."""
        return {prefix + n: p for prefix, part in self.networks().items() for n, p in part.named_parameters()}


class _Encoders(nn.Module):
    """A model's text encoders as one module, so that their weights can be replaced for a call."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.embed = model.embed
        for prefix, part in model.networks().items():
            if prefix:
                self.add_module(prefix.removesuffix("."), part)

    def forward(self, prompts: list[str]) -> dict[str, Tensor]:
        return self.embed(prompts)


def _again(block: nn.Module, *args: Any) -> Any:
    """`block(*args)`, run again in the backward pass with the weights that are in it now: `predict` lends them.

    Weights that are divided among processes come together by themselves.
    """
    weights: dict[str, Tensor] = {name: p for name, p in block.named_parameters() if not isinstance(p, DTensor)}
    own = next(block.parameters())

    def around() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return exact(own.device, own.dtype), exact(own.device, own.dtype)

    return checkpoint(lambda *x: functional_call(block, weights, x), *args, use_reentrant=False, context_fn=around)


def _word(token: str | None) -> str:
    """A whole word of a vocabulary, in small letters: "cat</w>" of CLIP's or "▁Cat" of T5's; else the empty string."""
    if token is None or not (token.endswith("</w>") or token.startswith("▁")):
        return ""
    word = token.removesuffix("</w>").removeprefix("▁")
    return word.lower() if word.isalpha() and len(word) > 2 else ""


def guide(
    conditional: Tensor,
    unconditional: Tensor,
    scale: float | Tensor,
    inside: float | Tensor = 0.0,
    outside: float | Tensor = 0.0,
) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): e(0) + s [e(c) − e(0) + δ] + δ′; s may differ, (n, 1, 1, 1)."""
    return unconditional + (scale * (conditional - unconditional + inside) + outside)


def check_finite(weights: Mapping[str, Tensor], where: str, then: str) -> None:
    """Raises ExpungeError, with the name, for a weight that is NaN or infinite somewhere."""
    for name, weight in weights.items():
        if weight.is_floating_point() and not _finite(weight):
            raise ExpungeError(f"{name} in {where} holds NaN or infinite numbers; {then}")


def _finite(tensor: Tensor) -> bool:
    """A finite sum has finite terms, and takes a tenth of the time of looking at each."""
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.float().isfinite().all())


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the loaders' progress bars, advice and error logs for the moment; what they raise still comes."""
    import diffusers
    import transformers

    logs = (transformers.logging, diffusers.utils.logging)
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity(logging.CRITICAL)
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for log, verbosity, bar in before:
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()
