"""Running a package's own install script in a staging directory, where it can do no harm (cann.md 13 item 4)."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from smallq_deploy.base import proc
from smallq_deploy.base.errors import InstallError, PackageError, SmallqError, UsageError, access_error
from smallq_deploy.base.fsops import remove_tree, sha256_file, walk_tree
from smallq_deploy.package.runfile import RunFile
from smallq_deploy.package.vendortree import SET_ENV

# What an install script adds by itself; the uninstall script comes with variant D.
_ADDED = (SET_ENV, "scripts/uninstall.sh")


def install_by_script(run: RunFile, staging: Path, *, timeout: float = 600.0) -> Path:
    """Let the package's script install into ``staging``; returns the vendor directory it made.

    The script sees a copy of the package (verified, in a path without spaces), a clean environment without any ASCEND
    variable, private HOME and TMPDIR, no input, umask 022 and ``--quiet --nox11 --install-path``. Believed only when it
    ends with 0, prints SUCCESS as its last line and has left exactly the package's files. ``staging`` is made when it
    is missing; after a failure nothing is left in it. ``timeout`` in seconds.
    Raises InstallError INSTALLER_FAILED, INSTALLER_INCOMPLETE; PackageError CHANGED; UsageError BAD_PATH.
    """
    if any(char.isspace() for char in str(staging)):
        raise UsageError(
            "BAD_PATH",
            f"{staging} contains a space; CANN's install scripts then ignore --install-path and install elsewhere",
            hint="install without --use-installer",
        )
    package, home, temporary, root = (staging / name for name in ("package.run", "home", "tmp", "root"))
    try:
        staging.mkdir(mode=0o755, parents=True, exist_ok=True)
        for directory in (home, temporary, root):
            directory.mkdir(mode=0o700)
        shutil.copyfile(run.path, package)
        if sha256_file(package) != run.file_sha256:
            raise PackageError(
                "CHANGED", f"{run.path} was replaced while it was being installed", hint="run the command again"
            )
        done = proc.run(
            [
                "bash",
                "-c",
                'umask 022; exec bash "$@"',
                "-",
                package,
                "--quiet",
                "--nox11",
                f"--install-path={root}",
            ],
            env={
                "HOME": str(home),
                "TMPDIR": str(temporary),
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C",
            },
            cwd=temporary,
            timeout=timeout,
        )
        _check_outcome(run, done)
        vendor = root / "vendors" / run.vendor
        _check_tree(run, vendor)
    except BaseException as error:
        for path in (package, home, temporary, root):
            remove_tree(path)
        if isinstance(error, OSError):
            raise access_error(error, f"run the installer of {run.path} in {staging}") from error
        raise
    for path in (package, home, temporary):
        remove_tree(path)
    return vendor


def _check_outcome(run: RunFile, done: proc.Completed) -> None:
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.ok and lines and lines[-1] == "SUCCESS":
        return
    why = done.describe() if not done.ok else "ended with exit status 0 but did not print SUCCESS"
    raise InstallError(
        "INSTALLER_FAILED",
        f"the install script of {run.path.name} {why}",
        hint="install without --use-installer: the files are then taken from the package directly",
        details={"output": done.tail(), "variant": run.variant},
    )


def _check_tree(run: RunFile, vendor: Path) -> None:
    """The script must have left every file of the package, whole, and nothing else but what scripts add."""
    wanted = {member.path: member for member in run.vendor_members if member.kind != "dir"}
    found: dict[str, os.stat_result] = {}
    if vendor.is_dir():
        found = {name: info for name, info in walk_tree(vendor) if not stat.S_ISDIR(info.st_mode)}
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [
        f"{name} has {found[name].st_size} of {member.size} bytes"
        for name, member in wanted.items()
        if member.kind == "file" and name in found and found[name].st_size != member.size
    ]
    problems += [f"{name} is not from the package" for name in found if name not in wanted and name not in _ADDED]
    if problems:
        raise _incomplete(run, problems)


def _incomplete(run: RunFile, problems: list[str]) -> SmallqError:
    return InstallError(
        "INSTALLER_INCOMPLETE",
        f"the install script of {run.path.name} reported success but did not install the package: {problems[0]}",
        hint="install without --use-installer",
        details={"problems": problems[:20]},
    )
