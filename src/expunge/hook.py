"""Guidance on a stock diffusers pipeline: its denoiser gets more rows, and its answers are steered before CFG.

The pipeline asks for (e(x_t, 0), e(x_t, p)) in one call. Before it, rows are added: those of p, with other texts. After
it, the two halves are changed so that the pipeline's own guidance, whatever its scale, gives the guided result.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .errors import ExpungeError
from .families import around
from .model import Condition, Model
from .steering import Rule, Steering

_HOOKS: WeakKeyDictionary[nn.Module, Hook] = WeakKeyDictionary()


@contextmanager
def hooked(pipeline: Any, rule: Rule) -> Iterator[None]:
    """The rule on the pipeline inside the block, besides those that are on it already."""
    model = around(pipeline)
    if not model.halves:
        raise ExpungeError(
            f"{type(pipeline).__name__} guides in two calls, which no hook can join; use expunge.generate instead"
        )
    hook = _HOOKS.get(model.denoiser) or Hook(model)
    if hook.model.pipeline is not pipeline:
        raise ExpungeError("another pipeline with this denoiser is guided already; leave that block first")
    hook.use([*hook.rules, rule])
    _HOOKS[model.denoiser] = hook
    try:
        yield
    finally:
        hook.use(hook.rules[:-1])
        if not hook.rules:
            del _HOOKS[model.denoiser]


class Hook:
    """What is on one denoiser: rules, and the run in progress."""

    def __init__(self, model: Model) -> None:
        self.model, self.rules = model, list[Rule]()
        self.signature = inspect.signature(model.denoiser.forward)
        self.paths = {path: name for name, path in model.texts.items()}
        self.handles: list[Any] = []

    @torch.no_grad()
    def use(self, rules: list[Rule]) -> None:
        """Replaces the rules; without any the denoiser is as it was."""
        if rules:
            self.steering = Steering.of(self.model, rules)
        self.rules = rules
        self.times: Tensor | None = None
        for handle in self.handles:
            handle.remove()
        self.handles = []
        if rules:
            self.handles.append(self.model.denoiser.register_forward_pre_hook(self.before, with_kwargs=True))
            self.handles.append(self.model.denoiser.register_forward_hook(self.after))

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """The call with a row for each that the rules ask, and the negative prompt in its place."""
        call = dict(self.signature.bind(*args, **kwargs).arguments)
        x: Tensor = next(iter(call.values()))
        self.step()
        self.halved, self.asked = self.guided(x), self.run.asks(self.i)
        self.n = len(x) // 2 if self.halved else len(x)
        more = [self.run.condition(a) for a in self.asked]
        more = more if self.halved or not more else [self.steering.empty, *more]
        grow = Grown(len(x), self.n, self.paths, more, self.negative())
        return (), {name: grow(value, name) for name, value in call.items()}

    def step(self) -> None:
        """Another step, or the first of a run: then the pipeline has set its scheduler's times anew."""
        times = self.model.pipeline.scheduler.timesteps
        if times is not self.times:
            self.times, self.i, self.run = times, -1, self.steering.begin()
        self.i += 1

    def guided(self, x: Tensor) -> bool:
        """Whether the call holds e(x_t, 0) as well: the pipeline says so, or both halves are the same latents."""
        said: bool | None = getattr(self.model.pipeline, "do_classifier_free_guidance", None)
        return len(x) % 2 == 0 and torch.equal(*x.chunk(2)) if said is None else said

    def negative(self) -> Condition | None:
        if not any(rule.negative for rule in self.rules):
            return None
        if not self.halved:
            raise ExpungeError("a negative prompt works by guidance, which is off: call with a larger guidance_scale")
        return self.steering.empty

    def after(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG002
        """The pipeline's own rows, steered; the others are gone."""
        e = output[0].float().split(self.n)
        empty, prompt, *own = e if self.halved else (e[1] if self.asked else e[0], e[0], *e[2:])
        change = self.run.steer(self.i, empty, prompt, dict(zip(self.asked, own, strict=True)))
        right, left = change.on(prompt, empty)
        found = (torch.cat([left, right]) if self.halved else right).to(output[0].dtype)
        return (found, *output[1:]) if isinstance(output, tuple) else type(output)(found)


@dataclass(frozen=True)
class Grown:
    """Arguments of a call with further rows: those of the prompt, but for the texts, which are those of `more`."""

    rows: int
    n: int
    paths: Mapping[str, str]
    more: Sequence[Condition]
    negative: Condition | None

    def __call__(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {k: self(v, f"{path}.{k}") for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(v, path) for v in value)
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != self.rows:
            return value
        if path not in self.paths:
            return torch.cat([value, *(value[-self.n :] for _ in self.more)])
        own = value if self.negative is None else torch.cat([self.text(self.negative, path, value), value[self.n :]])
        return torch.cat([own, *(self.text(condition, path, value) for condition in self.more)])

    def text(self, condition: Condition, path: str, like: Tensor) -> Tensor:
        """n rows of a condition. Raises ExpungeError if the pipeline reads texts of another length."""
        found = condition.repeat(self.n).tensors[self.paths[path]].to(like)
        if found.shape[1:] != like.shape[1:]:
            raise ExpungeError(
                f"the pipeline's texts are of length {like.shape[1]}, the guidance's of {found.shape[1]}; call it"
                " without max_sequence_length"
            )
        return found
