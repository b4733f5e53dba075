"""One exception family. Every message says what was wrong, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ExpungeError(Exception):
    """Bad input or a state that the user can mend; the command line prints it as one line and exits with 2."""


class Pickled(ExpungeError):
    """A file is a pickle, which can run code when it is opened."""


class Interrupted(ExpungeError):
    """A signal ended the run after its snapshot was written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unknown(what: str, name: object, known: Iterable[str]) -> ExpungeError:
    """The error for a name that is not among `known`; suggests the nearest one."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(names)}"
    return ExpungeError(f"unknown {what} {str(name)!r}; {hint}")
