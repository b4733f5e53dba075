"""Database: a study's answers in SQLite, one transaction each, on the disk before anyone is told that they are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import ExpungeError

NAME = "answers.sqlite"
PATIENCE = 30.0
"""Seconds in which others may be writing."""

TABLES = (
    "CREATE TABLE IF NOT EXISTS raters (id TEXT PRIMARY KEY, begun TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS answers (
        rater TEXT NOT NULL REFERENCES raters (id), item INTEGER NOT NULL,
        rating INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
        shown_at INTEGER, answered_at INTEGER NOT NULL, PRIMARY KEY (rater, item)
    )""",
)


def prepare(folder: Path) -> None:
    """Makes the tables. Raises ExpungeError if the answers of another study are there, or nothing can be written."""
    with _connected(folder, "rwc") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for table in TABLES:
            connection.execute(table)
        if connection.execute("SELECT count(*) FROM raters").fetchone()[0]:
            raise ExpungeError(f"the answers to another study are in {folder / NAME}; choose another --out")


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection. Raises ExpungeError if there are no tables, or they cannot be read."""
    with _connected(folder, "rw") as connection:
        yield connection


@contextmanager
def writing(folder: Path) -> Iterator[sqlite3.Connection]:
    """A transaction: all that is written in the block is kept, or none of it. Raises ExpungeError as `reading` does."""
    with _connected(folder, "rw") as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def _connected(folder: Path, mode: str) -> Iterator[sqlite3.Connection]:
    file = folder / NAME
    address = f"{file.absolute().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(address, timeout=PATIENCE, isolation_level=None, uri=True)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
    except sqlite3.Error as error:
        raise ExpungeError(
            f"cannot use {file}: {error}; expected the study's file of answers, on a disk that can be written"
        ) from error
