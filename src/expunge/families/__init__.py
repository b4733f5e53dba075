"""Families of pipelines: what differs between them, and nothing else. `load` finds the right one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from ..collecting import uncollected
from ..errors import ExpungeError, unknown
from ..files import home, parsed
from ..model import Model, check_finite, quiet
from ..team import here
from .single_file import BESIDE, configuration, is_single, open_single

FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionXLPipeline": "stable_diffusion_xl.StableDiffusionXL",
    "StableDiffusion3Pipeline": "stable_diffusion_3.StableDiffusion3",
    "FluxPipeline": "flux.Flux",
    "PixArtAlphaPipeline": "pixart.PixArt",
    "PixArtSigmaPipeline": "pixart.PixArt",
}
"""Pipeline class name, as in model_index.json, to the adapter in this folder."""

GOLD = "smallworld-gold"
"""The small world as if its hazard sign had never been drawn: what censored retraining gives."""

Precision = Literal["auto", "mixed", "fp32", "bf16", "fp16"]
DTYPES = {"mixed": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_precision(device: str) -> Precision:
    """fp32 weights under bf16 autocast where a CPU computes bf16; bf16 on CUDA; else fp32."""
    if device.startswith("cuda"):
        return "bf16"
    fast = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "mixed" if fast else "fp32"


@uncollected()
def load(
    model: str | Path = "smallworld",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    offload: bool = False,
    checkpointing: bool = False,
    fsdp: bool = False,
) -> Model:
    """Opens a pipeline: "smallworld", its gold standard "smallworld-gold", a local diffusers folder, a single-file
    checkpoint (.safetensors or .ckpt), or a hub id.

    `precision`: fp32, bf16 or fp16 weights; "mixed" is fp32 weights under bf16 autocast; "auto" chooses by device.
    `offload` keeps all but the denoiser in main memory, and `checkpointing` few activations: see `Model`. With `fsdp`
    the denoiser is divided among processes when it is trained: see `sharding`.
    Raises ExpungeError if it cannot be found, is incomplete, holds pickles only, or is of an unknown family.
    """
    model, where = str(model), place(device)
    here(where)  # where a launcher started several processes, each gets a device of its own
    precision = default_precision(where.type) if precision == "auto" else precision
    if precision not in DTYPES:
        raise unknown("precision", precision, ["auto", *DTYPES])
    dtype = DTYPES[precision]
    pipeline = _open(model, torch.float32 if precision == "fp16" else dtype)
    adapter = _family(type(pipeline).__name__)
    try:
        opened = adapter(pipeline, where, dtype, mixed=precision == "mixed", name=model, offload=offload, sharded=fsdp)
        for part, network in opened.parts().items():
            check_finite(network.state_dict(), f"the part {part!r} of {model!r}", "download or save it again")
        _ = opened.hash  # of the weights as they are on disk, before any rounding to fp16
        if precision == "fp16":
            pipeline.to(dtype)
        if checkpointing:
            opened.checkpointing()
    except RuntimeError as error:
        raise ExpungeError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
    return opened


def around(pipeline: Any) -> Model:
    """A user's own diffusers pipeline as a Model, where it is; it stays as it is. Raises ExpungeError if unknown."""
    adapter = _family(type(pipeline).__name__)
    return adapter(pipeline, pipeline._execution_device, pipeline.dtype, borrowed=True)


def place(name: str) -> torch.device:
    """The device of that name, "auto" for the best one. Raises ExpungeError unless a number can be read back."""
    name = default_device() if name == "auto" else name
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ExpungeError(f"cannot use device {name!r}: {reason}; choose auto, cpu, cuda or mps") from error
    return device


def _family(pipeline: str) -> type[Model]:
    _known(pipeline)
    module, name = FAMILIES[pipeline].split(".")
    adapter: type[Model] = getattr(import_module(f".{module}", __name__), name)
    return adapter


def _known(pipeline: str) -> None:
    if pipeline not in FAMILIES:
        raise unknown("pipeline family", pipeline, FAMILIES)


