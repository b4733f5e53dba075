"""The page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..collecting import uncollected
from ..errors import ExpungeError
from .app import MODEL, Device, Precision, app, say


@app.command()
def serve(
    folder: Annotated[Path, typer.Option(help="where runs, audits and studies are kept")] = Path("expunge-page"),
    host: Annotated[str, typer.Option(help="address; any but this machine's own needs --password-file")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 7860,
    password_file: Annotated[Path | None, typer.Option(help="a file whose first line visitors must know")] = None,
    model: Annotated[list[str] | None, typer.Option(help=f"{MODEL}; may be repeated")] = None,
    edit: Annotated[list[Path] | None, typer.Option(help="an edit to begin with; may be repeated")] = None,
    audit: Annotated[list[Path] | None, typer.Option(help="an audit's folder; may be repeated")] = None,
    study: Annotated[list[Path] | None, typer.Option(help="a study's folder; may be repeated")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Serve the page: erase, look, judge and keep in a browser, and let people rate."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ExpungeError(f"the page needs more packages ({error}): pip install 'expunge[ui]'") from error
    with uncollected():
        from ..edit import Edit
        from ..files import check_writable
        from ..report.compare import read
        from ..study.design import load
        from ..web.guard import checked_host
        from ..web.login import read_password
        from ..web.serve import Choices, serve

    for file in edit or []:
        Edit.load(file)
    for place in audit or []:
        read(place)
    for place in study or []:
        load(place)
    password = read_password(password_file) if password_file else None
    checked_host(host, port, password)
    check_writable(folder / "runs")
    chosen = Choices(
        folder=folder, host=host, port=port, password=password, device=device, precision=precision,
        models=[whole(name) for name in model or ["smallworld"]],
        edits=named(edit or [], "edits"), audits=named(audit or [], "audits"), studies=named(study or [], "studies"),
    )  # fmt: skip
    say(f"starting: opening {chosen.models[0]}")
    serve(chosen, lambda address: print(f"{address}  (Ctrl-C ends it; runs can go on later)", flush=True))


def whole(model: str) -> str:
    """A folder's or file's whole path: runs have folders of their own."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def named(paths: Sequence[Path], what: str) -> dict[str, Path]:
    """By file name. Raises ExpungeError if two have one."""
    found = {
        path.resolve().stem if path.suffix == ".safetensors" else path.resolve().name: path.resolve() for path in paths
    }
    if len(found) < len(paths):
        raise ExpungeError(f"two of the {what} have one name; rename one")
    return found
