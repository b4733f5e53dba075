"""LoRA as diffusers and peft save it: `unet.MODULE.lora_A.weight` and `…lora_B.weight`, scale 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ..composed import Composed
from ..edit import Edit
from ..errors import ExpungeError
from ..files import parsed, write_tensors
from ..format import Format, consumed, factors, known, loss, modules, paired
from ..low_rank import A, B
from ..model import Model

OLD = (
    (r"\.processor\.(to_[qkv])_lora\.(down|up)\.weight$", r".\1.lora_\2.weight"),
    (r"\.processor\.to_out_lora\.(down|up)\.weight$", r".to_out.0.lora_\1.weight"),
    (r"\.(?:lora|lora_linear_layer)\.(down|up)\.weight$", r".lora_\1.weight"),
)
"""Names that older versions of diffusers gave to factors, and today's."""
PEFT = "base_model.model."
METADATA = "lora_adapter_metadata"


class Lora(Format):
    """`pipeline.load_lora_weights` reads it."""

    kind: ClassVar[str] = "lora"
    factored: ClassVar[bool] = True
    about: ClassVar[str] = "a LoRA for diffusers and peft: pipeline.load_lora_weights"

    def write(self, edit: Edit, model: Model, path: Path, rank: int | None) -> str:
        found, error = factors(edit, rank)
        names = {m: known(m) if model.of_encoder(m) else f"{model.component}.{m}" for m in modules(found)}
        tensors = {f"{name}.lora_A.weight": found[f"{m}.weight{A}"] for m, name in names.items()}
        tensors |= {f"{name}.lora_B.weight": found[f"{m}.weight{B}"] for m, name in names.items()}
        write_tensors(path, tensors, {"format": "pt"})
        return loss(error, rank)

    def read(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], model: Model
    ) -> Mapping[str, Tensor] | None:
        names = {modern(key): key for key in tensors if not key.startswith("lora_")}  # those are kohya's
        downs = [name for name in names if name.endswith(".lora_A.weight")]
        if not downs:
            return None
        ours = {known(name): name for name in model.parameters()}
        about, found, used = adapter(metadata), dict[str, Tensor](), set[str]()
        for name in downs:
            module = name.removesuffix(".lora_A.weight")
            own = known(module.removeprefix(PEFT).removeprefix(f"{model.component}.") + ".weight")
            parts = [names.get(f"{module}.{part}") for part in ("lora_A.weight", "lora_B.weight", "alpha")]
            down, up, alpha = (tensors[key] if key else None for key in parts)
            assert down is not None
            said = alpha if alpha is not None else scale(about, module, len(down) if down.ndim else 0)
            found |= paired(ours.get(own, own), down, up, said)
            used |= {key for key in parts if key}
        consumed(tensors, used)
        return Composed(found)


def modern(key: str) -> str:
    """Today's name of a factor."""
    for old, new in OLD:
        key = re.sub(old, new, key)
    return key.replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B.")


def adapter(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """What a file says about its LoRA. Raises ExpungeError if that cannot be read."""
    found = parsed(metadata.get(METADATA, "{}"), f"the file's {METADATA}")
    if not isinstance(found, dict):
        raise ExpungeError(f"the file's {METADATA} is no JSON object; save the LoRA again")
    if any(key.endswith("use_dora") and value for key, value in found.items()):
        raise ExpungeError("the file holds a DoRA, which is more than a LoRA; merge it in its own tool first")
    return found


def scale(about: Mapping[str, Any], module: str, rank: int) -> float | None:
    """The module's alpha by what the file says of its part of the pipeline; None if it says nothing.

    Raises ExpungeError if it says something else than a number.
    """
    heads = [key.removesuffix("lora_alpha") for key in about if key.endswith("lora_alpha")]
    head = max((h for h in heads if module.startswith(h)), key=len, default=None)
    if head is None:
        return None
    own = about.get(f"{head}alpha_pattern") or {}
    try:
        alpha = float(next((a for m, a in own.items() if module.endswith(m)), about[f"{head}lora_alpha"]))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ExpungeError(f"the file says no number as {head}lora_alpha of {module}; save the LoRA again") from error
    return alpha * rank**0.5 if about.get(f"{head}use_rslora") else alpha
