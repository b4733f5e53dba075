"""Judge: run an audit or open one, and put several side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..errors import ExpungeError
from ..guidance import PRESETS
from ..protocol import names as protocol_names
from ..protocol import protocol as named
from ..report import compare
from . import views
from .desk import DIRECT, QUIET, Desk, halting, number, told, typed, written
from .look import NONE
from .shelf import OUT

PICTURES = 120
MOST = 100_000
SECOND = 1.5


def own_protocols() -> list[tuple[str, str]]:
    """Those that need no file of the user's, as choices."""
    found = [(name, named(name)) for name in protocol_names()]
    ready = [(name, p) for name, p in found if p.prompts.file is None]
    return [(f"{name}: {p.about}", name) for name, p in sorted(ready, key=lambda pair: pair[0] != "smallworld")]


def prepared(desk: Desk, model: Any, protocol: Any, edits: Any, guidance: Any, away: Any, limit: Any) -> Any:
    """The job. Raises ExpungeError for what cannot be."""
    base, chosen = desk.model(model), [name for name in edits or [] if desk.shelf.edit(name)]
    if protocol not in [name for _, name in own_protocols()]:
        raise ExpungeError("there is no such protocol: choose one of the list")
    steered = [name for name in guidance or [] if name != NONE]
    if any(name not in PRESETS for name in steered):
        raise ExpungeError("there is no such guidance: choose one of the list")
    concepts = [part.strip() for part in written(away, "what is erased").split(",") if part.strip()]
    if steered and not concepts:
        raise ExpungeError("say what the guidance shall steer away from")
    if not chosen and not steered:
        raise ExpungeError("nothing to judge: choose an edit, or make one under Erase")
    arguments = ["audit", "--protocol", protocol, *([] if base == "smallworld" else ["--model", base]), *desk.ways]
    arguments += [part for name in chosen for part in ("--edit", f"{name}.safetensors")]
    arguments += [part for name in steered for part in ("--guidance", name)]
    arguments += [f"--concept={concept}" for concept in concepts]
    arguments += ["--limit", str(number(limit, 1, MOST, "pictures a row")), "--out", OUT]
    title = f"{', '.join([*chosen, *steered])} by {protocol}"
    job = desk.shelf.add("audit", f"audit-{'-'.join([*chosen, *steered])}", title, arguments)
    desk.shelf.lend(chosen, job)
    return job


def overview(desk: Desk, audits: Sequence[Any]) -> tuple[str, str]:
    """The table of audits in short, and the plot of erased against kept. Raises ExpungeError if they differ."""
    if not audits:
        raise ExpungeError("choose audits to compare")
    found = compare.comparison([desk.shelf.audit(name) for name in audits])
    table = found.table()
    head = ["", *table["head"]]
    return views.table(head, [(n, *cells) for n, cells in table["rows"]], "95% intervals in brackets"), found.pareto()


def opened(desk: Desk, name: Any) -> str:
    """An audit's report."""
    return views.render("audit", name=name) if name and desk.shelf.audit(name) else ""


def build(desk: Desk, tab: gr.Tab, model: gr.Dropdown) -> None:
    """The tab, for the model that is chosen."""
    have = [*desk.shelf.known_edits(desk.models[0])]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            edits = gr.CheckboxGroup(have, label="Edits, a row each", elem_id="judged")
            protocol = gr.Dropdown(own_protocols(), value="smallworld", label="Asked by", elem_id="protocol")
            limit = gr.Number(
                PICTURES, label="Pictures of each row", precision=0, minimum=1, elem_id="limit",
                info="more pictures, narrower intervals",
            )  # fmt: skip
            with gr.Accordion("Guidance beside them", open=False):
                guidance = gr.CheckboxGroup([*PRESETS], label="A row each")
                away = gr.Textbox("", label="What is erased", info="parted by commas; edits say it themselves")
            start = gr.Button("Judge", variant="primary", elem_id="judge", size="lg")
        with gr.Column(scale=3, min_width=300):
            runs = gr.Dropdown([], label="Runs", elem_id="audit-runs")
            view = gr.HTML(elem_id="audit-run")
            with gr.Row():
                stop = gr.Button("Stop, and keep what there is", variant="stop", visible=False, elem_id="audit-stop")
                resume = gr.Button("Go on", variant="primary", visible=False, elem_id="audit-resume")
            line = typed("audit-command")
    known = gr.Dropdown([], label="Open an audit", elem_id="audits")
    page = gr.HTML(elem_id="audit")
    with gr.Accordion("Side by side", open=False):
        several = gr.CheckboxGroup([], label="Audits of the same prompts and judges", elem_id="several")
        beside = gr.Button("Compare", elem_id="compare")
        both = gr.HTML(elem_id="comparison")
        compared = typed("compare-command")
    stamp, timer = gr.State(""), gr.Timer(SECOND, active=False)

    @told
    def begin(*given: Any) -> Any:
        job = prepared(desk, *given)
        desk.line.add(job)
        return gr.Dropdown(desk.runs("audit"), value=job.id), gr.Timer(active=True)

    def state(id: Any, seen: str) -> Any:
        return now(desk, id, seen)

    @told
    def show(name: Any) -> str:
        return opened(desk, name)

    @told
    def together(chosen: Any) -> Any:
        table, plot = overview(desk, chosen or [])
        shown = views.render("comparison", table=table, plot=plot)
        return shown, shlex.join(["expunge", "compare", *chosen, "--out", "compare"])

    start.click(begin, [model, protocol, edits, guidance, away, limit], [runs, timer], **QUIET)
    outputs = [view, stop, resume, line, known, several, timer, stamp]
    gr.on([timer.tick, runs.change], state, [runs, stamp], outputs, trigger_mode="once", **DIRECT)
    halting(desk, runs, stop, resume, timer)
    known.change(show, known, page, **QUIET)
    beside.click(together, several, [both, compared], **QUIET)
    gr.on(
        [tab.select, model.change],
        lambda *given: refreshed(desk, *given),
        [model, edits, known, several, runs],
        [edits, known, several, runs, timer],
        **DIRECT,
    )


def now(desk: Desk, id: Any, seen: str) -> Any:
    """How the audit is getting on; when it is done it is opened."""
    if not id:
        return [gr.skip()] * 6 + [gr.Timer(active=False), ""]
    job = desk.shelf.job(id)
    state, text = desk.line.state(job), views.run(desk.shelf, desk.line, job)
    if text == seen:
        return [gr.skip()] * 8
    audits = [*desk.shelf.known_audits()]
    ended = state in ("done", "failed", "stopped")
    return [
        text, gr.update(visible=not ended), gr.update(visible=state in ("stopped", "failed")),
        job.command,
        gr.Dropdown(audits, value=job.id) if state == "done" else gr.skip(),
        gr.CheckboxGroup(audits) if state == "done" else gr.skip(), gr.Timer(active=not ended), text,
    ]  # fmt: skip


def refreshed(desk: Desk, model: Any, edits: Any, known: Any, several: Any, run: Any) -> Any:
    """The choices, with what there is by now."""
    have, audits, runs = [*desk.shelf.known_edits(desk.model(model))], [*desk.shelf.known_audits()], desk.runs("audit")
    chosen = [name for name in edits or [] if name in have] or have[:1]
    newest = run or (runs[0][1] if runs else None)
    return (
        gr.CheckboxGroup(have, value=chosen), gr.Dropdown(audits, value=known or (audits[0] if audits else None)),
        gr.CheckboxGroup(audits, value=[name for name in several or [] if name in audits]),
        gr.Dropdown(runs, value=newest), gr.Timer(active=True),
    )  # fmt: skip
