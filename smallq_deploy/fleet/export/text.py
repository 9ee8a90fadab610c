"""Values into YAML and shell text, so that each is read there as the text it was."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

# Any other text is quoted: `no`, `1e3`, `0123` and `2026-01-01` are no text to one or another reader of YAML.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_TEMPLATE = re.compile(r"{[{%#]")


class Unsafe(str):
    """Text that Ansible must not take for a template."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Items of a list stand deeper than its key, as people write them."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str, tag: str = "tag:yaml.org,2002:str") -> yaml.ScalarNode:
    if "\n" in value and not _TEMPLATE.search(value):
        return dumper.represent_scalar(tag, value, style="|")
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return dumper.represent_scalar(tag, value, style=None if plain else '"')


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value), style='"'))


def dump(*documents: Any) -> str:
    """YAML text of one or more documents, keys in the order they were put in."""
    options: dict[str, Any] = {"sort_keys": False, "width": 120, "allow_unicode": True, "explicit_start": True}
    text: str = yaml.dump_all(documents, Dumper=_Dumper, **options)
    return text


def for_ansible(value: str) -> str:
    """``value``, marked where Ansible would find a template in it."""
    return Unsafe(value) if _TEMPLATE.search(value) else value


class _Template(string.Template):
    delimiter = "%%"


def fill(name: str, values: Mapping[str, str]) -> str:
    """The file ``files/NAME`` of this package with ``%%{key}`` replaced; values are quoted already."""
    return _Template(static(name)).substitute(values)


def static(name: str) -> str:
    """The file ``files/NAME`` of this package."""
    return resources.files(__package__).joinpath("files", *name.split("/")).read_text(encoding="utf-8")
