"""Row 12: signatures by real keys that must not count. Refused, and nothing of the file was read before."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import PackageError, SmallqError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.cli.options import Call
from smallq_deploy.cli.progress import Progress
from smallq_deploy.cli.signing import Signing
from tests.cli.support import smallq
from tests.support.faultrows import FaultRow
from tests.support.packages import make_run
from tests.support.toolkits import make_new

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="NO ssh-keygen: SIGNATURES ARE NOT TESTED")
NAME = "release@example.org"


def keygen(*arguments: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, arguments)], check=True, capture_output=True)


class Case:
    """A package that is none (whoever parses it says NOT_A_RUN), a signer, and the file of those who may."""

    def __init__(self, place: Path, keys: Path) -> None:
        place.mkdir()
        self.keys = keys
        self.file = place / "op.run"
        self.file.write_bytes(b"no package, yet signed: " + bytes(range(256)) * 40)
        self.signature = place / "op.run.sig"
        self.signers = place / "allowed_signers"
        self.allow("release")
        self.sign("release")

    def key(self, name: str) -> Path:
        return self.keys / name

    def public(self, name: str) -> str:
        return self.key(name + ".pub").read_text().strip()

    def allow(self, name: str, *, who: str = NAME, options: str = "") -> None:
        self.signers.write_text(f"{who} {options}{' ' if options else ''}{self.public(name)}\n")

    def sign(self, name: str, *, namespace: str = "smallq-deploy", file: Path | None = None) -> None:
        file = file or self.file
        made = file.with_name(file.name + ".sig")
        made.unlink(missing_ok=True)
        keygen("-Y", "sign", "-f", self.key(name), "-n", namespace, file)
        if made != self.signature:
            made.replace(self.signature)

    def another(self, content: bytes) -> Path:
        path = self.file.with_name("another.run")
        path.write_bytes(content)
        return path

    def edit(self, change: Callable[[bytes], bytes]) -> None:
        self.file.write_bytes(change(self.file.read_bytes()))

    def edit_signature(self, change: Callable[[bytes], bytes]) -> None:
        self.signature.write_bytes(change(self.signature.read_bytes()))

    def check(self) -> SmallqError | None:
        """What a command that requires a signature says, before and after it would parse the file."""
        call = Call(
            "plan", Progress(quiet=True, silent=True, show_output=False, no_color=True, log_file=None), Events()
        )
        try:
            Signing(self.signers, required=True).read_run(call, self.file)
        except SmallqError as error:
            return error
        return None


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("release", "ed25519"), ("stranger", "ed25519"), ("ecdsa", "ecdsa"), ("ca", "ed25519")):
        keygen("-t", kind, "-N", "", "-C", NAME, "-f", folder / name)
    keygen("-t", "ed25519", "-N", "", "-C", "x", "-f", folder / "certified")
    keygen("-s", folder / "ca", "-I", "other", "-n", "somebody@example.org", folder / "certified.pub")
    keygen("-t", "ed25519", "-N", "", "-C", "x", "-f", folder / "past")
    validity = ("-V", "20200101:20200201")
    keygen("-s", folder / "ca", "-I", "past", "-n", NAME, *validity, folder / "past.pub")
    keygen("-k", "-f", folder / "revoked.krl", folder / "release.pub")
    return folder


def revoke_by_list(case: Case) -> None:
    shutil.copy(case.key("revoked.krl"), case.signers.with_name("revoked_keys"))


def flip(raw: bytes) -> bytes:
    """One character in the middle of the signature proper."""
    lines = raw.splitlines(keepends=True)
    last = lines[-2]
    other = b"B" if last[2:3] != b"B" else b"C"
    lines[-2] = last[:2] + other + last[3:]
    return b"".join(lines)


def link_to(case: Case, target: str) -> None:
    case.signature.unlink()
    case.signature.symlink_to(target)


def signed_by_certificate(case: Case, name: str) -> None:
    case.signers.write_text(f"{NAME} cert-authority {case.public('ca')}\n")
    case.signature.unlink()
    keygen("-Y", "sign", "-f", case.key(f"{name}-cert.pub"), "-n", "smallq-deploy", case.file)


BAD: dict[str, Callable[[Case], object]] = {
    "a stranger's key": lambda case: case.sign("stranger"),
    "another namespace": lambda case: case.sign("release", namespace="git"),
    "a namespace that only begins like ours": lambda case: case.sign("release", namespace="smallq-deploy2"),
    "a signer of another namespace": lambda case: case.allow("release", options='namespaces="git"'),
    "an expired key": lambda case: case.allow("release", options='valid-before="20200101"'),
    "a key of the future": lambda case: case.allow("release", options='valid-after="20990101"'),
    "a revoked key": lambda case: case.signers.with_name("revoked_keys").write_text(case.public("release") + "\n"),
    "a revoked key, in a list of ssh-keygen": revoke_by_list,
    "revoked keys that cannot be read": lambda case: case.signers.with_name("revoked_keys").symlink_to("gone"),
    "a truncated signature": lambda case: case.edit_signature(lambda raw: raw[: len(raw) // 2]),
    "a signature without its end": lambda case: case.edit_signature(lambda raw: raw[: raw.index(b"-----END")]),
    "a changed signature": lambda case: case.edit_signature(flip),
    "an empty signature": lambda case: case.edit_signature(lambda raw: b""),
    "an OpenPGP signature": lambda case: case.edit_signature(lambda raw: raw.replace(b"SSH", b"PGP")),
    "a public key instead": lambda case: case.signature.write_text(case.public("release")),
    "the file itself": lambda case: case.signature.write_bytes(case.file.read_bytes()),
    "a huge signature": lambda case: case.edit_signature(lambda raw: raw + b"\n" * 100_000),
    "an endless signature": lambda case: link_to(case, "/dev/zero"),
    "an edited file": lambda case: case.edit(lambda raw: raw.replace(b"yet", b"not")),
    "a longer file": lambda case: case.edit(lambda raw: raw + b"\n"),
    "a shorter file": lambda case: case.edit(lambda raw: raw[:-1]),
    "an empty file": lambda case: case.edit(lambda raw: b""),
    "a file with other line ends": lambda case: case.edit(lambda raw: raw.replace(b"\n", b"\r\n")),
    "another file's signature": lambda case: case.sign("release", file=case.another(b"an older release")),
    "nobody may sign": lambda case: case.signers.write_text(""),
    "only comments": lambda case: case.signers.write_text(f"# {NAME} {case.public('release')}\n"),
    "the name belongs to another key": lambda case: case.allow("stranger"),
    "another type of key": lambda case: case.sign("ecdsa"),
    "a negated name": lambda case: case.allow("release", who="!*"),
    "a list of signers that is no text": lambda case: case.signers.write_bytes(os.urandom(5000)),
    "an authority that did not certify the key": lambda case: case.allow("ca", options="cert-authority"),
    "a certificate of another name": lambda case: signed_by_certificate(case, "certified"),
    "an expired certificate": lambda case: signed_by_certificate(case, "past"),
}


def missing_signature(case: Case) -> None:
    case.signature.unlink()


OTHER: dict[str, tuple[Callable[[Case], object], str]] = {
    "no signature": (missing_signature, "NO_SIGNATURE"),
    "a dangling signature": (lambda case: link_to(case, "gone"), "NO_SIGNATURE"),
    "no list of signers": (lambda case: case.signers.unlink(), "NO_SIGNERS"),
    "a directory of signers": (lambda case: (case.signers.unlink(), os.mkdir(case.signers)), "NO_SIGNERS"),  # type: ignore[func-returns-value]
}


def test_signatures_that_do_not_count(keys: Path, tmp_path: Path, fault_row: FaultRow) -> None:
    """The good one gets as far as the parser, which finds no package; every other one is refused before."""
    good = Case(tmp_path / "good", keys).check()
    assert good is not None
    assert good.code == "NOT_A_RUN"
    cases = {**{name: (do, "BAD_SIGNATURE") for name, do in BAD.items()}, **OTHER}
    wrong = []
    for number, (name, (do, code)) in enumerate(cases.items()):
        case = Case(tmp_path / f"case{number}", keys)
        do(case)
        found = case.check()
        if found is None or found.code != code:
            wrong.append(f"{name}: {found.code if found else 'accepted'} instead of {code}: {found}")
        elif not (isinstance(found, (PackageError, UsageError)) and found.hint and "\n" not in found.message):
            wrong.append(f"{name}: a poor answer: {found.message!r} ({found.hint!r})")
    fault_row("12", len(cases), wrong, what="refused before anything is parsed")


def test_an_older_package_with_its_own_good_signature(keys: Path, tmp_path: Path, fault_row: FaultRow) -> None:
    """A replay: the signature is good, so it is the stated digest that tells, in `release verify`."""
    case = Case(tmp_path / "case", keys)
    old, new = (make_run(tmp_path / f"{name}.run", content=name) for name in ("1", "2"))
    import hashlib

    stated = hashlib.sha256(new.read_bytes()).hexdigest()
    shutil.copy(old, new)  # an attacker serves the old one under the new name
    case.sign("release", file=new)
    case.signature.rename(new.with_name(new.name + ".sig"))
    policy = ("--require-signature", "--allowed-signers", case.signers, "--json")
    assert smallq("release", "verify", new, *policy).status == 0
    ran = smallq("release", "verify", new, "--sha256", stated, *policy)
    wrong = [] if (ran.status, ran.codes) == (5, ["DIGEST_MISMATCH"]) else [f"replay: {ran.stdout}"]
    fault_row("12", 1, wrong, what="replay of an older package")


def test_the_command_changes_nothing(keys: Path, tmp_path: Path) -> None:
    home = make_new(tmp_path / "Ascend")
    case = Case(tmp_path / "case", keys)
    make_run(case.file)
    ran = smallq(
        *("install", case.file, "--require-signature", "--allowed-signers", case.signers),
        *("--cann", home, "--no-smoke", "--json"),
    )
    assert (ran.status, ran.codes) == (5, ["BAD_SIGNATURE"])
    assert list((home / "opp" / "vendors").iterdir()) == []
