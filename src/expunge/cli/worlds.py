"""The small world: draw and build."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ExpungeError
from .app import AsJson, Device, Seed, say, show, world


@world.command()
def draw(
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("world.png"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a contact sheet of the small world's drawings."""
    from ..files import whole
    from ..smallworld.sheet import drawn

    with whole(out) as temporary:
        drawn(seed).save(temporary, format="PNG")
    show({"file": str(out)}) if as_json else print(out)


@world.command()
def build(
    out: Annotated[Path, typer.Option(help="folder of the world")],
    seed: Seed = 0,
    device: Device = "auto",
    scale: Annotated[float, typer.Option(min=0.0, help="multiplies all lengths; small values for a trial")] = 1.0,
    gold: Annotated[
        bool, typer.Option("--gold", help="also train the gold standard, which never saw the sign")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the small world from a seed; a killed build resumes."""
    from ..families import place
    from ..smallworld.build import Plan, build_world

    if not math.isfinite(scale):
        raise ExpungeError(f"--scale {scale} is not a finite number; 1 is the shipped world's length")
    plan, where = Plan(seed=seed).scale(scale), place(device)
    say(f"training on {plan.pictures} drawings: {plan.steps()}; each stage shows its time left, a killed build resumes")
    told = f"expunge world build --out DIR --seed {seed} --scale {scale:g} --device {where}{' --gold' if gold else ''}"
    build_world(out, plan, where, told, gold=gold, say=say)
    show({"folder": str(out)}) if as_json else print(out)
