"""A package is read as data, refused when it is not whole or not safe, and unpacked only inside its place."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from smallq_deploy.base.errors import InstallError, PackageError, SmallqError, UsageError
from smallq_deploy.base.fsops import tree_digest, tree_entries
from smallq_deploy.package import installscript
from smallq_deploy.package.runfile import extract_vendor, read_run, run_installer
from smallq_deploy.package.vendortree import normalise
from tests.support import packages
from tests.support.packages import ARCH, DAMAGES, OPERATOR, UNIT, make_run


def test_what_a_package_says(tmp_path: Path) -> None:
    path = make_run(tmp_path / "op.run", ops=(OPERATOR, "VecAddSample"), arch="aarch64")
    run = read_run(path)
    assert (run.vendor, run.arch, run.units) == ("customize", "aarch64", (UNIT,))
    assert run.ops == (OPERATOR, "VecAddSample")
    assert (run.label, run.script, run.variant) == ("version:1.0", "./install.sh", "T2")
    assert run.compiler_version == "8.5.0"
    assert run.payload_offset + run.payload_size == path.stat().st_size
    links = [member for member in run.vendor_members if member.kind == "link"]
    assert [link.path for link in links] == ["op_impl/ai_core/tbe/op_tiling/liboptiling.so"]
    assert links[0].target == "lib/linux/aarch64/libcust_opmaster_rt2.0.so"
    assert run.unpacked_size >= sum(member.size for member in run.vendor_members)
    assert run.to_dict()["sha256"] == run.file_sha256


@pytest.mark.parametrize(
    ("marker", "variant"), [("", "T1"), ("# --install-for-all", "T2"), ("# apply_chmod --install-for-all", "D")]
)
def test_the_kind_of_install_script_is_recognised(tmp_path: Path, marker: str, variant: str) -> None:
    members = packages.package_members({"customize": packages.vendor_files()}, install=f"#!/bin/sh\n{marker}\n")
    assert read_run(packages.write_run(tmp_path / "op.run", packages.pack(members))).variant == variant


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_and_hostile_packages(tmp_path: Path, damage: str) -> None:
    """Each is refused with its own code before anything is written; nothing of it is ever executed."""
    path = make_run(tmp_path / "op.run", damage=damage)
    before = tree_digest(tmp_path)
    if not DAMAGES[damage]:
        assert read_run(path).ops == (OPERATOR,)
        return
    with pytest.raises(PackageError) as caught:
        read_run(path)
    assert caught.value.code == DAMAGES[damage]
    assert caught.value.hint
    assert caught.value.exit_status == 5
    assert caught.value.message.isprintable()
    assert tree_digest(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "code"), [("missing.run", "PACKAGE_NOT_FOUND"), (".", "PACKAGE_NOT_FOUND"), ("a.run/b", "IO_ERROR")]
)
def test_paths_that_are_no_file(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "a.run").write_bytes(b"x")
    with pytest.raises(SmallqError) as caught:
        read_run(tmp_path / name)
    assert caught.value.code == code


def test_reading_never_runs_the_script(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    header = packages._HEADER.replace("#!/bin/bash\n", f"#!/bin/bash\ntouch {witness}\n")
    payload = packages.pack(
        packages.package_members({"customize": packages.vendor_files()}, install=f"#!/bin/sh\ntouch {witness}\n")
    )
    run = read_run(packages.write_run(tmp_path / "op.run", payload, header=header))
    extract_vendor(run, tmp_path / "out")
    assert not witness.exists()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_tar_format(tmp_path: Path, format: int) -> None:
    files = packages.vendor_files()
    long = "op_impl/ai_core/tbe/customize_impl/ascendc/" + "/".join(f"directory_{index:02}" for index in range(9))
    long += "/kernel_source_with_a_long_name.h"
    files[long] = b"long"
    members = packages.package_members({"customize": files})
    run = read_run(packages.write_run(tmp_path / "op.run", packages.pack(members, format=format)))
    extract_vendor(run, tmp_path / "out")
    assert (tmp_path / "out" / long).read_bytes() == b"long"


def test_names_beyond_ascii_survive_in_pax_and_gnu(tmp_path: Path) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        files = {**packages.vendor_files(), "op_api/说明.txt": b"text"}
        members = packages.package_members({"customize": files})
        run = read_run(packages.write_run(tmp_path / "op.run", packages.pack(members, format=format)))
        extract_vendor(run, tmp_path / f"out{format}")
        assert (tmp_path / f"out{format}" / "op_api" / "说明.txt").exists()


def test_a_huge_extended_header_is_refused(tmp_path: Path) -> None:
    """tarfile would hold all of it in memory."""
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 10 << 20
    payload = packages.pack([(entry, bytes(10 << 20))])
    with pytest.raises(PackageError) as caught:
        read_run(packages.write_run(tmp_path / "op.run", payload))
    assert caught.value.code == "TOO_BIG"


def test_memory_stays_bounded_on_a_package_of_zeros(tmp_path: Path) -> None:
    import tracemalloc

    payload = packages.pack([packages.member("./packages/vendors/customize/zeros", bytes(60 << 20))])
    path = packages.write_run(tmp_path / "op.run", payload)
    tracemalloc.start()
    with pytest.raises(PackageError):
        read_run(path)  # EMPTY_PACKAGE: below the limit from which the ratio counts
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_extraction(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "op.run"))
    os.umask(0o077)
    try:
        extract_vendor(run, tmp_path / "a" / "out")
    finally:
        os.umask(0o022)
    entries = {entry.path: entry for entry in tree_entries(tmp_path / "a" / "out")}
    expected = packages.vendor_files()
    assert {path for path, entry in entries.items() if entry.kind != "dir"} == set(expected)
    assert {entry.mode for entry in entries.values() if entry.kind == "file"} == {0o644}
    assert {entry.mode for entry in entries.values() if entry.kind == "dir"} == {0o755}
    assert entries["op_impl/ai_core/tbe/op_tiling/liboptiling.so"].kind == "link"
    assert (tmp_path / "a/out/op_api/lib/libcust_opapi.so").read_bytes() == expected["op_api/lib/libcust_opapi.so"]


def test_extraction_refuses_a_directory_in_use_and_a_replaced_package(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "op.run"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UsageError) as caught:
        extract_vendor(run, tmp_path / "full")
    assert caught.value.code == "NOT_EMPTY"
    assert (tmp_path / "full" / "file").read_text() == "mine"
    make_run(tmp_path / "op.run", content="another build")
    with pytest.raises(PackageError) as changed:
        extract_vendor(run, tmp_path / "out")
    assert changed.value.code == "CHANGED"
    assert not (tmp_path / "out").exists()
    make_run(tmp_path / "op.run", damage="flipped_byte")
    with pytest.raises(PackageError):
        extract_vendor(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("directory", ["plain", "with space"])
def test_both_routes_leave_the_same_bytes(tmp_path: Path, directory: str) -> None:
    """Extraction, and the package's own script (also when the package lies in a path that would confuse it)."""
    (tmp_path / directory).mkdir()
    run = read_run(make_run(tmp_path / directory / "op.run"))
    final = tmp_path / "opp" / "vendors" / "customize"
    extract_vendor(run, tmp_path / "extracted")
    produced = run_installer(run, tmp_path / "staging")
    assert "ASCEND_CUSTOM_OPP_PATH" in (produced / "bin" / "set_env.bash").read_text()
    assert sorted(os.listdir(tmp_path / "staging")) == ["root"]
    for tree in (tmp_path / "extracted", produced):
        normalise(tree, final=final)
    assert tree_digest(produced) == tree_digest(tmp_path / "extracted")


