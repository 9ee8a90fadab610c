"""Signatures by ssh-keygen with throwaway keys, and what `install` and `release` make of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.package.signature import check_signature
from tests.cli.support import checked, smallq
from tests.support.packages import make_run
from tests.support.toolkits import make_new

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="NO ssh-keygen: SIGNATURES ARE NOT TESTED")


@dataclass
class Signer:
    key: Path
    line: str  # of an allowed-signers file

    def sign(self, path: Path, namespace: str = "smallq-deploy") -> Path:
        beside = path.with_name(path.name + ".sig")
        beside.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-f", self.key, "-n", namespace, path], check=True, capture_output=True
        )
        return beside


def new_signer(folder: Path, name: str) -> Signer:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    return Signer(key, f"{name}@example.org {key.with_suffix('.pub').read_text().strip()}\n")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, Signer]:
    """One whose signatures count, and one whose do not."""
    folder = tmp_path_factory.mktemp("keys")
    return new_signer(folder, "release"), new_signer(folder, "stranger")


@pytest.fixture
def signers(tmp_path: Path, keys: tuple[Signer, Signer]) -> Path:
    path = tmp_path / "signers"
    path.write_text("# those who may\n" + keys[0].line)
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_run(tmp_path / "op.run")


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(SmallqError) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


def test_a_good_signature_names_its_signer(package: Path, signers: Path, keys: tuple[Signer, Signer]) -> None:
    import hashlib

    keys[0].sign(package)
    found = check_signature(package, signers=signers)
    assert (found.state, found.signer) == ("good", "release@example.org")
    assert found.key.startswith("ED25519 key SHA256:")
    assert found.sha256 == hashlib.sha256(package.read_bytes()).hexdigest()


def test_bad_signatures(package: Path, signers: Path, keys: tuple[Signer, Signer], tmp_path: Path) -> None:
    ours, stranger = keys
    good = ours.sign(package).read_bytes()
    content = package.read_bytes()

    def code() -> str:
        return refused(lambda: check_signature(package, signers=signers))

    package.write_bytes(content[:-1] + b"?")
    assert code() == "BAD_SIGNATURE"
    package.write_bytes(content + b"\n")
    assert code() == "BAD_SIGNATURE"
    package.write_bytes(content)
    beside = package.with_name("op.run.sig")
    for wrong in (b"", b"no signature", good[:100], good.replace(good[80:90], b"A" * 10), b"x" * 100_000):
        beside.write_bytes(wrong)
        assert code() == "BAD_SIGNATURE"
    stranger.sign(package)
    assert code() == "BAD_SIGNATURE"
    ours.sign(package, namespace="file")  # meant for something else
    assert code() == "BAD_SIGNATURE"
    ours.sign(package)
    signers.write_text(ours.line.replace(" ssh-", ' valid-before="20200101" ssh-'))
    assert code() == "BAD_SIGNATURE"
    signers.write_text(ours.line.replace(" ssh-", ' namespaces="git" ssh-'))
    assert code() == "BAD_SIGNATURE"
    signers.write_text("")
    assert code() == "BAD_SIGNATURE"


def test_what_is_missing(package: Path, signers: Path, keys: tuple[Signer, Signer], tmp_path: Path) -> None:
    assert check_signature(package, signers=signers).state == "unsigned"
    assert refused(lambda: check_signature(package, signers=signers, required=True)) == "NO_SIGNATURE"
    assert refused(lambda: check_signature(package, signature=tmp_path / "none", signers=signers)) == "NO_SIGNATURE"
    keys[0].sign(package)
    assert check_signature(package).state == "unchecked"
    assert refused(lambda: check_signature(package, required=True)) == "NO_SIGNERS"
    assert refused(lambda: check_signature(package, signers=tmp_path / "none")) == "NO_SIGNERS"
    assert refused(lambda: check_signature(tmp_path)) == "PACKAGE_NOT_FOUND"


def test_the_users_own_file_of_signers(
    package: Path, keys: tuple[Signer, Signer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys[0].sign(package)
    place = tmp_path / "config" / "smallq-deploy" / "allowed_signers"
    place.parent.mkdir(parents=True)
    place.write_text(keys[0].line)
    assert check_signature(package, required=True).state == "good"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(lambda: check_signature(package)) == "NO_SSH_KEYGEN"


def test_a_large_file_and_an_early_no(signers: Path, keys: tuple[Signer, Signer], tmp_path: Path) -> None:
    """More than a pipe holds, also when ssh-keygen stops reading."""
    path = tmp_path / "large"
    path.write_bytes(b"0123456789abcdef" * 200_000)
    keys[0].sign(path)
    assert check_signature(path, signers=signers).state == "good"
    with open(path, "ab") as stream:
        stream.write(b"more")
    assert refused(lambda: check_signature(path, signers=signers)) == "BAD_SIGNATURE"


def test_install_refuses_what_is_not_signed_before_it_parses_it(
    package: Path, signers: Path, keys: tuple[Signer, Signer], tmp_path: Path
) -> None:
    home = make_new(tmp_path / "Ascend")
    common = ("--cann", home, "--no-smoke", "--json")
    policy = ("--require-signature", "--allowed-signers", signers)
    ran = smallq("plan", package, *policy, *common)
    assert (ran.status, ran.codes) == (5, ["NO_SIGNATURE"])
    # Of a forged file nothing is read: the signature is the complaint, not the content.
    junk = tmp_path / "junk.run"
    junk.write_text("no package at all")
    keys[1].sign(junk)
    ran = smallq("install", junk, *policy, *common)
    assert (ran.status, ran.codes) == (5, ["BAD_SIGNATURE"])
    keys[0].sign(junk)
    ran = smallq("install", junk, *policy, *common)
    assert (ran.status, ran.codes) == (5, ["NOT_A_RUN"])

    keys[1].sign(package)
    assert smallq("plan", package, *policy, *common).codes == ["BAD_SIGNATURE"]
    # A signature that is there must be good, also where none is required.
    assert smallq("plan", package, "--allowed-signers", signers, *common).codes == ["BAD_SIGNATURE"]
    ran = smallq("plan", package, *common)
    assert any("was not checked" in warning for warning in ran.document["warnings"])
    assert checked(ran, "plan")["signature"]["state"] == "unchecked"
    assert "BAD_SIGNATURE" not in ran.codes

    keys[0].sign(package)
    done = smallq("plan", package, *policy, "--allow-untested", "--cann", home, "--no-smoke")
    assert done.status == 0, done.stderr
    assert "signed by release@example.org" in done.stderr
    data = checked(smallq("install", package, *policy, "--allow-untested", *common), "install")
    assert data["change"]["kept"] is True
    assert data["signature"]["signer"] == "release@example.org"


def test_a_bundle_must_be_signed_itself(signers: Path, keys: tuple[Signer, Signer], tmp_path: Path) -> None:
    home = make_new(tmp_path / "Ascend")
    bundle = tmp_path / "op.pyz"
    bundle.write_text("no bundle at all")
    policy = ("--require-signature", "--allowed-signers", signers, "--cann", home, "--json")
    assert smallq("plan", "--bundle", bundle, *policy).codes == ["NO_SIGNATURE"]
    keys[1].sign(bundle)
    assert smallq("plan", "--bundle", bundle, *policy).codes == ["BAD_SIGNATURE"]
    keys[0].sign(bundle)
    (code,) = smallq("plan", "--bundle", bundle, *policy).codes
    assert "SIGNATURE" not in code


def test_verify_tells_signer_digest_and_content(
    package: Path, signers: Path, keys: tuple[Signer, Signer], tmp_path: Path
) -> None:
    found = checked(smallq("release", "verify", package, "--json"), "release verify")
    assert found["signature"] == {"state": "unsigned", "signer": "", "key": ""}
    assert found["package"]["ops"] == ["SmallqFlashAttention"]
    text = smallq("release", "verify", package).stdout
    assert "only the file itself says so" in text

    ran = smallq("release", "verify", package, "--sha256", "0" * 64, "--json")
    assert (ran.status, ran.codes) == (5, ["DIGEST_MISMATCH"])
    assert (
        smallq("release", "verify", package, "--sha256", found["sha256"], "--json").document["data"]["stated"] is True
    )
    ran = smallq("release", "verify", package, "--require-signature", "--json")
    assert (ran.status, ran.codes) == (5, ["NO_SIGNATURE"])

    keys[0].sign(package)
    good = checked(smallq("release", "verify", package, "--allowed-signers", signers, "--json"), "release verify")
    assert good["signature"]["signer"] == "release@example.org"
    with open(package, "ab") as stream:
        stream.write(b"appended")
    ran = smallq("release", "verify", package, "--allowed-signers", signers, "--json")
    assert (ran.status, ran.codes) == (5, ["BAD_SIGNATURE"])
    package.with_name("op.run.sig").unlink()
    ran = smallq("release", "verify", package, "--json")
    assert (ran.status, ran.codes) == (5, ["TRAILING_DATA"])
