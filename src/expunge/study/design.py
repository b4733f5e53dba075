"""Design: which pictures of which audits are rated, by what question, and what tells who does not look.

Every row shows the same prompts and seeds. Pictures lie in the study's folder under names that tell nothing, numbered
in random order. Checks are pictures that say what to choose.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..concept import says
from ..errors import ExpungeError, unknown
from ..files import SEAL, check_writable, parsed, sealed, unbroken, whole, write_json
from ..lock import locked
from ..picture import read
from ..rng import numpy_rng
from . import database, paint

if TYPE_CHECKING:
    import numpy as np

Request = tuple[str, int]
"""A prompt and a seed."""

Row = dict[Request, Path]
"""The pictures of one row of the study."""

NAME = "study.json"
PICTURES = "pictures"
BASE = "base"
ABOUT = ("erased", "others", "all")
"""Prompts that say what is erased, those that do not, or both."""

LOW, HIGH = "nothing of it", "it, without doubt"


class Item(BaseModel):
    """A picture that is rated, or a check: one that says to choose `want`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=0)
    file: str = Field(pattern=r"^[0-9a-f]{16}\.png$")
    row: str = ""
    prompt: str = ""
    seed: int = 0
    want: int | None = Field(None, ge=1, le=5)

    @property
    def request(self) -> Request:
        return self.prompt, self.seed


class Study(BaseModel):
    """`low` and `high` say what 1 and 5 mean; a rater sees at most `each` pictures, and all checks besides.

    Whoever knows the token may rate. `width` is that of the pictures, in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str = Field(min_length=16)
    question: str = Field(min_length=1)
    low: str = Field(min_length=1)
    high: str = Field(min_length=1)
    created: str
    rows: tuple[str, ...] = Field(min_length=2)
    items: tuple[Item, ...] = Field(min_length=1)
    each: int = Field(ge=1)
    seed: int
    width: int = Field(ge=1)

    @cached_property
    def by_id(self) -> Mapping[int, Item]:
        return {item.id: item for item in self.items}

    @property
    def rated(self) -> list[Item]:
        return [item for item in self.items if item.want is None]

    @property
    def checks(self) -> list[Item]:
        return [item for item in self.items if item.want is not None]


def load(folder: Path) -> Study:
    """The study of a folder. Raises ExpungeError if there is none, or it is damaged."""
    file = folder / NAME
    try:
        found = parsed(file.read_bytes(), f"the study {file}")
        study = Study.model_validate({k: v for k, v in found.items() if k != SEAL})
    except FileNotFoundError as error:
        raise ExpungeError(f"no study in {folder}: expected {file}; make one by `expunge study new`") from error
    except (OSError, AttributeError, ValidationError) as error:
        raise ExpungeError(f"cannot read the study {file}: {_short(error)}; copy it again") from error
    if not unbroken(found):
        raise ExpungeError(f"the study {file} is damaged: it does not match its sha256; copy it again")
    return study


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _Shown(BaseModel):
    row: str
    prompt: str
    seed: int
    file: str | None


class _Audit(BaseModel):
    """What an audit says of its pictures."""

    rows: list[_Shown]
    erased: list[str]


def new(
    audits: Sequence[Path],
    out: Path,
    *,
    question: str | None = None,
    low: str = LOW,
    high: str = HIGH,
    concept: str | None = None,
    pictures: int = 20,
    each: int = 60,
    about: str = "erased",
    seed: int = 0,
) -> Study:
    """Leaves a study in `out`: as many `pictures` of every row of the audits, of the same prompts and seeds.

    `about` is one of ABOUT; a rater sees at most `each`. Without a question it is how much of the concept a picture
    shows, by default of the first that is erased. Raises ExpungeError if an audit says nothing of its pictures, two
    have different bases, there are fewer than two rows, no picture is left, or a study is in `out` already.
    """
    if pictures < 1 or each < 1:
        raise ExpungeError(f"a study needs pictures >= 1 of each row and each >= 1 for a rater, not {pictures}, {each}")
    if about not in ABOUT:
        raise unknown("kind of prompts", about, ABOUT)
    found = [_audit(folder) for folder in audits]
    erased = [*dict.fromkeys(name for audit in found for name in audit.erased)]
    texts = [_asked(question, concept or next(iter(erased), "")), low.strip(), high.strip()]
    if not all(texts):
        raise ExpungeError("the question, and what 1 and 5 mean, are texts; one of them is empty")
    rows = _rows(audits, found)
    requests = _chosen(rows, pictures, seed, lambda prompt: _fits(prompt, erased, about))
    if not requests:
        raise ExpungeError(
            f"no picture about {about!r} is there of all rows ({', '.join(rows)}); choose another --about of"
            f" {', '.join(ABOUT)}, or audit them on the same prompts"
        )
    check_writable(out / NAME)
    with locked(out, folder=True):
        return _made(out, rows, requests, texts, each, seed)


def _audit(folder: Path) -> _Audit:
    """What an audit left. Raises ExpungeError if it says nothing of its pictures."""
    file = folder / "pictures.json"
    again = f"run `expunge audit --out {folder}` again, which makes no picture twice"
    try:
        return _Audit.model_validate(parsed(file.read_bytes(), str(file)))
    except FileNotFoundError as error:
        raise ExpungeError(f"no list of an audit's pictures in {folder}: expected {file}; {again}") from error
    except (OSError, ValidationError) as error:
        raise ExpungeError(f"cannot read {file}: {_short(error)}; {again}") from error


def _asked(question: str | None, concept: str) -> str:
    """The question. Raises ExpungeError if there is neither one nor a concept."""
    if question is None and not concept.strip():
        raise ExpungeError("the audits erase nothing that the question could be about; give --concept or --question")
    return f"How much of “{concept}” does this picture show?" if question is None else question.strip()


def _fits(prompt: str, erased: Sequence[str], about: str) -> bool:
    """Whether the prompt is one that the study is about."""
    return about == "all" or any(says(prompt, name) for name in erased) == (about == "erased")


def _rows(folders: Sequence[Path], audits: Sequence[_Audit]) -> dict[str, Row]:
    """The pictures of each row, by a name that no other has; the base stands there once.

    Raises ExpungeError if there are fewer than two, an audit is given twice, or two have different bases.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ExpungeError("an audit is given twice; give each once")
    rows: dict[str, Row] = {}
    titles = _titles(folders, audits)
    for folder, audit in zip(folders, audits, strict=True):
        for shown in audit.rows:
            row = rows.setdefault(titles[folder, shown.row], {})
            if shown.file is not None:
                _add(row, (shown.prompt, shown.seed), folder / shown.file)
    if len(rows) < 2:
        raise ExpungeError(f"a study compares at least two rows, not {', '.join(rows) or 'none'}; give another audit")
    return rows


