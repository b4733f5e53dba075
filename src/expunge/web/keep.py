"""Keep: what an edit is, its file in any format, and edits that others made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from ..edit import Edit
from ..errors import ExpungeError
from ..formats import FORMATS, format_of
from . import views
from .desk import DIRECT, QUIET, Desk, number, told, typed
from .shelf import OUT, Job

RANK = 8
"""Of a LoRA that is made of an edit."""
SECOND = 1.5


def known(desk: Desk, name: Any) -> tuple[str, str]:
    """What an edit is, with the way to its file; and the command line that made it."""
    if not name:
        return "", ""
    path = desk.shelf.edit(name)
    about, provenance = summary(path, path.stat().st_mtime_ns)
    size = f"{path.stat().st_size / 2**20:.1f} MiB"
    made = "" if name in desk.shelf.edits else desk.shelf.job(name).command
    return views.render("edit", name=name, about=about, size=size, all=provenance), made


@lru_cache(maxsize=64)
def summary(path: Path, _changed: int) -> tuple[dict[str, str], Mapping[str, Any]]:
    """What an edit is, in short and as its provenance tells; a large one takes seconds to read."""
    edit = Edit.load(path)
    told = edit.provenance
    about = {
        "concepts": ", ".join(c["name"] for c in told.get("concepts", [])), "method": told.get("method", ""),
        "base": told.get("base", {}).get("name", ""), "made": told.get("date", ""), "seed": told.get("seed", ""),
        "weights": f"{sum(d.numel() for d in edit.delta.values()):,} in {len(edit.delta)} tensors",
        "hash": edit.hash, "licence": told.get("licence", ""),
    }  # fmt: skip
    return {key: str(value) for key, value in about.items()}, told


def exported(desk: Desk, name: Any, form: Any, model: Any, rank: Any) -> Job:
    """The job. Raises ExpungeError for what cannot be."""
    base, path, chosen = desk.model(model), desk.shelf.edit(name), format_of(str(form))
    _, provenance = summary(path, path.stat().st_mtime_ns)
    dense = chosen.factored and not provenance.get("options", {}).get("lora_rank")
    arguments = ["export", f"{name}.safetensors", "--format", chosen.kind]
    arguments += ["--rank", str(number(rank, 1, 1024, "the rank"))] if dense else []
    arguments += [*([] if base == "smallworld" else ["--model", base]), "--out", OUT + chosen.suffix]
    job = desk.shelf.add("export", f"{name}-{chosen.kind}", f"{name} as {chosen.kind}", arguments)
    desk.shelf.lend([name], job)
    return job


def brought(desk: Desk, file: Any, model: Any) -> Job:
    """A visitor's file as an edit; another tool's is read by `expunge import`. Raises ExpungeError for no such file."""
    if not isinstance(file, str):
        raise ExpungeError("choose a .safetensors file")
    base, given = desk.model(model), Path(file)
    if given.suffix != ".safetensors":
        raise ExpungeError(f"{given.name} is no .safetensors file; other kinds can run code when they are opened")
    arguments = ["import", "given.safetensors", *([] if base == "smallworld" else ["--model", base])]
    job = desk.shelf.add("upload", given.stem, f"{given.name}, brought", [*arguments, "--out", f"{OUT}.safetensors"])
    to = desk.shelf.place(job)
    try:
        Edit.load(given)
    except ExpungeError as error:
        if "carries no provenance" not in str(error):
            shutil.rmtree(to)
            raise ExpungeError(str(error).replace(str(given), given.name)) from None
        shutil.copyfile(given, to / "given.safetensors")
        return job
    shutil.copyfile(given, to / job.product)
    desk.shelf.ended(job, 0)
    return job


def build(desk: Desk, tab: gr.Tab, model: gr.Dropdown) -> None:
    """The tab, for the model that is chosen."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            edit = gr.Dropdown([*desk.shelf.known_edits()], value=None, label="Edit", elem_id="kept")
            form = gr.Radio(
                [(f"{kind}: {f.about}", kind) for kind, f in FORMATS.items()],
                value="lora",
                label="As",
                elem_id="format",
            )
            rank = gr.Number(RANK, label="Rank, of a LoRA made of whole weights", precision=0, minimum=1)
            make = gr.Button("Make the file", variant="primary", elem_id="make")
            bring = gr.UploadButton(
                "Bring an edit, or another tool's LoRA", file_types=[".safetensors"], elem_id="bring", size="md"
            )
        with gr.Column(scale=3, min_width=300):
            about = gr.HTML(elem_id="edit-facts")
            line = typed("edit-command", "The command line that made it")
            runs = gr.Dropdown([], label="Files", elem_id="exports")
            view = gr.HTML(elem_id="export-run")
            made = typed("export-command")
    stamp, timer = gr.State(""), gr.Timer(SECOND, active=False)

    @told
    def show(name: Any) -> Any:
        return known(desk, name)

    @told
    def begin(name: Any, form: Any, model: Any, rank: Any) -> Any:
        job = exported(desk, name, form, model, rank)
        desk.files.add(job)
        return gr.Dropdown(desk.runs("export", "upload"), value=job.id), gr.Timer(active=True)

    @told
    def take(file: Any, model: Any) -> Any:
        job = brought(desk, file, model)
        if desk.shelf.code(job) is None:
            desk.files.add(job)
        found = [*desk.shelf.known_edits()]
        chosen = job.id if job.id in found else None
        return (
            gr.Dropdown(desk.runs("export", "upload"), value=job.id),
            gr.Dropdown(found, value=chosen),
            gr.Timer(active=True),
        )

    def state(id: Any, seen: str) -> Any:
        return now(desk, id, seen)

    edit.change(show, edit, [about, line], **QUIET)
    make.click(begin, [edit, form, model, rank], [runs, timer], **QUIET)
    bring.upload(take, [bring, model], [runs, edit, timer], api_visibility="private")
    gr.on([timer.tick, runs.change], state, [runs, stamp], [view, timer, made, stamp], trigger_mode="once", **DIRECT)
    tab.select(lambda name: refreshed(desk, name), edit, [edit, runs], **DIRECT)


def now(desk: Desk, id: Any, seen: str) -> Any:
    """How the file is getting on, and the way to it."""
    if not id:
        return "", gr.Timer(active=False), "", ""
    job = desk.shelf.job(id)
    state = desk.files.state(job)
    text = views.run(desk.shelf, desk.files, job) + (views.render("file", job=job) if state == "done" else "")
    if text == seen:
        return [gr.skip()] * 4
    return text, gr.Timer(active=state in ("waiting", "running")), job.command, text


def refreshed(desk: Desk, name: Any) -> Any:
    found = [*desk.shelf.known_edits()]
    value = name if name in found else found[0] if found else None
    return gr.Dropdown(found, value=value), gr.Dropdown(desk.runs("export", "upload"))
