"""Strict YAML: numbers such as 1e-5 are numbers, only true and false are booleans, duplicate keys are errors."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from .errors import ExpungeError


class _Strict(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [i for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            key, mark = keys[twice[0]], node.value[twice[0]][0].start_mark
            raise ConstructorError(None, None, f"the key {key!r} stands twice, keep one of them", mark)
        return super().construct_mapping(node, deep)


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


_FAILURES = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What the parser raises; all but the first for values that do not fit an explicit tag, or endless nesting."""


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    return " ".join(str(error).split())


def parse(text: str, where: str = "input") -> Any:
    """The value of a YAML text. Raises ExpungeError, one line, if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Strict)
    except _FAILURES as error:
        raise ExpungeError(f"{where} is not YAML: {_reason(error)}") from error
