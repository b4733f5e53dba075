"""Page: the tabs together, and how they look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from . import erase, judge, keep, look, studies
from .desk import DIRECT, Desk, told

LOOKS = Path(__file__).with_name("looks")
TIDY = (3600, 3600)
"""Every hour, visitors' files older than an hour go."""


VISITORS = 500
"""Whose choices are remembered at once."""
QUEUE = 200
"""Visitors' wishes that may wait."""


def blocks(desk: Desk) -> gr.Blocks:
    """All of it."""
    page: gr.Blocks
    with gr.Blocks(title="expunge", analytics_enabled=False, delete_cache=TIDY, fill_width=True) as page:
        gr.HTML(HEAD, elem_id="top")
        model = gr.Dropdown(
            [*desk.models], value=desk.models[0], label="Model", visible=len(desk.models) > 1, elem_id="model"
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Erase", id="erase"):
                runs, closer = erase.build(desk, model)
            with gr.Tab("Look", id="look") as tab:
                slot = look.build(desk, tab, model)
            with gr.Tab("Judge", id="judge") as tab:
                judge.build(desk, tab, model)
            with gr.Tab("Keep", id="keep") as tab:
                keep.build(desk, tab, model)
            with gr.Tab("Study", id="study") as tab:
                studies.build(desk, tab)
        closer.click(told(lambda name: leading(desk, name)), runs, [tabs, model, slot], **DIRECT)
    page.queue(max_size=QUEUE, default_concurrency_limit=4)
    page.state_session_capacity = VISITORS
    return page


def leading(desk: Desk, name: Any) -> Any:
    """To the tab Look, with the edit put on its model."""
    model = desk.model(desk.shelf.job(name).model)
    found = look.edits(desk, model)
    return gr.Tabs(selected="look"), model, gr.Dropdown(found, value=name if name in found else look.NONE)


HEAD = """<header class="x-top"><h1>expunge</h1>
<p>takes a concept out of a text-to-image model by name, and measures what else that changed</p></header>"""


def dress() -> dict[str, Any]:
    """What Gradio is told of looks: fonts of the visitor's own machine, nothing from elsewhere."""
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", radius_size="sm", font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_text_color="white",
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700", block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800", block_title_text_color_dark="*neutral_100",
    )  # fmt: skip
    script = (LOOKS / "page.js").read_text(encoding="utf-8")
    return {
        "theme": theme, "css": (LOOKS / "page.css").read_text(encoding="utf-8"), "head": f"<script>{script}</script>",
    }  # fmt: skip
