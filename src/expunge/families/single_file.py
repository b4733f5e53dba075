"""A single-file checkpoint in the layout of the original code, as A1111 and ComfyUI keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import ExpungeError
from ..files import home
from ..model import quiet

SUFFIXES = (".safetensors", ".ckpt")


def is_single(model: str) -> bool:
    """Whether that names a checkpoint's file rather than a folder or a hub id."""
    return model.endswith(SUFFIXES) and home(model).is_file()


def configuration(file: Path) -> str:
    """The folder beside the file's weights that says what they are, if there is one; else the hub id of its kind.

    Raises ExpungeError if the file is damaged, or a pickle of more than tensors: no code of it runs.
    """
    if (file.parent / "model_index.json").is_file():
        return str(file.parent)
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    try:
        with quiet():
            found: str = fetch_diffusers_config(load_single_file_checkpoint(str(file)))["pretrained_model_name_or_path"]
    except Exception as error:  # the unpickler raises whatever it meets
        raise ExpungeError(f"{file} is no checkpoint of tensors alone: {first(error)}; download it again") from error
    return found


def open_single(file: Path, config: str, pipeline: str, dtype: torch.dtype, **parts: Any) -> Any:
    """The pipeline of class `pipeline` that `config` describes, with the file's weights."""
    import diffusers

    try:
        with quiet():
            opened = getattr(diffusers, pipeline).from_single_file(str(file), config=config, dtype=dtype, **parts)
        for name, part in opened.components.items():
            missing = [n for n, w in part.named_parameters() if w.is_meta] if isinstance(part, torch.nn.Module) else []
            if missing:
                raise ValueError(f"it has no {name}.{missing[0]}")
        return opened
    except Exception as error:  # as above
        raise ExpungeError(
            f"cannot open {file} as {config}: {first(error)}; if it is another model, {BESIDE}"
        ) from error


BESIDE = (
    "put the model_index.json and the parts' folders of its diffusers release beside it (their JSON and tokenizer files"
    " will do)"
)


def first(error: Exception) -> str:
    """What went wrong, in a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
