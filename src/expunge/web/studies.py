"""Study: a blind rating task made of audits, the link to it, and what people said."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import ExpungeError
from ..report.opinions import opinions
from ..study import design
from ..study.results import results
from ..study.store import Answers
from . import views
from .desk import DIRECT, QUIET, Desk, number, told, typed, written

PICTURES = 12
MOST = 500


def made(desk: Desk, audits: Any, question: Any, about: Any, count: Any) -> tuple[str, str]:
    """The name of a new study, and the command line. Raises ExpungeError for what cannot be."""
    folders = [desk.shelf.audit(name) for name in audits or []]
    if not folders:
        raise ExpungeError("choose at least one audit; its pictures are what people rate")
    if about not in design.ABOUT:
        raise ExpungeError("choose which prompts to show")
    asked, pictures = written(question, "the question"), number(count, 1, MOST, "pictures")
    folder = desk.shelf.new_study(str(audits[0]))
    try:
        design.new(folders, folder, question=asked or None, about=about, pictures=pictures)
    except ExpungeError:
        shutil.rmtree(folder)
        raise
    told = ["expunge", "study", "new", *audits, *([f"--question={asked}"] if asked else []), "--about", about]
    return folder.name, shlex.join([*told, "--pictures", str(pictures), "--out", folder.name])


def tokens(shelf_studies: Mapping[str, Path]) -> dict[str, Path]:
    """Folders of studies by the token that raters have."""
    found = {}
    for folder in shelf_studies.values():
        with suppress(ExpungeError, OSError):  # one that is damaged closes no other
            found[_token(folder, (folder / design.NAME).stat().st_mtime_ns)] = folder
    return found


@lru_cache(maxsize=1000)
def _token(folder: Path, _made: int) -> str:
    return design.load(folder).token


def opened(desk: Desk, name: Any, address: str) -> str:
    """The link, and the results so far."""
    if not name:
        return ""
    answers = Answers(desk.shelf.study(name))
    found = results(answers.study, answers)
    rows = [(o.row, str(o), o.answers, o.raters) for o in found.rows]
    table = views.table(("row", "mean, 1 to 5, with its 95% interval", "answers", "raters"), rows)
    plot = opinions(found) if any(o.answers for o in found.rows) else ""
    items = len(answers.study.rated)
    return views.render(
        "study", name=name, token=answers.study.token, found=found, table=table, plot=plot, items=items,
        address=address, closed=desk.loopback,
    )  # fmt: skip


def here(desk: Desk, request: gr.Request) -> str:
    """The page's address as the visitor knows it: 0.0.0.0 is nobody's."""
    host, secure = request.headers.get("host"), request.headers.get("x-forwarded-proto") == "https"
    return f"http{'s' * secure}://{host}" if host else desk.address


def build(desk: Desk, tab: gr.Tab) -> None:
    """The tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            audits = gr.CheckboxGroup([], label="Audits whose pictures people rate", elem_id="study-audits")
            question = gr.Textbox(
                "", label="Question", placeholder="How much of “car” does this picture show?", max_length=300,
                elem_id="question", info="empty: about the first concept that is erased",
            )  # fmt: skip
            about = gr.Radio(
                [("that say what is erased", "erased"), ("that do not", "others"), ("both", "all")], value="erased",
                label="Prompts",
            )  # fmt: skip
            count = gr.Number(PICTURES, label="Pictures of each row", precision=0, minimum=1)
            make = gr.Button("Make the study", variant="primary", elem_id="make-study", size="lg")
        with gr.Column(scale=3, min_width=300):
            known = gr.Dropdown([*desk.shelf.known_studies()], value=None, label="Studies", elem_id="studies")
            again = gr.Button("Count again", size="sm", elem_id="count-again")
            view = gr.HTML(elem_id="study-results")
            line = typed("study-command")

    @told
    def begin(*given: Any) -> Any:
        name, line = made(desk, *given)
        return gr.Dropdown([*desk.shelf.known_studies()], value=name), line

    @told
    def show(name: Any, request: gr.Request) -> str:
        return opened(desk, name, here(desk, request))

    make.click(begin, [audits, question, about, count], [known, line], **QUIET)
    gr.on([known.change, again.click], show, known, view, **QUIET)
    tab.select(lambda *given: refreshed(desk, *given), [audits, known], [audits, known], **DIRECT)


def refreshed(desk: Desk, audits: Any, name: Any) -> Any:
    """The choices, with what there is by now."""
    have, studies = [*desk.shelf.known_audits()], [*desk.shelf.known_studies()]
    kept = [audit for audit in audits or [] if audit in have] or have[:1]
    return gr.CheckboxGroup(have, value=kept), gr.Dropdown(studies, value=name or (studies[-1] if studies else None))
