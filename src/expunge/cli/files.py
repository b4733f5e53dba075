"""Edits as files: look, convert, merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExpungeError
from .app import AsJson, ModelName, Precision, app, opened, overlapping, show, table

if TYPE_CHECKING:
    from ..edit import Edit


def made(edit: Edit, out: Path, as_json: bool) -> None:
    """Where an edit is, and which it is."""
    show({"edit": str(out), "hash": edit.hash, **edit.provenance}) if as_json else print(f"{out}  ({edit.hash[:12]})")


@app.command()
def info(file: Annotated[Path, typer.Argument(help="an edit")], as_json: AsJson = False) -> None:
    """Show what an edit is and where it comes from."""
    from ..edit import Edit

    edit = Edit.load(file)
    about = {
        "file": str(file),
        "hash": edit.hash,
        "tensors": len(edit.delta),
        "weights": sum(d.numel() for d in edit.delta.values()),
        "norm": float(sum(d.square().sum() for d in edit.delta.values()) ** 0.5),
        **edit.provenance,
    }
    if as_json:
        show(about)
    else:
        told = about | ({"loop": summary(edit)} if "loop" in about else {})
        table("edit", ("field", "value"), [(k, json.dumps(v, ensure_ascii=False)) for k, v in told.items()])


def summary(edit: Edit) -> str:
    """A closed loop in a few words."""
    from ..report.closed import verdict

    held, pushed = (len({*edit.provenance["loop"].get(key, ())}) for key in ("held", "pushed"))
    return f"{verdict(edit)} Captions held: {held}, pushed away: {pushed}; --json lists them, and every look."


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="an edit", metavar="EDIT")],
    form: Annotated[str, typer.Option("--format", help="delta, diffusers, lora, kohya or compvis")],
    out: Annotated[Path, typer.Option(help="file, or folder for diffusers")],
    model: ModelName = "smallworld",
    rank: Annotated[int | None, typer.Option(min=1, help="of a LoRA, for an edit that was not trained as one")] = None,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Write an edit in the form that other tools load."""
    from ..edit import Edit
    from ..files import check_writable
    from ..formats import format_of

    chosen, edit = format_of(form), Edit.load(file)
    if rank and not chosen.factored:
        raise ExpungeError(f"--rank is of a LoRA's factors, which {form} does not hold; leave it out")
    if not out.name.endswith(chosen.suffix):
        raise ExpungeError(f"other tools know the file by its name: end --out {out} in {chosen.suffix}")
    check_writable(out)
    base = opened(model, "cpu", precision)
    edit.check(base)
    lost = chosen.write(edit, base, out, rank)
    show({"out": str(out), "format": form, "lost": lost}) if as_json else print(f"{out}  ({lost or chosen.about})")


@app.command("import")
def bring(
    file: Annotated[Path, typer.Argument(help="edited weights or a LoRA, of any tool")],
    model: ModelName = "smallworld",
    out: Annotated[Path, typer.Option(help="file of the edit")] = Path("edit.safetensors"),
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="open .pt and .bin files, for their tensors alone")
    ] = False,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Make an edit of another tool's file."""
    from ..files import check_writable
    from ..formats import read

    check_writable(out)
    edit = read(file, opened(model, "cpu", precision), allow_pickle=allow_pickle)
    edit.save(out)
    made(edit, out, as_json)


@app.command()
def merge(
    files: Annotated[list[str], typer.Argument(help="edits, each FILE[:SCALE]", metavar="EDIT...")],
    out: Annotated[Path, typer.Option(help="file of the merged edit")] = Path("merged.safetensors"),
    as_json: AsJson = False,
) -> None:
    """Make one edit of several of the same model."""
    from ..edit import scaled
    from ..merge import merge as merged

    pairs = [scaled(text) for text in files]
    edit = merged(pairs, out.stem)
    overlapping(pairs)
    edit.save(out)
    made(edit, out, as_json)