def _add(row: Row, request: Request, path: Path) -> None:
    """A picture's name tells what made it."""
    known = row.setdefault(request, path)
    if known.name != path.name and known.parent != path.parent:
        raise ExpungeError(f"{known} and {path} are of different base models or steps: audit both alike")


def _titles(folders: Sequence[Path], audits: Sequence[_Audit]) -> dict[tuple[Path, str], str]:
    """The rows' names; one that another audit has as well goes by its folder too."""
    names = [(folder, name) for folder, audit in zip(folders, audits, strict=True) for name in _names(audit)]
    count, homes = Counter(name for _, name in names), Counter(folder.resolve().name for folder in folders)

    def title(folder: Path, name: str) -> str:
        home = folder.resolve().name
        return name if name == BASE or count[name] == 1 else f"{home if homes[home] == 1 else folder}: {name}"

    return {(folder, name): title(folder, name) for folder, name in names}


def _names(audit: _Audit) -> list[str]:
    return [*dict.fromkeys(shown.row for shown in audit.rows)]


def _chosen(rows: Mapping[str, Row], n: int, seed: int, fits: Callable[[str], bool]) -> list[Request]:
    """At most n requests that every row shows: each prompt once before any is there twice."""
    first, *others = rows.values()
    shown = [request for request in first if fits(request[0]) and all(request in other for other in others)]
    shuffled = [shown[i] for i in numpy_rng(seed, "pictures of a study").permutation(len(shown))]
    times: Counter[str] = Counter()
    turns = []
    for prompt, _ in shuffled:
        turns.append(times[prompt])
        times[prompt] += 1
    return [shuffled[i] for i in sorted(range(len(shuffled)), key=turns.__getitem__)[:n]]


def _made(
    out: Path, rows: Mapping[str, Row], requests: Sequence[Request], texts: Sequence[str], each: int, seed: int
) -> Study:
    """The study's file comes last: what a kill leaves is none. Raises ExpungeError if there is one already."""
    if (out / NAME).exists():
        raise ExpungeError(f"there is a study in {out} already; choose another --out")
    rng = numpy_rng(seed, "design of a study")
    size = read(rows[BASE if BASE in rows else next(iter(rows))][requests[0]]).size
    items = _items(out / PICTURES, rows, requests, _wants(len(rows) * len(requests), each, rng), size, rng)
    question, low, high = texts
    study = Study(
        token=secrets.token_urlsafe(16), question=question, low=low, high=high,
        created=datetime.now(UTC).isoformat(timespec="seconds"), rows=tuple(rows), items=tuple(items), each=each,
        seed=seed, width=size[0],
    )  # fmt: skip
    database.prepare(out)
    write_json(out / NAME, sealed(study.model_dump(mode="json")))
    return study


def _wants(rated: int, each: int, rng: np.random.Generator) -> list[int]:
    """What the checks say: about one for each ten pictures that a rater sees, at least two."""
    values = rng.permutation(5) + 1
    return [int(values[i % 5]) for i in range(max(2, round(min(rated, each) / 10)))]


def _items(
    folder: Path,
    rows: Mapping[str, Row],
    requests: Sequence[Request],
    wants: Sequence[int],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> list[Item]:
    """All pictures, kept and numbered in random order, so that neither numbers nor dates tell the row."""
    asked: list[tuple[str, Request, int | None]] = [(row, request, None) for row in rows for request in requests]
    asked += [("", ("", 0), want) for want in wants]
    found = []
    for i, j in enumerate(rng.permutation(len(asked))):
        row, (prompt, seed), want = asked[j]
        picture = _bytes(rows[row][prompt, seed]) if want is None else paint.check(want, size)
        found.append(Item(id=i, file=_kept(picture, folder), row=row, prompt=prompt, seed=seed, want=want))
    return found


def _bytes(path: Path) -> bytes:
    """Raises ExpungeError if it is no picture."""
    read(path)
    return path.read_bytes()


def _kept(picture: bytes, folder: Path) -> str:
    name = f"{secrets.token_hex(8)}.png"
    with whole(folder / name) as temporary:
        temporary.write_bytes(picture)
    return name
