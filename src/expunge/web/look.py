"""Look: before and after at equal seeds, edits and guidance put on and taken off, and where a word lives."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from PIL import Image

from ..errors import ExpungeError
from ..guidance import PRESETS
from . import studio, views
from .desk import DIRECT, DRAWING, Desk, number, told, typed, written
from .studio import Look

NONE = "nothing"
SLOTS = 3
"""Edits that can be put on each other."""
STRONGEST = 1.5
MOST = 8
"""Pictures of a row, at most."""
STEPS = 25


def stack(desk: Desk, given: Sequence[Any]) -> tuple[tuple[str, str, float], ...]:
    """Edits by name with their scales, of a form's fields: names, then scales. Raises ExpungeError for a bad one."""
    chosen, dials = given[:SLOTS], given[SLOTS:]
    pairs = [(name, dial(scale)) for name, scale in zip(chosen, dials, strict=True) if name not in (None, NONE)]
    return tuple((name, str(desk.shelf.edit(name)), scale) for name, scale in pairs)


def dial(value: object) -> float:
    """Raises ExpungeError for what is no strength."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ExpungeError(f"a strength is a number from 0 to {STRONGEST}")
    if not 0 <= value <= STRONGEST:
        raise ExpungeError(f"a strength is a number from 0 to {STRONGEST}")
    return round(float(value), 2)


def wished(desk: Desk, model: Any, prompt: Any, count: Any, seed: Any, guidance: Any, away: Any, *rest: Any) -> Look:
    """What the form asks for. Raises ExpungeError for what cannot be."""
    first, steered = number(seed, 0, 2**32 - 1 - MOST, "the first seed"), guidance not in (None, NONE)
    if steered and guidance not in PRESETS:
        raise ExpungeError("there is no such guidance: choose one of the list")
    concepts = tuple(part.strip() for part in written(away, "what to steer away from").split(",") if part.strip())
    if steered and not concepts:
        raise ExpungeError("say what the guidance shall steer away from")
    seeds = tuple(first + i for i in range(number(count, 1, MOST, "how many")))
    return Look(
        desk.model(model), written(prompt, "the prompt"), seeds, STEPS, stack(desk, rest),
        str(guidance) if steered else "", concepts if steered else (),
    )  # fmt: skip


def label(look: Look) -> str:
    """What is put on, in words."""
    edits = [name if scale == 1 else f"{name} × {scale:g}" for name, _, scale in look.edits]
    return " + ".join([*edits, *([f"{look.guidance} away from {', '.join(look.away)}"] if look.guidance else [])])


def command(look: Look, ways: Sequence[str] = (), word: str = "") -> str:
    """The command line that draws the pictures after, or the attention to a word."""
    found = ["expunge", "attention" if word else "generate", *ways]
    found += [] if look.model == "smallworld" else ["--model", look.model]
    for name, _, scale in look.edits:
        found += ["--edit", f"{name}.safetensors" + ("" if scale == 1 else f":{scale:g}")] if scale else []
    seeds = ["--seed", str(look.seeds[0])] if look.seeds[0] else []
    if word:
        return shlex.join([*found, f"--word={word}", *seeds, "--", look.prompt])
    found += ["--guidance", look.guidance] if look.guidance else []
    found += [f"--concept={concept}" for concept in look.away]
    return shlex.join([*found, "--num", str(len(look.seeds)), *seeds, "--", look.prompt])


def attention(desk: Desk, look: Look, said: str) -> Image.Image:
    """The maps of a word."""
    with TemporaryDirectory(dir=desk.shelf.folder) as folder:
        desk.studio(studio.watched, look, said, Path(folder) / "maps.png")
        with Image.open(Path(folder) / "maps.png") as picture:
            return picture.convert("RGB")


def edits(desk: Desk, model: str) -> list[str]:
    """The choices of a slot."""
    return [NONE, *desk.shelf.known_edits(model)]


def build(desk: Desk, tab: gr.Tab, model: gr.Dropdown) -> gr.Dropdown:
    """The tab, for the model that is chosen; the first choice of an edit."""
    known = edits(desk, desk.models[0])
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox("a red car in the city", label="Prompt", max_length=4000, elem_id="prompt")
            slots, dials = [], []
            with gr.Group():
                slots.append(gr.Dropdown(known, value=NONE, label="Edit", elem_id="edit-1"))
                dials.append(strength(1))
            with gr.Accordion("Put more on it", open=False):
                for i in range(2, SLOTS + 1):
                    with gr.Group():
                        slots.append(gr.Dropdown(known, value=NONE, label=f"Edit {i}", elem_id=f"edit-{i}"))
                        dials.append(strength(i))
                guidance = gr.Dropdown([NONE, *PRESETS], value=NONE, label="Guidance", elem_id="guidance")
                away = gr.Textbox("", label="Steer away from", max_length=4000, elem_id="away", info="parted by commas")
            with gr.Row():
                count = gr.Slider(1, MOST, 4, step=1, label="Seeds", elem_id="count", min_width=120)
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=120, elem_id="first-seed")
            draw = gr.Button("Draw", variant="primary", elem_id="draw", size="lg")
        with gr.Column(scale=3, min_width=300):
            view = gr.HTML(elem_id="pair")
            line = typed("draw-command")
            with gr.Accordion("Where does a word live?", open=False):
                word = gr.Textbox("car", label="A word of the prompt", max_length=200, elem_id="word")
                watch = gr.Button("Show its attention", elem_id="watch")
                maps = gr.Image(
                    label="Attention to the word, a row for each model: dark to light", interactive=False,
                    elem_id="maps", format="png",
                )  # fmt: skip
    form = [model, prompt, count, seed, guidance, away, *slots, *dials]

    @told
    def show(*given: Any) -> Any:
        look = wished(desk, *given)
        before, after = desk.studio(studio.drawn, look, desk.shelf.pictures)
        return views.pair(look.prompt, look.seeds, before, after, label(look)), command(look, desk.ways)

    @told
    def heat(word: Any, *given: Any) -> Any:
        look, said = wished(desk, *given), written(word, "the word")
        return attention(desk, look, said), command(look, desk.ways, said)

    gr.on([draw.click, prompt.submit, *(d.release for d in dials)], show, form, [view, line], **DRAWING)
    gr.on([s.input for s in slots], show, form, [view, line], **DRAWING)
    gr.on([watch.click, word.submit], heat, [word, *form], [maps, line], **DRAWING)
    gr.on([tab.select, model.change], lambda *now: refreshed(desk, *now), [model, *slots], slots, **DIRECT)
    return slots[0]


def strength(i: int) -> gr.Slider:
    return gr.Slider(0, STRONGEST, 1.0, step=0.05, label="Strength", elem_id=f"strength-{i}", info="0: off, 1: as made")


def refreshed(desk: Desk, model: Any, *now: Any) -> Any:
    """The slots with the edits that there are of the model by now."""
    found = edits(desk, desk.model(model))
    return [gr.Dropdown(found, value=name if name in found else NONE) for name in now]
