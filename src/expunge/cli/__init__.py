"""The command line: parse, call, print. Every error is one line on stderr and exit code 2."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from ..errors import ExpungeError, Interrupted
from ..heap import keep_freed
from . import erasing, files, judging, listing, looking, serving, studying, sweeping, worlds  # noqa: F401, whose commands register themselves
from .app import GIVEN, app, helping


def readable(arguments: Sequence[str]) -> list[str]:
    """The arguments. Raises ExpungeError for bytes that are no text."""
    strange = [text for text in arguments if re.search("[\ud800-\udfff]", text)]
    if strange:
        raise ExpungeError(f"{strange[0]!a} is not UTF-8; write it so")
    return [*arguments]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0, 2 for bad input, 130 or 143 after a signal."""
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    keep_freed()
    try:
        if helping():
            sys.stdout = io.StringIO()  # the first process prints
        GIVEN[:] = given = readable(sys.argv[1:] if arguments is None else arguments)
        code = typer.main.get_command(app).main(given, "expunge", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Interrupted as error:
        complain(f"expunge: {error}")
        sys.exit(error.exit_code)
    except ExpungeError as error:
        complain(f"expunge: {' '.join(str(error).split())}")
        sys.exit(2)
    except usage_error as error:
        told = error.format_message()  # type: ignore[attr-defined]
        help_asked = told.startswith("Usage:")  # no arguments at all
        complain(told if help_asked else f"expunge: {' '.join(told.split()).rstrip('.')}; see `expunge --help`")
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        from ..training import out_of_memory

        if not out_of_memory(error):
            raise
        complain(
            f"expunge: out of memory: {' '.join(str(error).split())[:200]}; use a smaller batch, or --precision bf16"
        )
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        complain("expunge: stopped")
        sys.exit(130)


def complain(text: str) -> None:
    """An error, of whichever process."""
    print(text, file=sys.stderr)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit
