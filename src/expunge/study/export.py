"""Export: all answers as CSV, for other programs; raters are numbers."""

from __future__ import annotations

import csv
import io

from .results import failed
from .store import Answers

HEAD = ("rater", "passed", "row", "prompt", "seed", "rating", "seconds", "check")


def export(answers: Answers) -> str:
    """A line for each answer, by rater and then by when it was given; of a check, row, prompt and seed are empty."""
    study, given = answers.study, answers.rows()
    number = {rater: i + 1 for i, rater in enumerate(answers.raters())}
    out = failed(study, given)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEAD)
    for a in sorted(given, key=lambda a: number[a.rater]):
        item = study.by_id[a.item]
        about = (item.row, item.prompt, item.seed) if item.want is None else ("", "", "")
        seconds = "" if a.shown is None else f"{(a.answered - a.shown) / 1000:.3f}"
        writer.writerow((number[a.rater], a.rater not in out, *about, a.rating, seconds, item.want is not None))
    return file.getvalue()
