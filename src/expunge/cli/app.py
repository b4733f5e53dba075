"""What commands share: the app, options, and how things are opened, said and shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ExpungeError

if TYPE_CHECKING:
    from ..edit import Edit
    from ..generation import Settings
    from ..guided import Guidance
    from ..model import Model

app = typer.Typer(
    name="expunge", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
)  # fmt: skip
app.info.help = "Erase concepts from text-to-image diffusion models, and measure what the erasure did."
world = typer.Typer(help="The small world: draw its data, or train it again.", no_args_is_help=True)
app.add_typer(world, name="world")
study = typer.Typer(help="Studies: people rate the pictures of audits, blind.", no_args_is_help=True)
app.add_typer(study, name="study")

MODEL = "smallworld, smallworld-gold, a diffusers folder, a .safetensors or .ckpt checkpoint, or a hub id"
ModelName = Annotated[str, typer.Option("--model", help=MODEL)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Precision = Annotated[str, typer.Option(help="auto, mixed, fp32, bf16 or fp16")]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="only the denoiser stays on the device: saves the other networks' memory there"),
]
Checkpointing = Annotated[
    bool,
    typer.Option("--checkpointing", help="keep few activations: saves most of them, for a third more network passes"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
MAX_SEED = 2**32 - 1
GIVEN: list[str] = []
"""The arguments of the command that runs."""
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="seed of all random numbers")]


def show(value: Any) -> None:
    """Prints JSON to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*columns, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(drawn)


def say(text: str) -> None:
    """A line for people: on stderr, so that stdout stays parseable; of several processes, the first one's."""
    if not helping():
        print(text, file=sys.stderr)


def helping() -> bool:
    """Whether a launcher made this process one of several, and not their first."""
    return processes()[0] > 0


def processes() -> tuple[int, int]:
    """This process's rank, and how many torchrun started."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def opened(model: str, device: str = "auto", precision: str = "auto", **more: bool) -> Model:
    from ..families import load

    return load(model, device=own(device), precision=precision, **more)  # type: ignore[arg-type]


def own(device: str) -> str:
    """Of torchrun's processes each takes a GPU of its own."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or device not in ("auto", "cuda"):
        return device
    from torch.cuda import device_count

    return f"cuda:{int(rank) % device_count()}" if device_count() else device


def stack(model: Model, edits: Sequence[str]) -> list[tuple[Edit, float]]:
    """`FILE[:SCALE]` arguments as pairs that fit the model."""
    from ..edit import scaled

    pairs = [scaled(text) for text in edits]
    for edit, _ in pairs:
        edit.check(model)
    overlapping(pairs)
    return pairs


def overlapping(pairs: Sequence[tuple[Edit, float]]) -> None:
    from ..merge import overlaps

    for line in overlaps(pairs):
        say(line)


def steered(names: Sequence[str], concepts: Sequence[str]) -> tuple[Guidance, ...]:
    """`NAME[,key=value]...` arguments, all away from the same concepts."""
    from ..guidance import guidance

    if concepts and not names:
        raise ExpungeError("--concept is what --guidance steers away from: give one of `expunge guidances`")
    return tuple(guidance(name, concepts) for name in names)


def sampling(model: Model, images: int, settings: Settings, about: str) -> str:
    """What it costs to sample that many images."""
    from ..generation import passes

    cost = passes(images, settings)
    seconds = cost * model.seconds_per_pass(2 * min(images, model.rows))
    return f"{about} {cost} network passes, {seconds:.0f} s and {model.bytes / 2**20:.0f} MiB besides activations"


def describe(plan: dict[str, Any], recipe: str) -> str:
    most, all_ = ("at most ", " if it takes them all,") if plan["early"] else ("", "")
    return (
        f"erasing {', '.join(plan['concepts'])} by {recipe}, {plan['method']} on {plan['scope']}: {most}{plan['steps']}"
        f" steps of {plan['parameters'] / 1e6:.2f} M weights, about {plan['passes']} network passes,"
        f" {plan['seconds']:.0f} s{all_} and {plan['bytes'] / 2**20:.0f} MiB besides activations"
    )


def drawn(model: Model, edit: Edit, prompts: Sequence[str], picture: Path) -> None:
    """The picture of an edit, and where it is."""
    from ..generation import Settings, before_after

    before_after(model, edit, prompts, Settings(cfg=model.cfg), picture)
    say(f"before and after: {picture}")
