"""Strict YAML: numbers such as 1e-5 are numbers, only true and false are booleans, duplicate keys are errors.

What it gives is what JSON could hold: no dates, bytes or sets, no infinite numbers, and no aliases, by which a short
text can be a value without end.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from .errors import ExpungeError


class _Strict(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for own, _ in node.value:
            key = self.construct_object(own, deep=True)
            if key in seen:
                said = f"the key {key!r} stands twice, keep one of them"
                raise ConstructorError(None, None, said, own.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "aliases are not read, write it out", mark)
        return super().compose_node(parent, index)


_RULES = {
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|false)$"), "tf"),
    "tag:yaml.org,2002:null": (re.compile(r"^(?:null|none|~|)$"), "n~"),
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "tag:yaml.org,2002:float": (
        re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
        "-+.0123456789",
    ),
}
_Strict.yaml_implicit_resolvers = {}
for _tag, (_rule, _first) in _RULES.items():
    _Strict.add_implicit_resolver(_tag, _rule, [*_first, ""] if "null" in _tag else list(_first))


def _whole(_: Any, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _real(_: Any, node: yaml.ScalarNode) -> float:
    found = float(node.value)
    if not math.isfinite(found):
        raise ValueError(f"{node.value} is not a finite number")
    return found


_CORE = (None, *(f"tag:yaml.org,2002:{tag}" for tag in ("bool", "null", "str", "seq", "map")))
_Strict.yaml_constructors = {tag: _Strict.yaml_constructors[tag] for tag in _CORE}
_Strict.yaml_constructors |= {"tag:yaml.org,2002:int": _whole, "tag:yaml.org,2002:float": _real}


_FAILURES = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What the parser raises; all but the first for values that do not fit an explicit tag, or endless nesting."""


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    return " ".join(str(error).split())


def parse(text: str, where: str = "input") -> Any:
    """The value of a YAML text. Raises ExpungeError, one line, if it is not YAML, or holds half a character."""
    try:
        value = yaml.load(text, Loader=_Strict)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except _FAILURES as error:
        raise ExpungeError(f"{where} is not YAML: {_reason(error)}") from error
