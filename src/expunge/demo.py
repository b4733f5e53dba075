"""The demo: erase a concept of the small world, and show it; an audit of it follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from . import smallworld
from .cell import Cell
from .edit import Edit
from .erasure import Plan, build_method, concepts_of, make_plan, run
from .errors import unknown
from .generation import Request, Settings, before_after, images
from .model import Model
from .protocol import Protocol, changed, protocol, requests
from .recipe import preset
from .score import Score
from .smallworld.judge import load_judge
from .smallworld.survey import examples, scores, verdicts

SETTINGS = Settings(steps=20)

Seen = dict[Request, dict[str, str]]


def look(model: Model, requests: Sequence[Request], settings: Settings, label: str) -> Seen:
    """Generates and judges; the pictures are not kept."""
    judge = load_judge(smallworld.sound("judge")).to(model.device)
    found: list[dict[str, str]] = []
    for batch in images(model, requests, settings, batch=64, label=label):
        found += verdicts(judge, batch)
    return dict(zip(requests, found, strict=True))


def measure(
    model: Model,
    edit: Edit | None,
    cells: Sequence[Cell],
    settings: Settings,
    erased: Sequence[str],
    name: str = "base",
) -> list[Score]:
    """Scores of all cells for the base (edit None) or the edited model."""
    asked = requests(cells)
    if edit is None:
        return scores(cells, look(model, asked, settings, f"judging {name}"), name, erased)
    with edit.on(model):
        return scores(cells, look(model, asked, settings, f"judging {name}"), name, erased)


def judged_by(concept: str, pictures: int) -> Protocol:
    """The survey of the small world. Raises ExpungeError if that knows no such concept."""
    found = changed(protocol("smallworld"), None, {"images": pictures, "steps": SETTINGS.steps})
    cells = found.cells()
    if not any(cell.mentions([concept]) for cell in cells):
        raise unknown("concept of the small world", concept, {word for cell in cells for word in cell.words})
    return found


def demo(
    model: Model,
    concept: str,
    out: Path,
    *,
    recipe: str,
    seed: int = 0,
    on_plan: Callable[[Plan], None] = lambda _: None,
) -> tuple[Edit, list[Path]]:
    """Erases `concept`; leaves edit.safetensors and before_after.png in `out`."""
    method, concepts = build_method(preset(recipe), {}), concepts_of([concept])
    on_plan(make_plan(model, method, concepts))
    files = [out / name for name in ("edit.safetensors", "before_after.png")]
    edit = run(model, method, concepts, files[0], seed=seed, resume=True)
    before_after(model, edit, examples(concept), SETTINGS, files[1])
    return edit, files
