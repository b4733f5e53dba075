"""Forget-Me-Not (Zhang et al. 2023, arXiv 2303.17591): attention re-steering.

    loss = Σ_j∈c mean A_j²        A = softmax(Q Kᵀ / √d)        (`loss = "l1"`: A_j)

A (heads, places, tokens) are the student's attention maps under the concept's prompt, from the picture's places to the
text's tokens: of cross-attention, or of joint attention that part. j runs over the concept's own tokens, and the mean
over layers, heads and places: no place of the picture shall look at them. x_t is a picture of the concept that the
frozen model drew, noised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ..concept import Concept
from ..errors import ExpungeError
from ..method import Trained
from ..model import Model
from ..objective import Distance, Learner, Objective, Parts
from ..training import Terms
from ..trajectory import Renoised, Roles

Measure = Callable[[Tensor], Tensor]


class ForgetMeNot(Trained):
    """Turn cross-attention away from the concept's tokens."""

    kind: ClassVar[str] = "forget-me-not"

    images: int = Field(8, ge=1, description="pictures of the concept, drawn once")
    grid: int = Field(25, ge=1, le=100, description="DDIM steps of a picture")
    guidance: float = Field(7.5, description="s, guidance scale of the pictures")

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        super().check(model, concepts)
        if getattr(model.denoiser, "is_gradient_checkpointing", False):
            raise ExpungeError("forget-me-not reads attention that --checkpointing throws away; leave it out")

    def objective(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Objective:
        conditions = {"sample": model.encode([c.prompt for c in concepts]), "empty": model.empty()}
        route = Renoised(
            model, Roles(conditions, needs=()), seed, grid=self.grid, guidance=self.guidance, batch=self.batch,
            latents=self.images, cached=True,
        )  # fmt: skip
        own = torch.stack([tokens(model, c.prompt) for c in concepts]).to(model.device)
        kept = super().objective(model, concepts, learner, seed) if self._keeps(concepts) else None
        return Resteer(route, learner.student, own, kept, self.distance)

    def parts(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Parts:  # noqa: ARG002
        return {}

    def erasing(self, concepts: Sequence[Concept]) -> int:
        return 2 * self.grid * max(self.images, len(concepts)) + 3 * self.steps * self.batch


@dataclass
class Resteer:
    """The loss on the attention maps; `own` (concepts, tokens) marks each concept's, `kept` are captions to keep."""

    route: Renoised
    student: Mapping[str, Tensor]
    own: Tensor
    kept: Objective | None
    distance: Distance

    def __call__(self, step: int) -> Terms:
        model, points = self.route.model, self.route.points(step)
        own = self.own[points.which][:, None, None]
        with attention_maps(model, own.shape[-1], lambda maps: self.looks(maps * own)) as looks:
            model.predict(points.x_t, points.t, self.route.roles.rows("sample", points.which), self.student)
        return {"attention": torch.stack(looks).mean(), **(self.kept(step) if self.kept else {})}

    def looks(self, maps: Tensor) -> Tensor:
        """The sum over tokens of the mean of A², or of A."""
        return self.distance(maps, torch.zeros_like(maps)) * maps.shape[-1]

    def state(self) -> dict[str, Tensor]:
        kept = self.kept.state() if self.kept else {}
        return self.route.state() | {f"kept.{k}": v for k, v in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.route.restore({k: v for k, v in state.items() if not k.startswith("kept.")})
        if self.kept:
            self.kept.restore({k.removeprefix("kept."): v for k, v in state.items() if k.startswith("kept.")})


def tokens(model: Model, prompt: str) -> Tensor:
    """Marks of the prompt's own tokens in the condition's "text"."""
    spans, j = model.spans(prompt), torch.arange(model.positions)
    return torch.stack([(span.first <= j) & (j <= span.last) for span in spans]).any(0)


class Watch(TorchFunctionMode):
    """Keeps what `measure` says of the maps of attention that is computed while one of its `layers` runs.

    The maps themselves are made again in the backward pass: of a large picture each is larger than all else.
    """

    def __init__(self, layers: Sequence[nn.Module], joint: str | None, text: int, measure: Measure) -> None:
        super().__init__()
        self.joint, self.text, self.measure, self.inside = joint, text, measure, False
        self.found: list[Tensor] = []
        enter = [layer.register_forward_pre_hook(lambda *_: self._turn(True)) for layer in layers]
        self.hooks = enter + [layer.register_forward_hook(lambda *_: self._turn(False)) for layer in layers]

    def _turn(self, inside: bool) -> None:
        self.inside = inside

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside and function is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            q, k, mask = given["query"].float(), given["key"].float(), given.get("attn_mask")
            self.found.append(checkpoint(lambda *x: self.measure(self._map(*x)), q, k, mask, use_reentrant=False))
        return function(*args, **kwargs)

    def _map(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """From places to tokens, of (n, heads, length, d); in joint attention the shares of the text."""
        text = slice(None, self.text) if self.joint == "first" else slice(k.shape[-2] - self.text, None)
        if self.joint:
            q = q[..., self.text :, :] if self.joint == "first" else q[..., : -self.text, :]
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        shares: Tensor = (logits if mask is None else logits + mask).softmax(-1)
        return shares[..., text]


@contextmanager
def attention_maps(model: Model, text: int, measure: Measure = torch.clone) -> Iterator[list[Tensor]]:
    """Fills with each layer's map (n, heads, places, `text` tokens), measured, as the denoiser runs in the block."""
    where = [m for name, m in model.denoiser.named_modules() if attends(model, name, m)]
    watch = Watch(where, model.layout.joint, text, measure)
    try:
        with watch:
            yield watch.found
    finally:
        for hook in watch.hooks:
            hook.remove()


def attends(model: Model, name: str, module: nn.Module) -> bool:
    """Whether the picture looks at the text in this module."""
    return getattr(module, "add_k_proj", None) is not None if model.layout.joint else name.endswith("attn2")
