"""`release list`, `show` and `fetch` as a user runs them, against a real server."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.cli.support import Ran, checked, may_mount, mounting, smallq
from tests.conftest import CHECKOUT
from tests.integration.fetch.server import Server
from tests.integration.fetch.test_signature import Signer, new_signer
from tests.support.packages import make_run

SHIPPED = CHECKOUT / "manifests" / "releases" / "smallq-flash-attention-0.1.0.yaml"
MACHINE = ("--arch", "aarch64", "--soc", "ascend910b", "--cann-version", "8.5.0")


class Published:
    """A package on the server, and the manifest of release 0.2.0 that names it."""

    def __init__(self, server: Server, folder: Path, manifests: Path) -> None:
        self.server = server
        self.package = make_run(folder / "op.run", arch="aarch64")
        server.content = self.package.read_bytes()
        self.sha256 = hashlib.sha256(server.content).hexdigest()
        self.manifest = manifests / "op-0.2.0.yaml"
        self.write()

    def write(self, behaviour: str = "good", **changes: object) -> None:
        content = yaml.safe_load(SHIPPED.read_text())
        artifact = {
            "location": self.server.url(behaviour),
            "arch": "aarch64",
            "unit": "ascend910b",
            "cann": ">=8.5.0",
            "sha256": self.sha256,
            "size": len(self.server.content),
            **changes,
        }
        other = {**artifact, "arch": "x86_64", "sha256": "1" * 64}
        self.manifest.parent.mkdir(parents=True, exist_ok=True)
        self.manifest.write_text(yaml.safe_dump({**content, "version": "0.2.0", "artifacts": [artifact, other]}))


@pytest.fixture
def published(server: Server, tmp_path: Path, own_home: Path) -> Published:
    return Published(server, tmp_path, own_home / "data" / "smallq-deploy" / "manifests" / "releases")


def fetch(*arguments: str | Path, options: Sequence[str] = MACHINE) -> Ran:
    return smallq("release", "fetch", *arguments, "--timeout", "2", "--retries", "1", "--json", *options)


def test_list_and_show(published: Published) -> None:
    found = checked(smallq("release", "list", *MACHINE, "--json"), "release list")
    rows = {row["release"]: row for row in found["releases"]}
    assert rows["smallq-flash-attention-0.2.0"]["chosen"] is True, rows
    assert rows["smallq-flash-attention-0.2.0"]["packages"] == 2
    assert rows["smallq-flash-attention-0.1.0"]["chosen"] is False
    old = checked(
        smallq("release", "list", "--cann-version", "8.1.RC1", "--soc", "ascend310p", "--json"), "release list"
    )
    for row in old["releases"]:
        assert not row["fits"]
        assert any("8.1.RC1" in reason for reason in row["reasons"])
        assert any("ascend310p" in reason for reason in row["reasons"])
    shown = checked(smallq("release", "show", "smallq-flash-attention", *MACHINE, "--json"), "release show")
    assert shown["release"] == "smallq-flash-attention-0.2.0"
    assert [item["misfit"] for item in shown["packages"]] == ["", "it is for x86_64"]
    text = smallq("release", "show", published.manifest, *MACHINE).stdout
    assert published.server.url("good") in text

    published.manifest.write_text("schema: 1\n")
    broken = smallq("release", "list", *MACHINE, "--json")
    assert len(checked(broken, "release list")["unreadable"]) == 1
    assert any("op-0.2.0.yaml is not used" in warning for warning in broken.document["warnings"])
    ran = smallq("release", "show", "none-such", "--json")
    assert (ran.status, ran.codes) == (2, ["NO_SUCH_RELEASE"])


def test_fetch_of_a_release(published: Published, tmp_path: Path) -> None:
    got = checked(fetch("smallq-flash-attention"), "release fetch")
    assert got["release"] == "smallq-flash-attention-0.2.0"
    path = Path(got["path"])
    assert path.read_bytes() == published.server.content
    assert path == tmp_path / "cache" / "smallq-deploy" / "downloads" / "sha256" / published.sha256 / "op.run"
    count = len(published.server.requests)
    again = checked(fetch(published.manifest, "--offline", "-o", tmp_path / "here"), "release fetch")
    assert again["cached"] is True
    assert (tmp_path / "here" / "op.run").read_bytes() == published.server.content
    assert len(published.server.requests) == count
    text = smallq("release", "fetch", "smallq-flash-attention-0.2.0", *MACHINE).stdout
    assert f"smallq-deploy plan {path} --release {published.manifest}" in text
    listed = checked(smallq("release", "verify", path, "--json"), "release verify")
    assert listed["published_in"] == "smallq-flash-attention-0.2.0"


def test_fetch_says_which_package_is_meant(published: Published) -> None:
    ran = fetch("smallq-flash-attention", options=())
    assert (ran.status, ran.codes) == (2, ["SEVERAL_ARTIFACTS"])
    ran = fetch("smallq-flash-attention", options=("--soc", "ascend310p"))
    assert (ran.status, ran.codes) == (4, ["NO_ARTIFACT"])
    assert "it is for ascend910b" in ran.document["errors"][0]["message"]
    ran = fetch("smallq-flash-attention-0.1.0")
    assert (ran.status, ran.codes) == (4, ["NO_ARTIFACT"])
    assert published.server.requests == []


def test_fetch_failures_leave_nothing_to_install(published: Published, tmp_path: Path) -> None:
    for behaviour, changes, code in (
        ("good", {"sha256": "2" * 64}, "DIGEST_MISMATCH"),
        ("good", {"size": 10}, "SIZE_MISMATCH"),
        ("loop", {}, "BAD_REDIRECT"),
        ("missing", {}, "HTTP_STATUS"),
        ("hangs-up", {}, "UNREACHABLE"),
    ):
        published.write(behaviour, **changes)
        ran = fetch("smallq-flash-attention", "-o", tmp_path / "here")
        assert (ran.status, ran.codes) == (13, [code])
        assert not (tmp_path / "here").exists()
        assert list((tmp_path / "cache").glob("**/sha256/*/*")) == []
    published.write("good")
    ran = fetch("smallq-flash-attention", "--offline")
    assert (ran.status, ran.codes) == (13, ["NOT_CACHED"])
    ran = fetch("smallq-flash-attention", "--sha256", "12")
    assert (ran.status, ran.codes) == (2, ["BAD_SHA256"])


def test_fetch_of_a_url_or_a_file(published: Published) -> None:
    url = published.server.url("good")
    ran = fetch(url)
    assert (ran.status, ran.codes) == (2, ["INSECURE_URL"])
    assert checked(fetch(url, "--sha256", published.sha256), "release fetch")["release"] is None
    assert checked(fetch(published.package), "release fetch")["sha256"] == published.sha256
    ran = fetch(published.package, "--sha256", "3" * 64)
    assert (ran.status, ran.codes) == (13, ["DIGEST_MISMATCH"])
    ran = fetch("x" * 5000)
    assert (ran.status, ran.codes) == (2, ["NO_SUCH_RELEASE"])
    ran = fetch("./none.run")
    assert (ran.status, ran.codes) == (2, ["PACKAGE_NOT_FOUND"])


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="NO ssh-keygen: SIGNATURES ARE NOT TESTED")
def test_fetch_with_a_signature(published: Published, tmp_path: Path) -> None:
    ours, stranger = new_signer(tmp_path, "ours"), new_signer(tmp_path, "stranger")
    signers = tmp_path / "signers"
    signers.write_text(ours.line)
    policy = ("--require-signature", "--allowed-signers", str(signers))

    def signed(by: Signer) -> str:
        """The location of a signature, relative to the manifest."""
        copy = published.manifest.parent / "op.run"
        shutil.copyfile(published.package, copy)
        return by.sign(copy).name

    ran = fetch(published.server.url("good"), *policy)
    # The server answers every path of /good/ with the package: what lies at op.run.sig is no signature.
    assert ran.codes in (["BAD_SIGNATURE"], ["DOWNLOAD_TOO_BIG"])
    ran = fetch(published.server.url("missing"), *policy)
    assert (ran.status, ran.codes) == (5, ["NO_SIGNATURE"])

    published.write(signature=signed(stranger))
    ran = fetch("smallq-flash-attention", *policy)
    assert (ran.status, ran.codes) == (5, ["BAD_SIGNATURE"])
    assert list((tmp_path / "cache").glob(f"**/{published.sha256}/*")) == []
    unsure = fetch("smallq-flash-attention")
    assert any("nothing says whom to believe" in warning for warning in unsure.document["warnings"])

    published.write(signature=signed(ours))
    got = checked(fetch("smallq-flash-attention", *policy, "-o", tmp_path / "here"), "release fetch")
    assert got["signature"]["signer"] == "ours@example.org"
    # The signature came along: `install --require-signature` takes the file as it lies there.
    assert smallq("release", "verify", tmp_path / "here" / "op.run", *policy).status == 0
    # Plain http without a digest is fine where a signature must be good.
    seal = str(published.manifest.parent / "op.run.sig")
    again = fetch(published.server.url("drops-once"), "--signature", seal, *policy)
    assert checked(again, "release fetch")["sha256"] == published.sha256


@pytest.mark.skipif(not may_mount(), reason="mount namespaces are forbidden here")
def test_a_full_disk(published: Published, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    published.server.content = b"x" * 500_000
    url = published.server.url("good")
    digest = hashlib.sha256(published.server.content).hexdigest()
    full = mounting(f"mount -t tmpfs -o size=200k none {place}")
    arguments = ("release", "fetch", url, "--sha256", digest, "--json")
    ran = smallq(*arguments, env={"XDG_CACHE_HOME": str(place)}, prefix=full)
    assert (ran.status, ran.codes) == (8, ["NO_SPACE"])
    assert "XDG_CACHE_HOME" in ran.document["errors"][0]["hint"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_command_that_is_ended_is_gone_on_with(
    published: Published, tmp_path: Path, number: int, status: int
) -> None:
    published.write("stalls-once")
    command = [sys.executable, "-m", "smallq_deploy", "release", "fetch", "smallq-flash-attention", *MACHINE]
    child = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        parts: list[Path] = []
        while not (parts and parts[0].stat().st_size == 1000):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.02)
            parts = list(tmp_path.glob("cache/**/*.part"))
        child.send_signal(number)
        assert child.wait(30) == status
    finally:
        child.kill()
    assert list(tmp_path.glob("cache/**/sha256/*/*")) == []
    got = checked(fetch("smallq-flash-attention"), "release fetch")
    assert got["resumed"] == 1000
    assert Path(got["path"]).read_bytes() == published.server.content


def test_a_unit_is_no_chip(published: Published) -> None:
    """ascend910b is the unit of Ascend910B3; the chip called Ascend910B has another."""
    for soc, unit in (("ascend910b", "ascend910b"), ("Ascend910B3", "ascend910b"), ("Ascend910B", "ascend910")):
        found = checked(smallq("release", "list", "--soc", soc, "--json"), "release list")
        assert found["target"]["unit"] == unit
