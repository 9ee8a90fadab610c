"""Detached signatures, made and checked by ``ssh-keygen -Y`` (namespace ``smallq-deploy``).

A signature is checked before a package is parsed. The digest of exactly the bytes that ssh-keygen saw is part of the
answer, so that whoever reads the file afterwards can tell that it is still the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import PackageError, UsageError, access_error
from smallq_deploy.base.proc import Completed, run

NAMESPACE = "smallq-deploy"
SUFFIX = ".sig"
MAX_SIGNATURE = 64 * 1024  # bytes; a signature has about 300
_SIGNERS_NAME = "smallq-deploy/allowed_signers"
REVOKED = "revoked_keys"  # beside the allowed-signers file: public keys, or a list of ssh-keygen -k
_TIMEOUT = 600.0
_GOOD = re.compile(r'^Good "[^"]*" signature for (?P<who>.*) with (?P<key>\S+ key \S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Checked:
    """``state``: good, unsigned (there is no signature) or unchecked (nothing says whom to believe).

    ``sha256`` is the digest of the bytes that were checked; empty unless good.
    """

    state: str
    signer: str = ""
    key: str = ""
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"state": self.state, "signer": self.signer, "key": self.key}


def signature_of(path: Path) -> Path:
    """Where the detached signature of a file lies: beside it, with ``.sig`` behind the whole name."""
    return path.with_name(path.name + SUFFIX)


def default_signers(environ: Mapping[str, str] | None = None) -> Path | None:
    """The user's allowed-signers file, else the machine's, else None."""
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    places = (Path(home, _SIGNERS_NAME), Path("/etc", _SIGNERS_NAME))
    return next((place for place in places if place.is_file()), None)


def check_signature(
    path: Path, *, signature: Path | None = None, signers: Path | None = None, required: bool = False, name: str = ""
) -> Checked:
    """Check the signature of ``path``: ``signature``, else the file beside it; against ``signers``, else the default.

    A signature that is there must be good wherever it can be checked; ``required`` refuses what is unsigned or cannot
    be checked. ``name`` is what messages call the file. Raises PackageError NO_SIGNATURE, BAD_SIGNATURE; UsageError
    NO_SIGNERS, NO_SSH_KEYGEN, PACKAGE_NOT_FOUND; AccessError.
    """
    name = name or path.name
    if not os.path.isfile(path):
        raise UsageError("PACKAGE_NOT_FOUND", f"{path} is no file", hint="check the path")
    beside = signature_of(path)
    chosen = signature or (beside if os.path.lexists(beside) else None)
    if chosen is None:
        if required:
            raise PackageError(
                "NO_SIGNATURE",
                f"{name} is not signed: there is no {name}{SUFFIX}, and a signature is required",
                hint=f"get the signature from where the package is from; its owner makes one with "
                f"ssh-keygen -Y sign -f KEY -n {NAMESPACE} {name}",
                details={"path": str(path)},
            )
        return Checked("unsigned")
    signers = signers or default_signers()
    if signers is None and not required and signature is None:
        return Checked("unchecked")
    if signers is None or not os.path.isfile(signers):
        where = f"{signers} is no file" if signers else "no allowed-signers file is there"
        raise UsageError(
            "NO_SIGNERS",
            f"the signature of {name} cannot be checked: {where}",
            hint="name it with --allowed-signers, or put it at ~/.config/smallq-deploy/allowed_signers; "
            "a line is: NAME ssh-ed25519 AAAA...",
        )
    return _verify(path, name, chosen, signers)


def check_form(signature: Path, title: str) -> None:
    """Is this file a signature at all? ``title`` is what it is to sign. Raises PackageError."""
    try:
        with open(signature, "rb") as stream:
            text = stream.read(MAX_SIGNATURE + 1)
    except FileNotFoundError:
        raise PackageError("NO_SIGNATURE", f"there is no signature {signature}", hint="check the path") from None
    except OSError as error:
        raise access_error(error, f"read the signature {signature}") from error
    if len(text) > MAX_SIGNATURE or not text.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise _bad(title, signature, "it is no signature of ssh-keygen -Y sign")


def _verify(path: Path, title: str, signature: Path, signers: Path) -> Checked:
    check_form(signature, title)
    found = _ssh_keygen("find-principals", "-f", str(signers), "-s", str(signature))
    names = [line for line in found.stdout.splitlines() if line]
    if not found.ok or not names:
        reason = found.tail(1)
        if "no principal matched" in reason.lower():
            reason = f"it was made with a key that {signers} does not list"
        raise _bad(title, signature, reason)
    last = ""
    for name in names:
        done, digest = _verify_as(path, signature, signers, name)
        good = _GOOD.search(done.stdout)
        if done.ok and good:
            return Checked("good", good["who"], good["key"], digest)
        last = done.tail(2)
    raise _bad(title, signature, last.replace("\n", "; "))


def _verify_as(path: Path, signature: Path, signers: Path, name: str) -> tuple[Completed, str]:
    """What ssh-keygen says, and the digest of the bytes it was given."""
    digest = hashlib.sha256()
    outlet, inlet = os.pipe()
    failed: list[OSError] = []

    def feed() -> None:
        try:
            with os.fdopen(inlet, "wb") as pipe, open(path, "rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
                    pipe.write(chunk)
        except BrokenPipeError:
            pass  # ssh-keygen has seen enough to say no
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=feed, daemon=True)
    with os.fdopen(outlet, "rb") as reading:
        thread.start()
        arguments: tuple[str, ...] = ("-n", NAMESPACE, "-I", name, "-f", str(signers), "-s", str(signature))
        revoked = signers.with_name(REVOKED)
        if os.path.lexists(revoked):  # one that cannot be read refuses everything
            arguments += ("-r", str(revoked))
        done = _ssh_keygen("verify", *arguments, stdin=reading.fileno())
    thread.join()
    if failed:
        raise access_error(failed[0], f"read {path}") from failed[0]
    return done, digest.hexdigest()


def _ssh_keygen(action: str, *arguments: str, stdin: int | None = None) -> Completed:
    done = run(
        ["ssh-keygen", "-Y", action, *arguments],
        env={**os.environ, "LC_ALL": "C"},
        timeout=_TIMEOUT,
        stdin=stdin,
    )
    text = (done.stdout + done.stderr).lower()
    if done.returncode == 127 or "unknown option" in text or "illegal option" in text or "usage:" in text:
        raise UsageError(
            "NO_SSH_KEYGEN",
            "signatures are checked by ssh-keygen of OpenSSH 8.2 or newer, and there is none here",
            hint="install openssh-client (Debian) or openssh-clients (openEuler, Fedora)",
        )
    return done


def _bad(title: str, signature: Path, why: str) -> PackageError:
    return PackageError(
        "BAD_SIGNATURE",
        f"the signature {signature.name} of {title} is not good: {why or 'ssh-keygen gives no reason'}",
        hint="do not install the file; get it again, with its signature, from where it is published",
        details={"file": title, "signature": str(signature)},
    )
