"""Attention: where the words of a prompt live in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, Device, ModelName, Offload, Precision, Seed, app, opened, show, table


@app.command()
def attention(
    prompt: Annotated[str, typer.Argument(help="what to draw")],
    word: Annotated[list[str], typer.Option(help="a word of the prompt, or several in a row; may be repeated")],
    model: ModelName = "smallworld",
    edit: Annotated[list[str] | None, typer.Option(help="FILE[:SCALE], a row of the picture each")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="scheduler steps")] = 25,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("maps.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    as_json: AsJson = False,
) -> None:
    """Draw where a picture attends to the words of its prompt, before and after edits."""
    from .. import maps
    from ..edit import scaled
    from ..files import check_writable
    from ..generation import Settings, check

    check_writable(out)
    base = opened(model, device, precision, offload=offload)
    pairs = [scaled(text) for text in edit or []]
    for own, _ in pairs:
        own.check(base)
    settings = Settings(steps=steps, cfg=base.cfg)
    check(base, settings)
    found = maps.compared(base, prompt, word, settings, seed, pairs)
    maps.draw(found, out)
    rows: list[dict[str, Any]] = [
        {"model": m.model, "word": w, **maps.measured(m.cross[w])} for m in found for w in m.cross
    ]
    if as_json:
        show({"file": str(out), "words": rows})
    else:
        cells = [(r["model"], r["word"], f"{100 * r['mean']:.2f}%", f"{100 * r['most']:.2f}%") for r in rows]
        table("attention of the picture's places to a word", ("model", "word", "mean", "most"), cells)
        print(out)
