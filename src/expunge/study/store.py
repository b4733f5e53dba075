"""Store: who rates, and what they answered."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import ExpungeError
from . import database
from .design import load
from .order import order

RATINGS = range(1, 6)


class Unknown(ExpungeError):
    """A rater or an item that is not there."""


class Answer(NamedTuple):
    """One rating; `shown` and `answered` are in milliseconds since 1970, `shown` None if nobody told."""

    rater: str
    item: int
    rating: int
    shown: int | None
    answered: int


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Answers:
    """The answers to the study of a folder. Threads and processes may ask at once.

    Raises ExpungeError if there is no study; every method does if the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.study = folder, load(folder)

    def begin(self) -> str:
        """A new rater, whose name nobody can guess."""
        rater = secrets.token_urlsafe(12)
        with database.writing(self.folder) as connection:
            begun = datetime.now(UTC).isoformat(timespec="seconds")
            connection.execute("INSERT INTO raters VALUES (?, ?)", (rater, begun))
        return rater

    def answer(self, rater: str, item: int, rating: int, shown: int | None = None) -> None:
        """Keeps an answer whole or not at all; the last one to an item counts.

        Raises Unknown if there is no such rater, or the item is none of theirs; ExpungeError unless 1 ≤ rating ≤ 5.
        """
        if rating not in RATINGS:
            raise ExpungeError(f"a rating is 1, 2, 3, 4 or 5, not {rating}")
        answered = now()
        values = (rater, item, rating, None if shown is None else min(shown, answered), answered)
        with database.writing(self.folder) as connection:
            if not connection.execute("SELECT 1 FROM raters WHERE id = ?", (rater,)).fetchone():
                raise _nobody()
            if item not in order(self.study, rater):
                raise Unknown(f"there is no picture {item} for this rater; open the study again")
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)

    def answered(self, rater: str) -> dict[int, int]:
        """The rater's ratings by item. Raises Unknown if there is no such rater."""
        with database.reading(self.folder) as connection:
            found = dict(connection.execute("SELECT item, rating FROM answers WHERE rater = ?", (rater,)).fetchall())
            if not found and not connection.execute("SELECT 1 FROM raters WHERE id = ?", (rater,)).fetchone():
                raise _nobody()
        return found

    def raters(self) -> list[str]:
        """All that began, first come first."""
        with database.reading(self.folder) as connection:
            return [rater for (rater,) in connection.execute("SELECT id FROM raters ORDER BY rowid")]

    def rows(self) -> Sequence[Answer]:
        """All answers, in the order in which they were given."""
        with database.reading(self.folder) as connection:
            return [Answer(*row) for row in connection.execute("SELECT * FROM answers ORDER BY answered_at, rowid")]


def _nobody() -> Unknown:
    return Unknown("there is no such rater; open the study's own address, and begin there")
