"""The options about signatures, and the check that comes before a package is parsed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smallq_deploy.base.errors import PackageError
from smallq_deploy.cli.options import PATH, Call, option

if TYPE_CHECKING:
    from smallq_deploy.package.runfile import RunFile
    from smallq_deploy.package.signature import Checked

signers_option = option(
    "--allowed-signers",
    type=PATH,
    metavar="FILE",
    help="Whose signatures count (ssh-keygen's format). Default: ~/.config/smallq-deploy/allowed_signers, "
    "then /etc/smallq-deploy/allowed_signers.",
)
require_option = option("--require-signature", is_flag=True, help="Refuse a package without a good signature.")


@dataclass
class Signing:
    """What the command line asks for: whose signatures count (None: the default), and whether one is needed.

    ``found`` is what was checked last: of the package, or of the bundle it came in.
    """

    signers: Path | None = None
    required: bool = False
    found: Checked | None = None

    def check(self, call: Call, path: Path) -> Checked:
        """Check the signature of a file. Raises what check_signature raises."""
        from smallq_deploy.package.signature import Checked, check_signature, signature_of

        if not self.required and not os.path.lexists(signature_of(path)):
            self.found = Checked("unsigned")
            return self.found
        checked = check_signature(path, signers=self.signers, required=self.required)
        self.found = checked
        if checked.state == "good":
            call.events.note(f"{path.name} is signed by {checked.signer} ({checked.key})")
        elif checked.state == "unchecked":
            name = signature_of(path).name
            call.events.warning(f"{name} was not checked: nothing says whom to believe (--allowed-signers)")
        return checked

    def read_run(self, call: Call, path: Path) -> RunFile:
        """Check the signature of a package, then read it; what was read is what was signed.

        Raises what check_signature and read_run raise, and PackageError PACKAGE_CHANGED.
        """
        from smallq_deploy.package.runfile import read_run

        checked = self.check(call, path)
        run = read_run(path)
        require_same(path, checked, run.file_sha256)
        return run


def require_same(path: Path, checked: Checked, digest: str) -> None:
    """Is what was read what was signed? Raises PackageError PACKAGE_CHANGED."""
    if checked.state == "good" and digest != checked.sha256:
        raise PackageError(
            "PACKAGE_CHANGED", f"{path} was written to after its signature was checked", hint="run the command again"
        )
