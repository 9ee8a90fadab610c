"""The bundle on a machine that has Python, a toolkit and nothing else: no network, no checkout, no installed tool."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import checked, smallq
from tests.conftest import CHECKOUT
from tests.integration.bundle.conftest import BARE, document, start


def without_network_and_checkout() -> list[str]:
    """A prefix: own network (no interface is up) and the checkout hidden below an empty file system."""
    script = f"mount -t tmpfs none {CHECKOUT}; test ! -e {CHECKOUT}/pyproject.toml; "
    prefix = ["unshare", "-rmn", "bash", "-ec", script + 'exec "$@"', "-"]
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("NO NAMESPACE TEST: namespaces of its own are not allowed here")
    return prefix


def test_installs_and_proves_without_network(
    bundle_file: Path, fresh_toolkit: Callable[..., Path], tmp_path: Path
) -> None:
    root = fresh_toolkit()
    node = tmp_path / "node"
    node.mkdir()
    bundle = Path(shutil.copy(bundle_file, node))
    prefix = without_network_and_checkout()

    def run(*arguments: str | Path) -> dict[str, object]:
        done = start(bundle, *arguments, "--cann", root, "--json", home=node, prefix=prefix)
        assert done.returncode == 0, done.stdout + done.stderr
        data = document(done)["data"]
        assert isinstance(data, dict)
        return data

    change = run("install")["change"]
    assert isinstance(change, dict)
    assert change["smoke"]["verdict"] == "pass"
    assert change["generation"]["release"].startswith("smallq-flash-attention-")
    smoke = run("smoke")["smoke"]
    assert isinstance(smoke, dict)
    assert smoke["verdict"] == "pass"
    assert len(smoke["cases"]) >= 5
    assert run("verify")["toolkit"]
    # Nothing but the unpacked tool is left in the home directory, and nobody else can write to it.
    (cached,) = (node / ".cache" / "smallq-deploy").iterdir()
    assert cached.name.startswith("tool-")
    assert cached.stat().st_mode & 0o077 == 0


def test_an_installed_tool_takes_the_package_from_a_bundle(
    bundle_file: Path, fresh_toolkit: Callable[..., Path]
) -> None:
    root = fresh_toolkit()
    planned = checked(smallq("plan", "--bundle", bundle_file, "--cann", root, "--json"), "plan")
    assert planned["decision"] == "install"
    assert planned["plan"]["target"].endswith("/vendors/customize")
    dry = checked(smallq("install", "--bundle", bundle_file, "--cann", root, "--dry-run", "--json"), "install")
    assert dry["plan"]["package"]["sha256"] == planned["plan"]["package"]["sha256"]


def sums(bundle: Path) -> list[str]:
    with zipfile.ZipFile(bundle) as archive:
        return archive.read("SHA256SUMS").decode().splitlines()


def test_the_same_inputs_give_the_same_bytes(bundle_file: Path, operator_package: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    package = Path(shutil.copy(operator_package, place))
    for beside in operator_package.parent.glob(operator_package.name + ".*"):
        shutil.copy(beside, place)
    os.utime(package, (1, 1))
    made = checked(smallq("bundle", "create", package, "-o", "again.pyz", "--json", cwd=place), "bundle create")
    assert set(sums(place / "again.pyz")) ^ set(sums(bundle_file)) == set()
    assert made["sha256"] == hashlib.sha256(bundle_file.read_bytes()).hexdigest()
    assert [entry["sha256"] for entry in made["packages"]] == [hashlib.sha256(package.read_bytes()).hexdigest()]
    found = checked(smallq("bundle", "verify", bundle_file, "--json"), "bundle verify")
    assert found["sha256"] == made["sha256"]
    assert {entry["name"] for entry in found["distributions"]} >= {"click", "requests", "pyyaml", "smallq-deploy"}


def test_a_bundle_names_no_place_of_its_maker(bundle_file: Path) -> None:
    with zipfile.ZipFile(bundle_file) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.endswith((".so", ".pyc", "direct_url.json"))]
        for name in names:
            if "dist-info" in name or name in ("bundle.json", "SHA256SUMS"):
                assert str(CHECKOUT).encode() not in archive.read(name), name


def test_the_start_is_readable_by_an_old_python() -> None:
    source = (CHECKOUT / "smallq_deploy" / "cli" / "bundle_main.py").read_text()
    ast.parse(source, feature_version=(3, 6))


# Starts a bundle as if this were Python 3.8: what the interpreter says of itself is the only thing that is changed.
_AS_OLD = """
import runpy, sys
sys.version_info = (3, 8, 0, "final", 0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_as_old(bundle: Path, *arguments: str, home: Path, path: Path) -> subprocess.CompletedProcess[str]:
    python = [os.path.realpath(sys.executable), "-I", "-c", _AS_OLD]
    return start(bundle, *arguments, home=home, python=python, env={"PATH": str(path)})


def test_an_old_python_without_another_says_what_is_needed(bundle_file: Path, tmp_path: Path) -> None:
    done = start_as_old(bundle_file, "--version", home=tmp_path, path=tmp_path)
    assert done.returncode == 2
    assert "this is Python 3.8, smallq-deploy needs 3.10 or newer" in done.stderr
    assert "--python-runtime" in done.stderr


def test_an_old_python_hands_over_to_a_newer_one(bundle_file: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3.10").symlink_to(os.path.realpath(sys.executable))
    done = start_as_old(bundle_file, "--version", home=tmp_path, path=bin_)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("smallq-deploy ")


def test_an_old_python_hands_over_to_the_one_in_the_bundle(operator_package: Path, tmp_path: Path) -> None:
    tree = tmp_path / "python"
    (tree / "bin").mkdir(parents=True)
    real = Path(os.path.realpath(sys.executable))
    shutil.copy(real, tree / "bin" / "python3.11")
    (tree / "bin" / "python3").symlink_to("python3.11")
    (tree / "pyvenv.cfg").write_text(f"home = {real.parent}\n")  # its library stays where it is
    if subprocess.run([tree / "bin" / "python3", "-I", "-c", "import zipfile"], capture_output=True).returncode != 0:
        pytest.skip("NO RUNTIME TEST: the interpreter of this environment cannot be copied")
    tarball = tmp_path / "python.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(tree, "python")
    shutil.rmtree(tree)
    made = checked(
        smallq("bundle", "create", operator_package, "-o", tmp_path / "b.pyz", "--python-runtime", tarball, "--json"),
        "bundle create",
    )
    (runtime,) = made["runtimes"]
    assert runtime["interpreter"] == "python/bin/python3"
    done = start_as_old(tmp_path / "b.pyz", "bundle", "verify", "--json", home=tmp_path, path=tmp_path / "none")
    assert done.returncode == 0, done.stderr
    assert document(done)["data"]["sha256"] == made["sha256"]
    assert list((tmp_path / ".cache" / "smallq-deploy").glob("python-*/python/bin/python3"))


def test_an_unpacked_tool_that_others_can_write_is_not_used(bundle_file: Path, tmp_path: Path) -> None:
    assert start(bundle_file, "--version", home=tmp_path).returncode == 0
    (cached,) = (tmp_path / ".cache" / "smallq-deploy").iterdir()
    (cached / "smallq_deploy" / "cli" / "main.py").write_text("raise SystemExit('not the tool')\n")
    assert "not the tool" in start(bundle_file, "--version", home=tmp_path).stderr  # it is what would run
    cached.chmod(0o777)
    done = start(bundle_file, "--version", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("smallq-deploy ")


def test_a_damaged_tool_does_not_start(bundle_file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle_file) as archive:
        info = archive.getinfo("tool/smallq_deploy/base/errors.py")
    raw = bytearray(bundle_file.read_bytes())
    raw[info.header_offset + 200] ^= 0xFF
    (tmp_path / "bad.pyz").write_bytes(raw)
    done = start(tmp_path / "bad.pyz", "--version", home=tmp_path)
    assert done.returncode == 5
    assert "is damaged" in done.stderr
    assert not list((tmp_path / ".cache" / "smallq-deploy").glob("tool-*"))


def test_bare_really_is_bare() -> None:
    """The proof above means something only where this interpreter cannot import what the bundle carries."""
    done = subprocess.run([*BARE, "-c", "import click"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="NO SIGNATURE TEST: there is no ssh-keygen")
def test_a_signed_bundle(operator_package: Path, fresh_toolkit: Callable[..., Path], tmp_path: Path) -> None:
    key, bundle, signers = tmp_path / "key", tmp_path / "b.pyz", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    signers.write_text(f'builder namespaces="smallq-deploy" {key.with_name("key.pub").read_text()}')
    words = ("bundle", "create", operator_package, "-o", bundle, "--json")
    failed = smallq(*words, "--sign", tmp_path / "none")
    assert (failed.status, failed.codes) == (2, ["SIGN_FAILED"])
    made = checked(smallq(*words, "--sign", key), "bundle create")
    assert made["signature"] == f"{bundle}.sig"
    trust = ("--allowed-signers", signers, "--require-signature")
    found = checked(smallq("bundle", "verify", bundle, *trust, "--json"), "bundle verify")
    assert (found["signature"]["state"], found["signature"]["signer"]) == ("good", "builder")
    root = fresh_toolkit()
    planned = checked(smallq("plan", "--bundle", bundle, *trust, "--cann", root, "--json"), "plan")
    assert planned["decision"] == "install"
    bundle.with_name("b.pyz.sig").rename(tmp_path / "kept.sig")
    for command in (("bundle", "verify", bundle), ("install", "--bundle", bundle, "--cann", root)):
        ran = smallq(*command, *trust, "--json")
        assert (ran.status, ran.codes) == (5, ["NO_SIGNATURE"])
    # Signed, then changed: refused before anything in it is read.
    bundle.write_bytes(bundle.read_bytes() + b"x")
    (tmp_path / "kept.sig").rename(bundle.with_name("b.pyz.sig"))
    ran = smallq("bundle", "verify", bundle, *trust, "--json")
    assert (ran.status, ran.codes) == (5, ["BAD_SIGNATURE"])
