"""Study: people rate the pictures of audits, blind; make one, and see what they said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import AsJson, Seed, show, study, table

if TYPE_CHECKING:
    from ..study.results import Results


@study.command()
def new(
    audits: Annotated[list[Path], typer.Argument(help="folders of audits", metavar="AUDIT...")],
    out: Annotated[Path, typer.Option(help="folder of the study")] = Path("study"),
    question: Annotated[str | None, typer.Option(help="what raters are asked of each picture")] = None,
    low: Annotated[str | None, typer.Option(help="what 1 means")] = None,
    high: Annotated[str | None, typer.Option(help="what 5 means")] = None,
    concept: Annotated[str | None, typer.Option(help="what the question is about, if not what is erased")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="pictures of each row, of the same prompts and seeds")] = 20,
    each: Annotated[int, typer.Option(min=1, help="pictures that a rater sees at most")] = 60,
    about: Annotated[str, typer.Option(help="erased: prompts that say what is erased; others; or all")] = "erased",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Make a study of audits' pictures: raters do not learn which row made a picture."""
    from ..study import design

    made = design.new(
        audits, out, question=question, low=design.LOW if low is None else low,
        high=design.HIGH if high is None else high, concept=concept, pictures=pictures, each=each, about=about,
        seed=seed,
    )  # fmt: skip
    count = len(made.rated) // len(made.rows)
    if as_json:
        about_it = {"question": made.question, "rows": made.rows, "pictures": count, "checks": len(made.checks)}
        show({"folder": str(out), "token": made.token, **about_it})
    else:
        print(f"{out}: {count} pictures of each of {len(made.rows)} rows ({', '.join(made.rows)})")
        print(f"`expunge serve --study {out}` shows it to raters")


@study.command("show")
def show_results(
    folder: Annotated[Path, typer.Argument(help="folder of a study", metavar="DIR")],
    out: Annotated[Path | None, typer.Option(help="folder of results.svg, .csv and .json, if another")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what raters said: a table, a plot, and all answers as CSV."""
    from ..files import check_writable, write_json, write_text
    from ..report.opinions import opinions
    from ..study.export import export
    from ..study.results import results
    from ..study.store import Answers

    files = [(out or folder) / f"results.{kind}" for kind in ("svg", "csv", "json")]
    check_writable(files[0])
    answers = Answers(folder)
    found = results(answers.study, answers)
    write_text(files[0], opinions(found).replace("<svg ", '<svg style="background: white" ', 1))
    write_text(files[1], export(answers))
    write_json(files[2], found.row())
    if as_json:
        show({**found.row(), "files": [*map(str, files)]})
    else:
        tell(found)
        print("\n".join(map(str, files)))


def tell(found: Results) -> None:
    """The table of rows, and the raters."""
    rows = [(r.row, r, r.answers, r.raters, r.against()) for r in found.rows]
    head = ("row", "mean", "answers", "raters", "against base")
    table(f"{found.question} (1: {found.low}, 5: {found.high}; 95% intervals)", head, rows)
    agree = "not known yet" if found.alpha is None else f"{found.alpha:.3f}"
    print(f"raters: {found.begun} began, {found.finished} finished, {found.excluded} failed a check and are left out")
    print(f"agreement (Krippendorff's alpha): {agree}")
