"""How an edit leaves and enters: one file for each format, one line each here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..composed import Composed
from ..edit import Edit
from ..errors import ExpungeError, Pickled, unknown
from ..files import hash_file, parsed, read_tensors
from ..format import Format
from ..model import Model, check_finite
from .compvis import Compvis
from .kohya import Kohya
from .lora import METADATA, PEFT, Lora
from .pipeline import Folder
from .weights import Weights

FORMATS: dict[str, Format] = {f.kind: f for f in (Weights(), Folder(), Lora(), Kohya(), Compvis())}


def format_of(kind: str) -> Format:
    """The format of that name. Raises ExpungeError if there is none."""
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    return FORMATS[kind]


def read(path: Path, model: Model, *, allow_pickle: bool = False) -> Edit:
    """An edit of `model` from whatever tool's file. Raises ExpungeError if no format knows it.

    A pickle is opened only if allowed, and then for its tensors alone: no code of it runs.
    """
    tensors, metadata = _tensors(path, allow_pickle)
    if "expunge" in metadata:
        raise ExpungeError(f"{path} is an edit already; use it as it is")
    for form in FORMATS.values():
        delta = form.read(tensors, metadata, model)
        if delta is not None:
            _fit(delta, model, path)
            about = {
                "base": model.identity(delta),
                "method": "imported",
                "source": {"file": path.name, "format": form.kind, "sha256": hash_file(path)},
                "concepts": [],
            }
            return Edit(delta, about, path.stem)
    seen = ", ".join(list(tensors)[:3])
    raise ExpungeError(
        f"{path} holds neither weights nor a LoRA of {model.name!r} (it has {seen}, …); open its own model"
    )


def _tensors(path: Path, allow_pickle: bool) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    try:
        tensors, metadata = read_tensors(path)
        return tensors, _beside(path) | metadata
    except Pickled as error:
        if not allow_pickle:
            raise ExpungeError(f"{error}, or give --allow-pickle, which opens it for its tensors alone") from error
    try:
        with warnings.catch_warnings(action="ignore"):
            return _flat(torch.load(path, map_location="cpu", weights_only=True)), {}
    except Exception as error:  # the unpickler raises whatever it meets
        reason = " ".join(str(error).split())[:120]
        raise ExpungeError(f"{path} is no pickle of tensors alone: {reason}; nothing of it was run") from error


def _beside(path: Path) -> dict[str, str]:
    """What peft writes about a LoRA into a file of its own, in the form that diffusers writes into the LoRA's."""
    try:
        about = parsed((path.parent / "adapter_config.json").read_bytes(), "adapter_config.json")
        return {METADATA: json.dumps({f"{PEFT}{key}": value for key, value in about.items()})}
    except (OSError, ExpungeError, AttributeError):
        return {}


def _fit(delta: Mapping[str, Tensor], model: Model, path: Path) -> None:
    """Raises ExpungeError unless every difference is finite and has the shape of the weight that it changes."""
    base, whole = model.parameters(), delta if isinstance(delta, Composed) else Composed(delta)
    for name in whole:
        try:
            fits = whole.shape(name) == tuple(base[name].shape)  # before it is composed: factors may claim any size
        except (KeyError, ValueError):
            fits = False
        if not fits:
            raise ExpungeError(f"{name} in {path} does not fit {model.name!r}; open the model that it was made for")
        check_finite({name: whole[name]}, str(path), "train or save it again")


def _flat(found: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a plain one's, or of a network in each part, the denoiser's without a prefix."""
    for key in ("state_dict", "params"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    parts = {"": found, **found} if isinstance(found, dict) else {}
    flat: dict[str, Tensor] = {}
    for part, inner in parts.items():
        head = "" if part in ("", "unet", "transformer") else f"{part}."
        rows = inner.items() if isinstance(inner, dict) else ()
        flat |= {f"{head}{key}": value for key, value in rows if isinstance(value, Tensor)}
    return flat
