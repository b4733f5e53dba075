"""Erase: choose what goes and how, and watch it go."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gradio as gr
from pydantic.fields import FieldInfo

from .. import erasure
from ..concept import Concept
from ..errors import ExpungeError
from ..recipe import assignments, preset, preset_names
from ..scope import SCOPES
from . import studio, views
from .desk import DIRECT, DRAWING, QUIET, Desk, halting, names, number, told, typed, written
from .progress import FRAMES, ago
from .shelf import OUT

AUTO = "auto"
OTHER = "other"
EXAMPLES = ("car", "Orsini", "hazard sign", "Marlow")
SECOND = 1.0
"""How often the page asks how a run is getting on."""


def cards(model: str) -> dict[str, str]:
    """The presets to choose from on a model, and what each is good for."""
    own = [name for name in preset_names() if preset(name).good and name.startswith("smallworld-") == small(model)]
    closed = [n for n in preset_names() if preset(n).good and not erasure.build_method(preset(n), {}).extent()[0]]
    return {name: preset(name).good for name in [*own, *(n for n in closed if n not in own)]}


def small(model: str) -> bool:
    return model == "smallworld"


TITLES = {
    "smallworld-quick": "A quick first look",
    "smallworld-loop": "Closed loop",
    "smallworld-object": "Tuned for objects",
    "smallworld-artist": "Tuned for styles",
    "smallworld-sign": "Tuned for the hazard sign",
    "esd-x": "ESD-x",
    "esd-u": "ESD-u",
    "sdd-x": "SDD",
    "ablation-object-2023": "Concept ablation",
    "uce-2025": "Closed form (UCE)",
}


def choices(model: str, seconds: dict[str, float]) -> list[tuple[str, str]]:
    """Cards as choices: a title, what it is good for, and what it costs here."""
    best = erasure.default_preset(model, ())
    shown = {AUTO: best, **{n: n for n in cards(model) if n != best}}
    told = {AUTO: ("Recommended", "Takes it thoroughly, and keeps its neighbours: the right start.")}
    told |= {n: (TITLES.get(n, n), good) for n, good in cards(model).items()}
    rows = [(*told[key], _cost(name, seconds.get(name)), key) for key, name in shown.items()]
    rows += [("Another preset", "The papers' own settings, made for Stable Diffusion; below.", "", OTHER)]
    return [(f"{title}\n{good}\n{cost}", key) for title, good, cost, key in rows]


def _cost(name: str, seconds: float | None) -> str:
    less = ", or less" if erasure.build_method(preset(name), {}).early else ""
    return "" if seconds is None else f"about {ago(seconds)} here{less}"


def chosen(model: str, card: object, other: object, wanted: list[str], options: Collection[str] = ()) -> str:
    """The preset that a card stands for. Raises ExpungeError if there is none such."""
    if card == OTHER:
        return str(other) if preset(str(other)) else ""
    if card == AUTO:
        return erasure.default_preset(model, wanted, options)
    if not isinstance(card, str) or card not in cards(model):
        raise ExpungeError("choose a method from the cards")
    return str(card)


def changes(text: object) -> dict[str, Any]:
    """Options as key=value, one a line. Raises ExpungeError for one that names a file, or a scope by a pattern."""
    found = assignments([line for line in written(text, "the options").splitlines() if line.strip()], "an option")
    if str(found.get("scope", "xattn")) not in SCOPES:
        raise ExpungeError(f"on this page a scope is one of {', '.join(SCOPES)}; others on the command line")
    return found


def check_paths(name: str, options: dict[str, Any]) -> None:
    """Raises ExpungeError if an option is a file's: here nothing that is typed is a path."""
    fields = type(erasure.build_method(preset(name), {})).model_fields
    files = [key for key in options if key in fields and opens(fields[key])]
    if files:
        raise ExpungeError(f"{files[0]} names a file, which this page does not open; use the command line for it")


def opens(option: FieldInfo) -> bool:
    """Whether an option's value may be a file's."""
    return "Path" in str(option.annotation) or bool(option.json_schema_extra)


def prepared(desk: Desk, text: object, model: object, card: object, other: object, seed: object, more: object) -> Any:
    """The job. Raises ExpungeError for what cannot be, before anything is begun."""
    base, wanted, options = desk.model(model), names(text), changes(more)
    name = chosen(base, card, other, wanted, options)
    check_paths(name, options)
    own = number(seed, 0, 2**32 - 1, "the seed")
    erasure.build_method(preset(name), options).suits(erasure.concepts_of(wanted))
    desk.studio.soon(studio.planned, base, name, options, wanted)
    plain = [Concept.of(text)["name"] or "" for text in wanted]
    lines = [line.strip() for line in str(more).splitlines() if line.strip()]
    arguments = ["erase", "--method", name, *([] if small(base) else ["--model", base]), *desk.ways]
    arguments += [f"--set={line}" for line in lines] + (["--seed", str(own)] if own else [])
    arguments += ["--frames", FRAMES, "--out", f"{OUT}.safetensors", "--", *wanted]
    return desk.shelf.add("erase", "-".join(plain), f"{', '.join(plain)} by {name}", arguments)


