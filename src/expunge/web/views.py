"""Views: what the page shows of runs, pictures and tables, as HTML; all that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .line import Line
from .progress import Film, Progress, ago, film, progress
from .shelf import Job, Shelf, State, about


@cache
def environment() -> Environment:
    found = Environment(
        loader=PackageLoader(__package__, "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["ours"] = Markup  # views, and plots, whose texts matplotlib escapes
    return found


def render(template: str, **values: Any) -> str:
    return environment().get_template(f"{template}.html.j2").render(values)


def run(shelf: Shelf, line: Line, job: Job) -> str:
    """How a job is getting on."""
    state, found, shown = line.state(job), progress(shelf, job), film(shelf, job)
    cost = next(
        (text for text in shelf.told(job) if text.startswith("erasing ") or " pictures of each of " in text), ""
    )
    return render(
        "run", job=job, state=state, said=said(shelf, line, job, state, found, shown), progress=found, film=shown,
        curve=curve(found.losses), cost=cost, when=about(job.made),
    )  # fmt: skip


def said(shelf: Shelf, line: Line, job: Job, state: State, found: Progress, shown: Film) -> str:
    """A sentence on where it is."""
    if state == "waiting":
        n = line.ahead(job) or 0
        return f"waits: {n} run{'s' * (n != 1)} before it"
    if state == "running":
        return _going(found, shown) if found.done else BEGINNING[job.kind]
    if state == "failed":
        return shelf.complaint(job)
    if state == "stopped":
        return "stopped; what it had done is kept, and it can go on" if found.done else "stopped before it began"
    return {"erase": "done", "audit": "done", "export": "ready", "upload": "here"}[job.kind]


BEGINNING = {
    "erase": "begins: opening the model, drawing the pictures before",
    "audit": "begins: opening the model and the judges",
    "export": "being written",
    "upload": "being read",
}


def _going(found: Progress, shown: Film) -> str:
    if found.total and found.done >= found.total:
        return "nearly done: drawing the pictures after" if shown.steps else "nearly done: judging"
    left = f", about {ago(found.left)} left" if found.left is not None else ""
    of = f" of {found.total:,}" if found.total else ""
    return f"{found.done:,}{of} {found.unit}{left}"


WIDTH, HEIGHT = 240, 40


def curve(losses: Sequence[float]) -> str:
    """Losses as a line's points in a box of WIDTH by HEIGHT, means of neighbours where there are many."""
    if len(losses) < 2:
        return ""
    size = max(1, len(losses) // 80)
    means = [sum(part) / len(part) for part in (losses[i : i + size] for i in range(0, len(losses), size))]
    low, high = min(means), max(means)
    span, apart = (high - low) or 1.0, WIDTH / max(1, len(means) - 1)
    return " ".join(f"{i * apart:.1f},{HEIGHT - (HEIGHT - 4) * (m - low) / span - 2:.1f}" for i, m in enumerate(means))


def pair(prompt: str, seeds: Sequence[int], before: Sequence[str], after: Sequence[str], label: str) -> str:
    """Pictures before and after: the first of them under a slider, all of them side by side."""
    rows = [*zip(seeds, before, after, strict=True)]
    return render("pair", prompt=prompt, rows=rows, label=label, changed=list(before) != list(after))


def strip(prompt: str, files: Sequence[str]) -> str:
    return render("strip", prompt=prompt, files=files)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    return render("table", head=head, rows=rows, caption=caption)
