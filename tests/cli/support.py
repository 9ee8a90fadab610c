"""Run the command line as a user does, and hold its JSON against the schemas of the package."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

from smallq_deploy.cli.envelope import schema_path
from tests.conftest import CHECKOUT


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    @property
    def codes(self) -> list[str]:
        return [error["code"] for error in self.document["errors"]]


def smallq(
    *arguments: str | os.PathLike[str],
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    prefix: Sequence[str] = (),
) -> Ran:
    """``smallq-deploy`` with ``arguments`` in a process of its own; no traceback may appear.

    ``prefix`` is a command that ends with ``exec "$@"``, such as one that mounts something first.
    """
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "smallq_deploy", *(os.fspath(argument) for argument in arguments)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **(env or {})},
        cwd=cwd or CHECKOUT,
        capture_output=True,
        text=True,
        timeout=280,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@functools.cache
def _registry() -> Registry[Any]:
    found: Registry[Any] = Registry()
    for path in schema_path().parent.glob("*.json"):
        schema = json.loads(path.read_text())
        found = found.with_resource(schema["$id"], Resource.from_contents(schema))
    return found


def validate(document: dict[str, Any], name: str) -> None:
    """Raises jsonschema.ValidationError. ``name`` is '' for the envelope, else a command."""
    schema = json.loads(schema_path(name).read_text())
    jsonschema.Draft202012Validator(schema, registry=_registry()).validate(document)


def checked(ran: Ran, command: str) -> dict[str, Any]:
    """The envelope of ``ran``, valid in every part; returns its data."""
    document = ran.document
    validate(document, "")
    assert document["command"] == command
    assert document["exit_status"] == ran.status
    data = document["data"]
    if data or ran.status == 0:
        validate(data, command)
    assert isinstance(data, dict)
    return data


def mounting(script: str) -> list[str]:
    """A prefix that runs ``script`` in a mount namespace of its own."""
    return ["unshare", "-rm", "bash", "-ec", script + '; exec "$@"', "-"]


@functools.cache
def may_mount() -> bool:
    """True where an unprivileged mount namespace can be made (containers may forbid it)."""
    try:
        return subprocess.run([*mounting("mount -t tmpfs none /mnt"), "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
