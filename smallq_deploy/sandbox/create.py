"""Create and destroy a sandbox: an installation root as /usr/local/Ascend is, whose CANN is simulated."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import UsageError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import remove_tree, walk_tree
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.sandbox.facts import REMARK, soc_of
from smallq_deploy.sandbox.layout import Spec, create_driver, create_recipes, create_toolkit
from smallq_deploy.sandbox.native_cache import native_libraries

MARKER = ".smallq-sandbox.json"
_FIRST_NEW = CannVersion.parse("8.5.0")
_MAX_DEVICES = 64


@dataclass(frozen=True)
class SandboxInfo:
    """Where things are in a sandbox.

    ``home`` is what set_env.sh exports as ASCEND_HOME_PATH; ``opp`` is the real opp directory; ``recipes`` is the
    checkout that ``build --recipes`` takes; ``runnable`` is False for an architecture that is not the host's: such a
    sandbox has files only.
    """

    root: Path
    home: Path
    version: str
    layout: str
    arch: str
    set_env: Path
    recipes: Path
    opp: Path
    soc: str
    devices: int
    npu_smi: Path
    runnable: bool
    remark: str = REMARK


def create(
    dest: Path,
    *,
    cann_version: str = "8.5.0",
    soc: str = "Ascend910B3",
    devices: int = 8,
    layout: str = "auto",
    arch: str | None = None,
    events: Events | None = None,
) -> SandboxInfo:
    """Create a sandbox in ``dest``, which must not exist or be empty.

    ``layout`` is ``old`` (ascend-toolkit/<version>), ``new`` (cann-<version>) or ``auto`` (by version); ``arch`` is
    aarch64 or x86_64 (default: the host's). A failure leaves nothing behind. Raises UsageError for values that make no
    sense and for a directory that is not empty, BuildError where the runtime cannot be compiled, AccessError where
    files cannot be written.
    """
    root = Path(os.path.abspath(dest))
    spec = _checked(root, cann_version, soc, devices, layout, arch)
    runnable = spec.arch == os.uname().machine
    libraries = native_libraries(events) if runnable else None
    existed = root.exists()
    try:
        if root.is_symlink() or (existed and (not root.is_dir() or any(root.iterdir()))):
            raise UsageError(
                "SANDBOX_NOT_EMPTY",
                f"{root} exists and is not an empty directory",
                hint=f"choose another directory, or remove an old sandbox with: smallq-deploy sandbox destroy {root}",
            )
        root.mkdir(parents=True, exist_ok=True)
        # First of all, so that destroy can clear up after a create that was killed.
        names = ["ascend-toolkit", *(() if spec.is_old else ("cann", spec.real_home.name))]
        _write_marker(spec, [*names, "cann-recipes-infer", "driver", "firmware"], not existed)
        create_toolkit(spec, libraries)
        create_driver(spec)
        create_recipes(spec)
    except BaseException as error:
        if (root / MARKER).is_file():
            destroy(root)
        if isinstance(error, OSError):
            raise access_error(error, f"create the sandbox {root}") from error
        raise
    return SandboxInfo(
        root=root,
        home=spec.home,
        version=str(spec.version),
        layout=spec.layout,
        arch=spec.arch,
        set_env=spec.set_env,
        recipes=spec.recipes,
        opp=spec.opp,
        soc=spec.soc.name,
        devices=devices,
        npu_smi=root / "driver/tools/npu-smi",
        runnable=runnable,
    )


def _checked(root: Path, cann_version: str, soc: str, devices: int, layout: str, arch: str | None) -> Spec:
    version = CannVersion.parse(cann_version)
    if layout not in ("auto", "old", "new"):
        raise UsageError("BAD_LAYOUT", f"{layout!r} is no layout", hint="one of auto, old, new")
    if not 0 <= devices <= _MAX_DEVICES:
        raise UsageError("BAD_DEVICE_COUNT", f"{devices} devices cannot be simulated", hint=f"0 to {_MAX_DEVICES}")
    machine = arch or os.uname().machine
    if machine not in ("aarch64", "x86_64"):
        raise UsageError("BAD_ARCH", f"CANN does not exist for {machine!r}", hint="--arch aarch64 or --arch x86_64")
    if not re.fullmatch(r"[A-Za-z0-9_./+@%=,~-]+", str(root)):
        raise UsageError(
            "BAD_SANDBOX_PATH",
            f"a toolkit cannot live in {str(root)!r}: CANN's scripts split paths at blanks and colons",
            hint="choose a directory whose name has letters, digits and . _ - only",
        )
    chosen = layout if layout != "auto" else ("new" if version >= _FIRST_NEW else "old")
    return Spec(root, version, chosen, machine, soc_of(soc), devices)


def _write_marker(spec: Spec, entries: list[str], root_created: bool) -> None:
    record = {
        "schema_version": 1,
        "what": f"sandbox of smallq-deploy ({REMARK})",
        "cann_version": str(spec.version),
        "entries": sorted(entries),
        "root_created": root_created,
    }
    (spec.root / MARKER).write_text(json.dumps(record, indent=2) + "\n")


def _read_marker(root: Path) -> tuple[list[str], bool]:
    try:
        record = json.loads((root / MARKER).read_text())
        entries = [str(entry) for entry in record["entries"]]
        root_created = bool(record["root_created"])
    except FileNotFoundError:
        raise UsageError(
            "NOT_A_SANDBOX",
            f"{root} has no {MARKER}: it is not a sandbox of smallq-deploy, and nothing was removed",
            hint="give the directory that `smallq-deploy sandbox create` made",
        ) from None
    except OSError as error:
        raise access_error(error, f"read {root / MARKER}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "BAD_SANDBOX_MARKER",
            f"{root / MARKER} is damaged, and nothing was removed",
            hint="remove the directory by hand if you are sure what it is",
        ) from error
    if any(entry in ("", ".", "..") or "/" in entry for entry in entries):
        raise UsageError(
            "BAD_SANDBOX_MARKER",
            f"{root / MARKER} names something outside of the sandbox, and nothing was removed",
            hint="remove the directory by hand if you are sure what it is",
        )
    return entries, root_created


def destroy(dest: Path) -> int:
    """Remove the sandbox in ``dest`` and return how many files, links and directories went.

    Only what ``create`` made (and what was installed into it since) is removed; other files in ``dest`` stay, and so
    does ``dest`` then. Raises UsageError NOT_A_SANDBOX or BAD_SANDBOX_MARKER, AccessError.
    """
    root = Path(os.path.abspath(dest))
    entries, root_created = _read_marker(root)
    removed = 0
    try:
        for entry in entries:
            path = root / entry
            if not os.path.lexists(path):
                continue
            removed += 1
            if path.is_dir() and not path.is_symlink():
                removed += sum(1 for _ in walk_tree(path))
            remove_tree(path)
        # Last, so that a destroy that was killed can be run again.
        (root / MARKER).unlink()
        removed += 1
        if root_created and not any(root.iterdir()):
            root.rmdir()
            removed += 1
    except OSError as error:
        raise access_error(error, f"remove the sandbox {root}") from error
    return removed


__all__ = ["MARKER", "SandboxInfo", "create", "destroy"]
