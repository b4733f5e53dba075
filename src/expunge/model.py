"""Model: six families of diffusion pipelines behind one interface.

Above this file there are no cases for eps, v or flow: a prediction is whatever the denoiser outputs, and every
training target is a linear combination of predictions whose coefficients sum to 1.
"""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .files import hash_tensors
from .scope import Layout


@dataclass(frozen=True)
class Condition:
    """What predictions are conditioned on: named tensors whose first dimension runs over prompts."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Condition:
        return Condition({k: v[rows] for k, v in self.tensors.items()})

    def repeat(self, n: int) -> Condition:
        """A single prompt as n equal rows."""
        return self[torch.zeros(n, dtype=torch.long)]

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        return Condition({k: torch.cat([p.tensors[k] for p in parts]) for k in parts[0].tensors})


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

    `applied` names the edits that are on the model at the moment.
    """

    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    mixed: bool = False
    name: str = "model"
    meter: Meter = field(default_factory=Meter)
    applied: list[str] = field(default_factory=list)

    layout: ClassVar[Layout]

    @abstractmethod
    def __post_init__(self) -> None:
        """Moves the pipeline to the device and freezes it."""

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The network whose weights edits change."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Condition:
        """Text embeddings and whatever else the denoiser reads, one row for each prompt."""

    @abstractmethod
    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Standard normal latents, drawn on the CPU so that seeds mean the same everywhere."""

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
    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [-1, 1], float32 of shape (n, 3, H, W)."""

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
        reach `weights` where they require them. Counted in `meter`.
        """
        learning = torch.is_grad_enabled() and any(w.requires_grad for w in (weights or {}).values())
        self.meter.count(len(x_t), backward=learning)
        args, kwargs = self.denoise(x_t.to(self.dtype), t.to(self.device).expand(len(x_t)), condition)
        with self.autocast():
            out = functional_call(self.denoiser, self._cast(weights or {}), args, kwargs)
        prediction: Tensor = out[0]
        return prediction.float()

    def _cast(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: w.to(self.dtype) for name, w in weights.items()}

    @cached_property
    def hash(self) -> str:
        """sha256 of the denoiser's weights rounded to bf16, so that fp32 and bf16 loads of one file agree."""
        return hash_tensors({k: v.to(torch.bfloat16) for k, v in self.denoiser.state_dict().items()})

    @cached_property
    def signature(self) -> str:
        """A hash of all that turns noise into images: every network's weights, and the scheduler's settings."""
        parts = {
            k: v for k, v in self.pipeline.components.items() if isinstance(v, nn.Module) and v is not self.denoiser
        }
        others = [hash_tensors({k: v.to(torch.bfloat16) for k, v in p.state_dict().items()}) for p in parts.values()]
        scheduler = f"{type(self.pipeline.scheduler).__name__} {sorted(self.pipeline.scheduler.config.items())}"
        return hashlib.sha256(" ".join([self.hash, *others, scheduler]).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Memory of all networks' weights."""
        parts = [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]
        return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())

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

    def networks(self) -> dict[str, nn.Module]:
        """Networks by the prefix of their parameters' names: "" is the denoiser."""
        return {"": self.denoiser}

    def parameters(self) -> dict[str, nn.Parameter]:
        """The denoiser's parameters by diffusers name."""
        return dict(self.denoiser.named_parameters())


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): e(0) + s [e(c) − e(0)]."""
    return unconditional + scale * (conditional - unconditional)


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