def build(desk: Desk, model: gr.Dropdown) -> tuple[gr.Dropdown, gr.Button]:
    """The tab, for the model that is chosen; the choice of runs, and the button that leads on."""
    begun = desk.models[0]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            what = gr.Textbox(
                "car", label="What shall it forget?", lines=1, max_lines=5, max_length=TEXT_SHOWN, elem_id="concepts",
                info="a word or a few, such as an object, an artist, a sign; several parted by commas",
            )  # fmt: skip
            with gr.Row(elem_classes="x-examples"):
                for word in EXAMPLES if small(begun) else ():
                    gr.Button(word, size="sm", min_width=60).click(lambda word=word: word, None, what, **DIRECT)
            card = gr.Radio(choices(begun, {}), value=AUTO, label="How?", elem_id="cards", elem_classes="x-cards")
            start = gr.Button("Erase", variant="primary", elem_id="start", size="lg")
            with gr.Accordion("More choices", open=False):
                other = gr.Dropdown(preset_names(), value="esd-x", label="Another preset", elem_id="preset")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                more = gr.Textbox(
                    "", label="Options, key=value, one a line", lines=3, max_length=TEXT_SHOWN, elem_id="options"
                )
                shown = gr.HTML(elem_id="option-list")
        with gr.Column(scale=3, min_width=300):
            preview = gr.HTML(elem_id="preview")
            runs = gr.Dropdown([], label="Runs", elem_id="runs", info="they go on when you leave this page")
            view = gr.HTML(elem_id="run")
            with gr.Row():
                stop = gr.Button("Stop, and keep what there is", variant="stop", visible=False, elem_id="stop")
                resume = gr.Button("Go on", variant="primary", visible=False, elem_id="resume")
                look = gr.Button("Look at it closely", visible=False, elem_id="look-at")
            command = typed("command")
    stamp, timer = gr.State(""), gr.Timer(SECOND, active=False)
    outputs = [view, stop, resume, look, command, timer, stamp]

    @told
    def begin(*given: Any) -> Any:
        job = prepared(desk, *given)
        desk.line.add(job)
        return gr.Dropdown(desk.runs("erase"), value=job.id)

    def state(id: Any, known: str) -> Any:
        return now(desk, id, known)

    @told
    def sample(text: Any, name: Any) -> str:
        return seen(desk, text, name)

    @told
    def priced(name: Any) -> list[tuple[str, str]]:
        """With their costs, unless a run is at work, beside which a pass takes many times as long."""
        presets = [erasure.default_preset(name), *cards(name)]
        found = {} if desk.line.busy else desk.studio(studio.costs, desk.model(name), presets)
        return choices(name, {} if desk.line.busy else found)

    start.click(begin, [what, model, card, other, seed, more], runs, concurrency_limit=4, api_visibility="private")
    gr.on([what.submit, what.blur, model.change], sample, [what, model], preview, **DRAWING)
    model.change(lambda name: gr.Radio(priced(name), value=AUTO), model, card, **QUIET)
    gr.on([timer.tick, runs.change], state, [runs, stamp], outputs, trigger_mode="once", **DIRECT)
    halting(desk, runs, stop, resume, timer)
    gr.on([card.change, other.change], described, [model, card, other, what], shown, **DIRECT)
    first = gr.on(None, sample, [what, model], preview, **DRAWING)
    first.then(lambda name: gr.Radio(priced(name)), model, card, **QUIET)
    gr.on(None, lambda: latest(desk), None, runs, **DIRECT)
    return runs, look


TEXT_SHOWN = 4000


def latest(desk: Desk) -> Any:
    """The runs, and the one that goes on now, else the newest."""
    found = [job for job in desk.shelf.jobs() if job.kind == "erase"]
    going = [job for job in found if desk.line.state(job) in ("running", "waiting")]
    return gr.Dropdown(desk.runs("erase"), value=(going or found)[0].id if found else None)


def now(desk: Desk, id: object, known: str) -> Any:
    """How the run is getting on, if that has changed."""
    if not id:
        return "", *[gr.update(visible=False)] * 3, "", gr.Timer(active=False), ""
    job = desk.shelf.job(id)
    state, text = desk.line.state(job), views.run(desk.shelf, desk.line, job)
    if text == known:
        return [gr.skip()] * 7
    going = state in ("running", "waiting")
    return (
        text, gr.update(visible=going), gr.update(visible=state in ("stopped", "failed")),
        gr.update(visible=state == "done"), job.command, gr.Timer(active=going), text,
    )  # fmt: skip


def seen(desk: Desk, text: object, model: object) -> str:
    """What the model draws of the first concept, where that takes a moment."""
    base, word = desk.model(model), names(text)[0].partition("->")[0].strip()
    files = desk.studio(studio.previewed, base, word, desk.shelf.pictures)
    return views.strip(word, files) if files else ""


def described(model: Any, card: Any, other: Any, what: Any) -> str:
    """Every option of the preset that is chosen."""
    try:
        name = chosen(model, card, other, names(what or "car"))
    except ExpungeError:
        return ""
    rows = [(r["option"], r["value"], r["about"]) for r in erasure.options(name)]
    return views.table(("option", "value", "what it is"), rows, f"{name}: {preset(name).about}")
