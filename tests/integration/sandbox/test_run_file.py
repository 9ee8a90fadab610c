"""The .run: readable as data, and every option of CANN's header, by running it."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from smallq_deploy.sandbox.create import SandboxInfo

from .conftest import PackageMaker, call


@pytest.fixture
def package(new: SandboxInfo, make_package: PackageMaker) -> Path:
    return make_package(new)


@pytest.fixture
def opp(tmp_path: Path) -> Path:
    path = tmp_path / "opp"
    path.mkdir()
    return path


def header_of(package: Path) -> tuple[dict[str, str], bytes]:
    raw = package.read_bytes()
    found = re.search(rb'^skip="(\d+)"$', raw, re.MULTILINE)
    assert found
    lines = raw.split(b"\n")
    skip = int(found[1])
    text = b"\n".join(lines[:skip]).decode()
    return dict(re.findall(r'^(\w+)="([^"]*)"$', text, re.MULTILINE)), b"\n".join(lines[skip:])


def test_the_header_describes_the_payload(package: Path) -> None:
    values, payload = header_of(package)
    assert values["SHA"] == hashlib.sha256(payload).hexdigest()
    assert int(values["filesizes"]) == int(values["totalsize"]) == len(payload)
    assert values["MD5"] == "0" * 32
    assert values["CRCsum"] == call(["sh", "-c", f"tail -c {len(payload)} {package} | cksum"]).out.split()[0]
    assert (values["label"], values["script"]) == ("version:1.0", "./install.sh")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(payload))) as archive:
        names = archive.getnames()
        modes = {member.name: member.mode & 0o777 for member in archive}
    assert {"./install.sh", "./upgrade.sh", "./help.info"} <= set(names)
    assert "./packages/vendors/customize/version.info" in names
    assert modes["./install.sh"] == 0o540


def test_options_that_only_look(package: Path, opp: Path) -> None:
    env = {"ASCEND_OPP_PATH": str(opp)}
    helped = call([package, "--help"], env=env)
    assert helped.code == 0
    assert "--install-path=" in helped.err and "--install-for-all" in helped.err
    info = call([package, "--info"], env=env)
    assert info.code == 0 and "Identification: version:1.0" in info.out
    listed = call([package, "--list"], env=env)
    assert listed.code == 0 and "libcust_opapi.so" in listed.out
    tarred = call([package, "--tar", "tf"], env=env)
    assert tarred.code == 0 and "./packages/vendors/customize/version.info" in tarred.out.splitlines()
    checked = call([package, "--check", "--noexec"], env=env)
    assert checked.code == 0 and "All good." in checked.err
    assert list(opp.iterdir()) == []


def test_a_lone_check_installs(package: Path, opp: Path) -> None:
    done = call([package, "--check"], env={"ASCEND_OPP_PATH": str(opp)})
    assert done.code == 0
    assert done.out.rstrip().endswith("SUCCESS")
    assert (opp / "vendors/customize/op_api/lib/libcust_opapi.so").is_file()


@pytest.mark.parametrize(
    "option", ["--install", "--full", "--version", "--keep", "--target", "--noprogress", "--confirm", "stray"]
)
def test_an_unknown_option_prints_the_help(package: Path, opp: Path, option: str) -> None:
    done = call([package, option], env={"ASCEND_OPP_PATH": str(opp)})
    assert done.code == 1
    assert "Usage:" in done.err
    assert list(opp.iterdir()) == []


def test_install_for_all_exists_only_from_8_5_on(
    old: SandboxInfo, package: Path, make_package: PackageMaker, opp: Path
) -> None:
    env = {"ASCEND_OPP_PATH": str(opp)}
    assert call([make_package(old), "--install-for-all"], env=env).code == 1
    assert list(opp.iterdir()) == []
    assert call([package, "--install-for-all"], env=env).code == 0
    assert (opp / "vendors/config.ini").stat().st_mode & 0o777 == 0o755


def test_extract_keeps_the_directory(package: Path, tmp_path: Path, opp: Path) -> None:
    env = {"ASCEND_OPP_PATH": str(opp)}
    assert call([package, "--noexec", "--extract=out/deep"], env=env, cwd=tmp_path).code == 0
    assert (tmp_path / "out/deep/install.sh").is_file()
    assert list(opp.iterdir()) == []
    assert call([package, "--noexec", "--extract=cut=here"], env=env, cwd=tmp_path).code == 0
    assert (tmp_path / "cut/install.sh").is_file(), "the path ends at a second ="
    assert call([package, "--extract=run"], env=env, cwd=tmp_path).code == 0
    assert (tmp_path / "run/install.sh").is_file()
    assert (opp / "vendors/customize").is_dir(), "extract without noexec runs the installer"


def test_damage_is_found(package: Path, tmp_path: Path, opp: Path) -> None:
    env = {"ASCEND_OPP_PATH": str(opp), "TMPDIR": str(tmp_path)}
    raw = bytearray(package.read_bytes())
    raw[-100] ^= 0xFF
    damaged = tmp_path / "damaged.run"
    damaged.write_bytes(raw)
    short = tmp_path / "short.run"
    short.write_bytes(package.read_bytes()[:-7])
    for options in (["--check", "--noexec"], ["--quiet"]):
        done = call(["bash", damaged, *options], env=env)
        assert done.code == 2 and "Error in SHA256 checksums" in done.err
        done = call(["bash", short, *options], env=env)
        assert done.code == 2 and "Unexpected archive size." in done.err
    unchecked = call(["bash", damaged, "--quiet"], env={**env, "SETUP_NOCHECK": "1"})
    assert unchecked.code == 15
    assert list(opp.iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("selfgz")] == []


def test_it_unpacks_in_the_home_directory_unless_told_otherwise(
    package: Path, tmp_path: Path, opp: Path, own_home: Path
) -> None:
    env = {"ASCEND_OPP_PATH": str(opp)}
    own_home.chmod(0o700)
    private = tmp_path / "private"
    private.mkdir()
    script = 'strace -f -e trace=mkdir -o "$1" "$2" --quiet' if shutil.which("strace") else ""
    if script:
        trace = tmp_path / "trace"
        assert call(["bash", "-c", script, "-", trace, package], env=env).code == 0
        assert f'mkdir("{own_home}/selfgz' in trace.read_text()
    assert call([package, "--quiet"], env={**env, "TMPDIR": str(private)}).code == 0
    assert list(private.iterdir()) == [] and list(own_home.iterdir()) == []
    done = call([package, "--quiet"], env={**env, "HOME": "/nonexistent"}, cwd=private)
    assert done.code == 0, "without a home it unpacks in the current directory"


def test_the_installers_status_is_the_packages(package: Path) -> None:
    done = call([package, "--quiet"])
    assert done.code == 1
    assert "[ERROR] env ASCEND_OPP_PATH no exist" in done.out
    done = call([package, "--quiet", "--install-path=relative"])
    assert done.code == 1
    assert "absolute path" in done.out


def test_quiet_prints_less_and_still_says_success(package: Path, opp: Path) -> None:
    done = call([package, "--quiet", "--nox11", f"--install-path={opp}"])
    assert done.code == 0
    assert "Verifying" not in done.err
    assert done.out.splitlines()[-1] == "SUCCESS"


def test_a_blank_in_the_packages_path_swallows_the_install_path(package: Path, tmp_path: Path, opp: Path) -> None:
    """The header hands its own path to install.sh unquoted, which stops reading options at the blank."""
    folder = tmp_path / "my packages"
    folder.mkdir()
    moved = folder / "x.run"
    shutil.copy(package, moved)
    asked = tmp_path / "asked"
    done = call([moved, f"--install-path={asked}"], env={"ASCEND_OPP_PATH": str(opp)})
    assert done.code == 0
    assert not asked.exists()
    assert (opp / "vendors/customize").is_dir()
