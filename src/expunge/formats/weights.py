"""A plain state dict of the edited weights under diffusers' names: the form of the ESD 2025, UCE and RECE files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ..edit import Edit
from ..errors import ExpungeError
from ..files import write_tensors
from ..format import Format, known
from ..model import Model


class Weights(Format):
    """`denoiser.load_state_dict(load_file(path), strict=False)` reads it."""

    kind: ClassVar[str] = "delta"
    about: ClassVar[str] = "the edited weights by diffusers name: denoiser.load_state_dict(…, strict=False)"

    def write(self, edit: Edit, model: Model, path: Path, rank: int | None) -> str:  # noqa: ARG002
        edit.check(model)
        base = model.parameters()
        edited = {known(name): base[name].detach().float().cpu() + delta for name, delta in edit.delta.items()}
        write_tensors(path, edited, {"format": "pt"})
        return ""

    def read(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],  # noqa: ARG002
        model: Model,
    ) -> Mapping[str, Tensor] | None:
        base = model.parameters()
        ours = {known(name): name for name in base}
        plain = {key.removeprefix(f"{model.component}."): value for key, value in tensors.items()}
        named = {ours.get(known(key), key): value for key, value in plain.items()}
        if not any(name in base for name in named):
            return None
        strange = [name for name in named if name not in base or base[name].shape != named[name].shape]
        if strange:
            raise ExpungeError(
                f"{strange[0]} of shape {tuple(named[strange[0]].shape)} is no weight of {model.name!r}; open the model"
                " that the file was made for"
            )
        moved = {n: v for n, v in named.items() if not torch.equal(v.cpu(), base[n].detach().to(v.dtype).cpu())}
        if not moved:
            raise ExpungeError(f"the file holds {model.name!r}'s own weights: nothing in it was edited")
        return {name: value.float().cpu() - base[name].detach().float().cpu() for name, value in moved.items()}
