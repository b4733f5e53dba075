"""The small world: an embedded miniature of Stable Diffusion in which every concept has an exact judge."""

from __future__ import annotations

from pathlib import Path

from ..errors import ExpungeError
from ..files import hash_file, parsed

NAME = "provenance.json"
"""The file that records a hash of each other one."""


def path() -> Path:
    """The folder of the shipped pipeline, which `DiffusionPipeline.from_pretrained` loads; `judge` lies beside it."""
    folder = Path(__file__).parent / "weights"
    if not (folder / "model_index.json").is_file():
        raise ExpungeError("the small world's weights are not installed; build them with `expunge world build`")
    return folder


def gold() -> Path:
    """The folder of the gold standard's denoiser: the same training on drawings that never show the hazard sign."""
    return sound("unet_gold") / "unet_gold"


PIPELINE = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae")


def sound(*parts: str) -> Path:
    """As `path`, once these of its files and folders have been looked at. Raises ExpungeError if one is damaged."""
    check(path(), parts)
    return path()


def check(folder: Path, parts: tuple[str, ...] = ()) -> int:
    """Compares the files of a built world, or of these parts, with their recorded hashes; how many they are.

    Raises ExpungeError for one that is missing or damaged.
    """
    files = {name: told for name, told in recorded(folder).items() if not parts or name.split("/")[0] in parts}
    for name, told in files.items():
        if not (folder / name).is_file() or hash_file(folder / name) != told:
            raise ExpungeError(f"{folder / name} is missing or damaged; install or build the small world again")
    return len(files)


def recorded(folder: Path) -> dict[str, str]:
    """The hash of each file by name. Raises ExpungeError if they cannot be read."""
    try:
        found = parsed((folder / NAME).read_bytes(), str(folder / NAME))
        return {str(name): str(told) for name, told in found["sha256"].items()}
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ExpungeError(
            f"{folder / NAME} cannot be read: {error!r}; install or build the small world again"
        ) from error