def test_the_script_gets_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(tmp_path / "wrong"))
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "wrong"))
    script = (
        "#!/bin/bash\n"
        f"{{ env; umask; pwd; ls -l /proc/self/fd/0; }} > {tmp_path}/seen\n" + packages._INSTALL.split("\n", 1)[1]
    )
    members = packages.package_members({"customize": packages.vendor_files()}, install=script)
    run = read_run(packages.write_run(tmp_path / "op.run", packages.pack(members)))
    run_installer(run, tmp_path / "staging")
    seen = (tmp_path / "seen").read_text()
    assert "ASCEND_" not in seen
    assert f"HOME={tmp_path}/staging/home" in seen
    assert f"TMPDIR={tmp_path}/staging/tmp" in seen
    assert "\n0022\n" in seen
    assert "/dev/null" in seen
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("last", "code", "text"),
    [
        ("echo SUCCESS; exit 3", "INSTALLER_FAILED", "exit status 3"),
        ("echo done", "INSTALLER_FAILED", "did not print SUCCESS"),
        ("echo SUCCESS; echo but not last", "INSTALLER_FAILED", "did not print SUCCESS"),
        ("sleep 60; echo SUCCESS", "INSTALLER_FAILED", "did not end within"),
        ("rm $target/vendors/$vendor/op_api/lib/*; echo SUCCESS", "INSTALLER_INCOMPLETE", "is missing"),
        (": > $target/vendors/$vendor/version.info; echo SUCCESS", "INSTALLER_INCOMPLETE", "0 of "),
        ("touch $target/vendors/$vendor/extra; echo SUCCESS", "INSTALLER_INCOMPLETE", "extra is not from the package"),
        ("rm -rf $target/vendors; echo SUCCESS", "INSTALLER_INCOMPLETE", "is missing"),
    ],
)
def test_an_installer_is_not_believed_easily(tmp_path: Path, last: str, code: str, text: str) -> None:
    members = packages.package_members({"customize": packages.vendor_files()}, last=last)
    run = read_run(packages.write_run(tmp_path / "op.run", packages.pack(members)))
    with pytest.raises(InstallError) as caught:
        run_installer(run, tmp_path / "staging", timeout=3.0 if "sleep" in last else 60.0)
    assert caught.value.code == code
    assert text in caught.value.message
    assert os.listdir(tmp_path / "staging") == []


def test_an_installer_is_not_run_from_a_changed_package_or_into_a_space(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "op.run"))
    with pytest.raises(UsageError) as space:
        run_installer(run, tmp_path / "a b")
    assert space.value.code == "BAD_PATH"
    make_run(tmp_path / "op.run", content="2")
    with pytest.raises(PackageError) as changed:
        installscript.install_by_script(run, tmp_path / "staging")
    assert changed.value.code == "CHANGED"
    assert os.listdir(tmp_path / "staging") == []


def test_architecture_of_the_host_is_not_assumed(tmp_path: Path) -> None:
    other = "aarch64" if ARCH == "x86_64" else "x86_64"
    assert read_run(make_run(tmp_path / "op.run", arch=other)).arch == other