def _open(model: str, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline
    from safetensors import SafetensorError

    file = home(model) if is_single(model) else None
    path = configuration(file) if file else _locate(model)
    try:
        index = _index(path)
    except ExpungeError as error:
        if not file:
            raise
        raise ExpungeError(f"{file} looks like {path}, whose configuration cannot be had; {BESIDE}") from error
    parts: dict[str, Any] = {name: None for name in UNUSED if name in index}
    if file:
        return open_single(file, path, index["_class_name"], dtype, **parts)
    try:
        with quiet():
            parts |= _gold(dtype) if model == GOLD else {}
            pipeline = DiffusionPipeline.from_pretrained(path, dtype=dtype, use_safetensors=True, **parts)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExpungeError(f"cannot open model {model!r}: {reason}; give a diffusers folder or hub id") from error
    _check_whole(pipeline, Path(path))
    return pipeline


def _check_whole(pipeline: Any, folder: Path) -> None:
    """Raises ExpungeError if a network of a local folder got fewer weights than it has: loaders fill in at random."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and (folder / name).is_dir():
            needed, there = sum(p.numel() for p in part.parameters()), stored(folder / name)
            if there < needed:
                raise ExpungeError(
                    f"the part {name!r} of {folder} holds {there} of its {needed} weights; download or save it again"
                )


def stored(folder: Path) -> int:
    """How many numbers the safetensors files of a folder hold, by their headers."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            count += sum(prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())
    return count


def _gold(dtype: torch.dtype) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    from .. import smallworld

    return {"unet": UNet2DConditionModel.from_pretrained(smallworld.gold(), dtype=dtype, use_safetensors=True)}


def _locate(model: str) -> str:
    if model in ("smallworld", GOLD):
        from .. import smallworld

        return str(smallworld.sound(*smallworld.PIPELINE))
    folder = home(model)
    looks_local = model.startswith((".", "/", "~")) or folder.exists() or model.count("/") != 1
    if looks_local and not (folder / "model_index.json").is_file():
        raise ExpungeError(
            f"no model at {model!r}: expected 'smallworld', a folder with model_index.json, a .safetensors or"
            " .ckpt checkpoint, or a hub id 'owner/name'"
        )
    return str(folder) if looks_local else model


def _index(path: str) -> dict[str, Any]:
    """model_index.json, checked for its family and, in a local folder, for its parts."""
    folder = Path(path)
    if not folder.is_dir():
        return _remote_index(path)
    try:
        index: dict[str, Any] = parsed((folder / "model_index.json").read_bytes(), "it")
    except (OSError, ExpungeError) as error:
        raise ExpungeError(f"cannot read {folder / 'model_index.json'}: {error}; save the model again") from error
    if not isinstance(index, dict):
        raise ExpungeError(f"{folder / 'model_index.json'} is not a JSON object; save the model again")
    _known(str(index.get("_class_name")))
    needed = [k for k, v in index.items() if isinstance(v, list) and v and v[0] and k not in UNUSED]
    missing = [k for k in needed if not (folder / k).is_dir()]
    if missing:
        raise ExpungeError(f"the model folder {path} lacks its part {missing[0]!r}; download or save it again")
    wordless = [k for k in needed if "Tokenizer" in str(index[k][1]) and not _words(folder / k)]
    if wordless:
        raise ExpungeError(f"the part {wordless[0]!r} of {path} has no vocabulary; download or save it again")
    pickled = [k for k in needed if _pickled(folder / k)]
    if pickled:
        raise ExpungeError(
            f"the part {pickled[0]!r} of {path} holds pickles only, which can run code when opened; save it again with"
            " safe_serialization=True"
        )
    return index


def _remote_index(model: str) -> dict[str, Any]:
    """The same of a hub id: an unknown family is refused before anything large is downloaded."""
    from diffusers import DiffusionPipeline

    try:
        with quiet():
            index = dict(DiffusionPipeline.load_config(model))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise ExpungeError(f"cannot open model {model!r}: {reason}; give a diffusers folder or hub id") from error
    _known(str(index.get("_class_name")))
    return index


VOCABULARIES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"spiece.model"})


def _words(part: Path) -> bool:
    """Whether a tokenizer's folder holds one of the file sets that make a vocabulary."""
    files = {file.name for file in part.iterdir()}
    return any(names <= files for names in VOCABULARIES)


def _pickled(part: Path) -> bool:
    suffixes = {file.suffix for file in part.iterdir()}
    return bool(suffixes & {".bin", ".ckpt", ".pt", ".pth"}) and ".safetensors" not in suffixes


UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


def safety_checker(model: str) -> Any:
    """The network that a pipeline's pictures are checked by, on the CPU in fp32.

    Raises ExpungeError if the model has none, or one whose weights are pickles or not all there.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    where = _locate(model)
    try:
        with quiet():
            found, info = StableDiffusionSafetyChecker.from_pretrained(
                where, subfolder="safety_checker", output_loading_info=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExpungeError(f"no safety checker in {model!r}: {reason}; give a model that has one") from error
    if info["missing_keys"]:
        raise ExpungeError(f"the safety checker of {model!r} lacks {sorted(info['missing_keys'])[0]!r}; save it again")
    return found.eval().requires_grad_(False)
