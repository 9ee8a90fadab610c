"""Every stable code in the sources: of errors (with their exit status), of the smoke test, and of findings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from smallq_deploy.base import errors
from tests.conftest import CHECKOUT

_CODE = re.compile(r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$")

# Helpers of operate/builder.py that make a BuildError.
_BUILD_FAILURES = ("_failure", "refuse")
# Codes whose exit status is not that of the class they are raised with, or that stand in a table.
SPECIAL = {
    "INTERRUPTED": {130},
    "DECLINED": {130},
    "NO_SUCH_OPTION": {2},
    "BAD_VALUE": {2},
    "USAGE": {2},
}


def _sources() -> Iterator[Path]:
    for path in sorted((CHECKOUT / "smallq_deploy").rglob("*.py")):
        if "native" not in path.parts:
            yield path


def _exit_status(name: str) -> int | None:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.SmallqError):
        return int(kind.exit_status)
    return None


def _codes_in(node: ast.expr) -> Iterator[str]:
    """String constants that look like a code, also in `a if b else c`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.match(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _codes_in(node.body)
        yield from _codes_in(node.orelse)


def error_codes() -> dict[str, set[int]]:
    """code -> exit statuses it is raised with (directly by a class of base/errors.py)."""
    found: dict[str, set[int]] = {}
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            status = 6 if name in _BUILD_FAILURES else _exit_status(name)
            if status is not None:
                for code in _codes_in(node.args[0]):
                    found.setdefault(code, set()).add(status)
    return {**found, **SPECIAL}


def finding_codes() -> set[str]:
    """Codes of findings (verify, repair)."""
    found: set[str] = set()
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in ("Finding", "_fail", "_warn")
                and node.args
            ):
                found.update(_codes_in(node.args[0]))
    return found


def smoke_codes() -> set[str]:
    """Reasons of a smoke test that did not pass."""
    from smallq_deploy.smoke import report

    return {value for value in vars(report).values() if isinstance(value, str) and value.startswith("SMOKE_")}
