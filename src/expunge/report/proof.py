"""What an audit's numbers rest on, as names and hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def proof(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of what scores.json says; the last is all of that but the numbers."""
    everything = {**about, "scores": "above", "between": "above"}
    return [*_asked(about), *_rows(about), *_looked(about), ("everything", json.dumps(everything, indent=1))]


def _asked(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, asked = about["model"], about["protocol"]
    yield "model", f"{model['name']}, denoiser {model['hash']}, all parts {model['signature']}"
    yield "prompts", f"{asked['name']} {asked['version']}, {about['pictures']} of them, {about['requests']}"


def _rows(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for row in about["rows"]:
        for edit in row["edits"]:
            yield f"edit of {row['name']}", f"{edit['hash']}, scale {edit['scale']:g}"
        for rule in row["guidance"]:
            yield f"guidance of {row['name']}", json.dumps(rule)
        if row["filter"]:
            yield f"filter of {row['name']}", json.dumps(row["filter"])
        if row["model"]:
            yield f"model of {row['name']}", f"{row['model']['hash']}, all parts {row['model']['signature']}"


def _looked(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, judge in about["judges"].items():
        yield f"judge {name}", f"{judge['kind']} {judge['options']} {judge['version']}"
    for metric in about["metrics"]:
        by = metric["by"]
        yield f"metric {metric['kind']}", f"{by['kind']} {by['options']} {by['version']}" if by else ""
    yield "versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    yield "date", about["date"]
