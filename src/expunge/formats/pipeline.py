"""A whole pipeline folder with the edit in its weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError

from ..edit import Edit
from ..errors import ExpungeError
from ..files import unwritable
from ..format import Format
from ..model import Model, quiet


class Folder(Format):
    """`DiffusionPipeline.from_pretrained` reads it."""

    kind: ClassVar[str] = "diffusers"
    about: ClassVar[str] = "a pipeline folder for diffusers: DiffusionPipeline.from_pretrained"
    suffix: ClassVar[str] = ""

    def write(self, edit: Edit, model: Model, path: Path, rank: int | None) -> str:  # noqa: ARG002
        if path.exists():
            raise ExpungeError(f"{path} is there already; choose another --out or remove it")
        part = path.parent / f".{path.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            with edit.on(model), quiet():
                model.pipeline.save_pretrained(part, safe_serialization=True)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            raise unwritable(path, error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return ""
