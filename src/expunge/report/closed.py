"""The report of a closed loop: what was seen after so many steps, what was done about it, and before and after."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..edit import Edit
from ..errors import ExpungeError
from ..files import write_text
from ..loop import BLIND, Look, bound, strength
from . import plots
from .render import render


def looks(edit: Edit) -> list[Look]:
    """What the loop saw. Raises ExpungeError for an edit that no loop made."""
    if "loop" not in edit.provenance:
        raise ExpungeError(f"edit {edit.name!r} was made by {edit.provenance.get('method')}, which looks at nothing")
    return [Look.of(row) for row in edit.provenance["loop"]["looks"]]


def verdict(edit: Edit) -> str:
    """How it ended, in a sentence or two."""
    found, ended = looks(edit), edit.provenance["loop"]["ended"]
    result = next((look for look in found if look.done == "the result"), found[-1])
    (left, n), (lost, m), high = result.left, result.lost, bound(result.left, edit.provenance["loop"]["sure"])
    net = f", and {result.gained} gained" if result.gained else ""
    all_ = "" if len(edit.provenance["concepts"]) == 1 else ", of all concepts together"
    told = (
        f"{left} of {n} pictures still show it (at most {high:.1%}, 95%{all_}), {lost} of {m} words of others were lost"
    )
    told += net
    if ended == "proven":
        return f"Proven after {result.step} steps{strength(result)}: {told}."
    why = way(result, short(result, edit.provenance))
    return f"Not proven, {ended}. The best was seen after {result.step} steps{strength(result)}: {told}. {why}".strip()


def short(look: Look, about: Mapping[str, Any]) -> str:
    """What of the proof itself is too little, where nothing of the concept was seen."""
    sure, aim = about["loop"]["sure"], about["options"]["erased"]
    if sure < BLIND:
        return f"the judge, which may see no more than {sure:.0%} of it"
    few = not look.left[0] and look.proof and bound(look.left, sure) > aim
    return f"the number of pictures, of which none shows it: more of them (proof) may prove {aim:.1%}" if few else ""


def way(look: Look, first: str = "") -> str:
    """What is in the way."""
    parts = [first] if first else []
    parts += [f"{word} ({a} of {b} lost)" for word, a, b in look.worst]
    parts += [f"“{text}” still shows it" for text in dict.fromkeys(look.leaks)][:3]
    return f"In the way: {', '.join(parts)}." if parts else ""


def rows(found: Sequence[Look]) -> list[tuple[str, list[str]]]:
    """A table's rows, each after its name."""
    return [(f"{'proof' if look.proof else 'look'} at {look.step}", cells(look)) for look in found]


def cells(look: Look) -> list[str]:
    most = ", ".join(f"{word} {a}/{b}" for word, a, b in look.worst)
    lost = counted(look.lost) + (f", {look.gained} gained" if look.gained else "")
    return [f"{look.scale:g}", counted(look.named), counted(look.unsaid), lost, most, look.done]


def counted(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}" if pair[1] else "–"


HEAD = ("strength", "still there, named", "unsaid", "words of others lost", "most of it", "what was done")


def page(edit: Edit, picture: Path | None = None) -> str:
    """The whole of it, with a picture of before and after."""
    found, about = looks(edit), edit.provenance["loop"]
    courses = [look for look in found if look.done not in ("tried", "the result")]
    values: dict[str, Any] = {
        "names": [c["name"] for c in edit.provenance["concepts"]], "edit": edit, "verdict": verdict(edit),
        "plot": plots.looks([look.row() for look in courses]), "head": HEAD, "rows": rows(found), "about": about,
        "picture": base64.b64encode(picture.read_bytes()).decode() if picture else "",
        "hiding": hiding(about), "also": ", ".join(word for own in about.get("also", ()) for word in own),
    }  # fmt: skip
    return render("loop.html.j2", values)


def hiding(about: Mapping[str, Any]) -> str:
    """The words that bring a concept along, and are no names of it."""
    names = {word for own in about.get("also", ()) for word in own}
    return ", ".join(str(row[1]) for own in about["hiding"] for row in own if row[1] not in names)


def write(edit: Edit, file: Path, picture: Path | None = None) -> None:
    """Writes the page, whole or not at all."""
    write_text(file, page(edit, picture))
