"""Strict YAML: numbers such as 1e-5 are numbers, only true and false are booleans, duplicate keys are errors."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .errors import ExpungeError


class _Strict(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise ExpungeError(f"the key {twice[0]!r} stands twice{node.start_mark}; keep one of them")
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


def parse(text: str, where: str = "input") -> Any:
    """The value of a YAML text. Raises ExpungeError, one line, if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Strict)
    except yaml.YAMLError as error:
        raise ExpungeError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
