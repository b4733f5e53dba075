"""LoRA as kohya's scripts name it, which A1111 and ComfyUI load: `lora_unet_MODULE.lora_down.weight`, `.lora_up.weight`
and `.alpha`, with dots in module names written as underscores; the scale is alpha / rank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ..composed import Composed
from ..edit import Edit
from ..errors import ExpungeError
from ..files import write_tensors
from ..format import Format, consumed, factors, known, loss, modules, paired
from ..low_rank import A, B
from ..model import Model

HEAD = "lora_"


def named(model: Model, module: str) -> str:
    """A module's name there: "lora_unet_…" or "lora_transformer_…" of the denoiser; "lora_te_…" of a text encoder,
    numbered if they are several."""
    if not model.of_encoder(module):
        return f"{HEAD}{model.component}_{model.kohya(module)}"
    encoder, inner = known(module).split(".", 1)
    number = encoder.removeprefix("text_encoder").removeprefix("_") or "1"
    return f"{HEAD}te{number if len(model.networks()) > 2 else ''}_{inner.replace('.', '_')}"


class Kohya(Format):
    """A1111 and ComfyUI read it."""

    kind: ClassVar[str] = "kohya"
    factored: ClassVar[bool] = True
    about: ClassVar[str] = "a LoRA for A1111 and ComfyUI"

    def write(self, edit: Edit, model: Model, path: Path, rank: int | None) -> str:
        found, error = factors(edit, rank)
        tensors: dict[str, Tensor] = {}
        for module in modules(found):
            a, name = found[f"{module}.weight{A}"], named(model, module)
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = a, found[f"{module}.weight{B}"]
            tensors[f"{name}.alpha"] = torch.tensor(float(len(a)))
        write_tensors(path, tensors, {"ss_network_module": "networks.lora"})
        return loss(error, rank)

    def read(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],  # noqa: ARG002
        model: Model,
    ) -> Mapping[str, Tensor] | None:
        downs = [key for key in tensors if key.startswith(HEAD) and key.endswith(".lora_down.weight")]
        if not downs:
            return None
        own = [p.removesuffix(".weight") for p in model.parameters()]
        ours = {f"{HEAD}{model.component}_{n.replace('.', '_')}": n for n in own} | {named(model, n): n for n in own}
        found, used = dict[str, Tensor](), set[str]()
        for key in downs:
            name = key.removesuffix(".lora_down.weight")
            if name not in ours:
                raise ExpungeError(f"{name} is no module of {model.name!r} by kohya's or diffusers' names of its kind")
            up, alpha = f"{name}.lora_up.weight", f"{name}.alpha"
            found |= paired(f"{ours[name]}.weight", tensors[key], tensors.get(up), tensors.get(alpha))
            used |= {key, up, alpha}
        consumed(tensors, used)
        return Composed(found)
