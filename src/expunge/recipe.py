"""Recipe: a run as data. Named presets live in recipes/*.yaml; a user's own file has the same form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .concept import Concept
from .errors import ExpungeError, unknown
from .files import home
from .yaml import parse

M = TypeVar("M", bound=BaseModel)


class Recipe(BaseModel):
    """What to erase, from what, and how. Concepts, model and seed may be left to the caller."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = Field("", description="one line for people")
    good: str = Field("", description="what it is good for and where it is weak, for those who choose one")
    source: str = Field("", description="paper or code that the values come from")
    method: str = Field("esd", description="name of a method")
    options: dict[str, Any] = Field(default_factory=dict, description="fields of the method")
    concepts: tuple[Concept, ...] = Field((), description="what to erase")
    model: str = Field("smallworld", description="smallworld, a diffusers folder, or a hub id")
    seed: int = Field(0, ge=0, description="seed of all random numbers")


def preset_names() -> list[str]:
    return sorted(f.name.removesuffix(".yaml") for f in files(f"{__package__}.recipes").iterdir() if _is_recipe(f.name))


def _is_recipe(name: str) -> bool:
    return name.endswith(".yaml")


def preset(name: str) -> Recipe:
    """A shipped recipe. Raises ExpungeError, with the nearest name, if there is none."""
    if name not in preset_names():
        raise unknown("preset", name, preset_names())
    text = files(f"{__package__}.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return recipe(parse(text, name), name)


def read(path: Path) -> Recipe:
    """A recipe from a user's YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"cannot read recipe {path}: {error}") from error
    return recipe(parse(text, str(path)), str(path))


def recipe(value: Any, where: str) -> Recipe:
    if not isinstance(value, Mapping):
        raise ExpungeError(f"{where} should be a mapping such as 'method: esd', not {type(value).__name__}")
    concepts = value.get("concepts") or []
    if isinstance(concepts, list):
        concepts = [Concept.of(c) if isinstance(c, str) else c for c in concepts]
    return validated(Recipe, {**value, "concepts": concepts}, where)


def mapping(name: str, folder: Path, what: str) -> dict[str, Any]:
    """What a YAML file of the folder holds, by its name there, or a user's by its path.

    Raises ExpungeError, with the nearest name, if there is none, or for what is no mapping.
    """
    path = home(name if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml")
    if not path.is_file():
        raise unknown(what, name, sorted(p.stem for p in folder.glob("*.yaml")))
    try:
        value = parse(path.read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"cannot read {what} {path}: {error}") from error
    if not isinstance(value, dict):
        raise ExpungeError(f"{name} should be a mapping such as 'about: …', not {type(value).__name__}")
    return value


def validated(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """`model(**values)` with pydantic's complaint as one line; a misspelled key gets the nearest one."""
    for key, value in values.items():
        if key not in model.model_fields:
            raise unknown(f"key in {where}:", key, model.model_fields)
        if isinstance(value, bool) and model.model_fields[key].annotation is not bool:
            raise ExpungeError(f"{key} in {where} is no switch: give a value, not {str(value).lower()}")
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"]) or "options"
        got = "" if not first["loc"] else f", not {first['input']!r}"
        raise ExpungeError(f"{place} in {where}: {first['msg'].removeprefix('Value error, ')}{got}") from error


def called(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """ "NAME,key=value,key=[1, 2]" as the name and a dictionary."""
    name, *changes = re.split(r",(?![^\[]*\])", text)
    return name, assignments(changes, where)


def assignments(pairs: Sequence[str], where: str = "--set") -> dict[str, Any]:
    """`["eta=3", "keep=[a cat]"]` as a dictionary; values are YAML."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ExpungeError(f"{where} takes key=value, not {pair!r}")
        values[key.strip()] = parse(text, f"{where} {key}")
    return values
