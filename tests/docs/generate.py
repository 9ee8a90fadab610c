"""The generated parts of docs/reference. ``python -m tests.docs.generate`` writes them; a test compares them.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from smallq_deploy.base.errors import EXIT_MEANINGS
from smallq_deploy.cli.main import _COMMANDS
from tests.conftest import CHECKOUT

DOCS = CHECKOUT / "docs"
_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, in the order of the help."""
    for name, (module, attribute, _) in _COMMANDS.items():
        found = getattr(importlib.import_module(f"smallq_deploy.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        if isinstance(found, click.Group):
            for inner, command in found.commands.items():
                yield f"{name} {inner}", command
        else:
            yield name, found


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def _option_rows(command: click.Command) -> Iterator[tuple[str, str]]:
    context = click.Context(command)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            yield record[0].replace("|", "\\|"), re.sub(r" +", " ", record[1]).replace("|", "\\|")


COMMON = {
    "as_json",
    "quiet",
    "verbose",
    "log_file",
    "no_color",
    "cann",
    "opp",
    "vendor",
    "release",
    "dry_run",
    "yes",
    "wait",
}


def command_pages() -> str:
    """One section a command: what it does, its own options, an example."""
    parts: list[str] = []
    for name, command in commands():
        context = click.Context(command, info_name=f"smallq-deploy {name}")
        usage = " ".join([f"smallq-deploy {name}", *command.collect_usage_pieces(context)])
        own = [
            f"| `{option}` | {text} |"
            for parameter, (option, text) in zip(
                [item for item in command.params if isinstance(item, click.Option)], _option_rows(command), strict=True
            )
            if parameter.name not in COMMON
        ]
        shared = [item.opts[0] for item in command.params if item.name in COMMON and item.opts[0].startswith("--")]
        example = (command.epilog or "").partition("Example:\n  ")[2]
        parts += [f"### {name}", "", "```", usage, "```", "", _help(command), ""]
        if own:
            parts += ["| option | meaning |", "|---|---|", *own, ""]
        parts += ["Common options: " + " ".join(f"`{item}`" for item in shared), "", f"Example: `{example}`", ""]
    return "\n".join(parts)


def common_options() -> str:
    """The shared options, once."""
    seen: dict[str, str] = {}
    for _, command in commands():
        options = [item for item in command.params if isinstance(item, click.Option)]
        for parameter, (option, text) in zip(options, _option_rows(command), strict=True):
            if parameter.name in COMMON:
                seen.setdefault(option, text)
    return "\n".join(["| option | meaning |", "|---|---|", *(f"| `{o}` | {t} |" for o, t in seen.items()), ""])


def exit_table() -> str:
    """The exit statuses, from the one enum."""
    rows = [f"| {int(status)} | {status.name} | {meaning} |" for status, meaning in EXIT_MEANINGS.items()]
    return "\n".join(["| status | name | meaning |", "|---|---|---|", *rows, ""])


def variables() -> str:
    """SMALLQ_DEPLOY_* and the options they stand for."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
                long_name = next(item for item in parameter.opts if item.startswith("--"))
                found.setdefault(parameter.envvar, (long_name, []))[1].append(name)
    everywhere = len(list(commands()))
    rows = []
    for variable, (option, names) in sorted(found.items()):
        where = "every command" if len(names) == everywhere else ", ".join(f"`{name}`" for name in names)
        rows.append(f"| `{variable}` | `{option}` | {where} |")
    return "\n".join(["| variable | option | commands |", "|---|---|---|", *rows, ""])


PARTS: dict[str, Callable[[], str]] = {
    "commands": command_pages,
    "common-options": common_options,
    "exit-statuses": exit_table,
    "variables": variables,
}


def rewritten(text: str) -> str:
    """``text`` with every generated part made anew."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}{found[3]}", text)


def pages() -> list[Path]:
    """Pages with generated parts."""
    return [path for path in sorted(DOCS.rglob("*.md")) if _PART.search(path.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
