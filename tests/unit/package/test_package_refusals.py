"""What reading a package or a vendor tree says when the disk, a stranger or the package itself stands in the way."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import AccessError, ConflictError, InstallError, PackageError, SmallqError, UsageError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.package import runfile, vendortree
from smallq_deploy.package.runfile import extract_vendor, read_run
from smallq_deploy.package.vendortree import flatten, inspect_vendor, normalise, ops_of_vendor, tree_arch
from tests.support import hostile, packages

# Those that take long to make are read by tests/faults/test_hostile_packages.py alone.
_SLOW = ("many_entries", "bomb", "32 MiB of names")
QUICK = [
    name for name in hostile.PACKAGES if name not in _SLOW and not any(word in name for word in ("000", "deep", "bomb"))
]


@pytest.mark.parametrize("name", QUICK)
def test_hostile_packages_give_their_code_or_stay_inside(tmp_path: Path, name: str) -> None:
    code, make = hostile.PACKAGES[name]
    path, trap = tmp_path / "package.run", tmp_path / "executed"
    make(path, f"touch {trap}")
    dest = tmp_path / "dest"
    sentinel = tmp_path / "sentinel"
    sentinel.mkdir()
    before = tree_digest(sentinel)
    if code in ("", "BAD_TREE"):
        extract_vendor(read_run(path), dest)
        assert all(dest in item.parents for item in dest.rglob("*"))
    else:
        with pytest.raises(SmallqError) as caught:
            extract_vendor(read_run(path), dest)
        assert caught.value.code == code
        assert caught.value.hint
        assert not dest.exists()
    assert not trap.exists()
    assert tree_digest(sentinel) == before
    assert sorted(set(os.listdir(tmp_path)) - {"dest"}) == ["package.run", "sentinel"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return packages.make_run(tmp_path / "op.run")


Refuse = Callable[..., None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refuse]:
    """``refuse(owner, "name", path, errno)``: this function answers so for this path (or for what is below it)."""

    def install(owner: Any, name: str, path: Path, code: int, *, below: bool = False) -> None:
        real = getattr(owner, name)

        def replacement(target: Any, *arguments: Any, **options: Any) -> Any:
            text = os.fspath(target) if isinstance(target, (str, os.PathLike)) else ""
            if text == os.fspath(path) or (below and text.startswith(f"{path}{os.sep}")):
                raise OSError(code, os.strerror(code), text)
            return real(target, *arguments, **options)

        monkeypatch.setattr(owner, name, replacement)

    yield install


class TestPackageFile:
    def test_places_that_are_no_package(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path, words in (
            (tmp_path / "missing", "does not exist"),
            (tmp_path, "is a directory"),
            (tmp_path / "pipe", "is no file"),
            (Path("/dev/null"), "is no file"),
        ):
            with pytest.raises(UsageError, match=words) as caught:
                read_run(path)
            assert caught.value.code == "PACKAGE_NOT_FOUND"
            assert str(path) in caught.value.message

    @pytest.mark.parametrize(("code", "kind"), [(errno.EACCES, AccessError), (errno.EIO, InstallError)])
    def test_a_package_that_may_not_be_read(
        self, package: Path, refuse: Refuse, code: int, kind: type[SmallqError]
    ) -> None:
        refuse(builtins, "open", package, code)
        with pytest.raises(kind) as caught:
            read_run(package)
        assert str(package) in caught.value.message

    @pytest.mark.parametrize("after", [0, 1, 2, 3])
    def test_a_disk_that_breaks_while_it_is_read(
        self, package: Path, monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        real = open
        reads = 0

        class Broken:
            def __init__(self, stream: Any) -> None:
                self.stream = stream

            def __getattr__(self, name: str) -> Any:
                return getattr(self.stream, name)

            def __enter__(self) -> Broken:
                return self

            def __exit__(self, *error: object) -> None:
                self.stream.close()

            def read(self, *size: int) -> Any:
                nonlocal reads
                reads += 1
                if reads > after:
                    raise OSError(errno.EIO, "broken disk", str(package))
                return self.stream.read(*size)

            readline = read

        def broken(path: Any, *arguments: Any, **options: Any) -> Any:
            stream = real(path, *arguments, **options)
            return Broken(stream) if path == package else stream

        monkeypatch.setattr(builtins, "open", broken)
        with pytest.raises(InstallError) as caught:
            read_run(package)
        assert caught.value.code == "IO_ERROR"
        assert str(package) in caught.value.message

    def test_its_digest_cannot_be_taken(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(path: Path) -> str:
            raise PermissionError(errno.EACCES, "no", str(path))

        monkeypatch.setattr(runfile, "sha256_file", broken)
        with pytest.raises(AccessError) as caught:
            read_run(package)
        assert str(package) in caught.value.message

    def test_a_package_that_is_replaced_between_reading_and_unpacking(self, package: Path, tmp_path: Path) -> None:
        run = read_run(package)
        packages.make_run(package, content="2")
        with pytest.raises(PackageError) as caught:
            extract_vendor(run, tmp_path / "dest")
        assert caught.value.code == "CHANGED"
        assert not (tmp_path / "dest").exists()

    def test_it_is_not_unpacked_over_something(self, package: Path, tmp_path: Path) -> None:
        dest = tmp_path / "dest"
        dest.mkdir()
        (dest / "theirs").write_text("x")
        with pytest.raises(UsageError) as caught:
            extract_vendor(read_run(package), dest)
        assert caught.value.code == "NOT_EMPTY"
        assert os.listdir(dest) == ["theirs"]

    def test_a_disk_that_is_full_while_it_is_unpacked(self, tmp_path: Path, package: Path, refuse: Refuse) -> None:
        run, dest = read_run(package), tmp_path / "dest"
        refuse(os, "mkdir", dest, errno.ENOSPC, below=True)
        with pytest.raises(InstallError) as caught:
            extract_vendor(run, dest)
        assert caught.value.code == "NO_SPACE"
        assert not dest.exists()

    def test_remains_that_cannot_be_removed_do_not_hide_the_cause(
        self, tmp_path: Path, package: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(path: Path) -> None:
            raise OSError(errno.EIO, "broken disk")

        run, dest = read_run(package), tmp_path / "dest"
        refuse(os, "mkdir", dest, errno.ENOSPC, below=True)
        monkeypatch.setattr(runfile, "remove_tree", broken)
        with pytest.raises(InstallError) as caught:
            extract_vendor(run, dest)
        assert caught.value.code == "NO_SPACE"

    def test_a_place_that_cannot_be_made(self, tmp_path: Path, package: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(SmallqError) as caught:
            extract_vendor(read_run(package), tmp_path / "file" / "dest")
        assert str(tmp_path / "file") in caught.value.message

    @pytest.mark.parametrize(
        ("install", "variant"),
        [
            ("", "unknown"),
            ("#!/bin/bash\n", "T1"),
            ("#!/bin/bash\n# install-for-all\n", "T2"),
            ("#!/bin/bash\napply_chmod\n", "D"),
        ],
    )
    def test_the_kind_of_its_install_script(self, tmp_path: Path, install: str, variant: str) -> None:
        members = packages.package_members({"customize": packages.vendor_files()}, install=install or "x")
        if not install:
            members = [(entry, data) for entry, data in members if entry.name != "./install.sh"]
        path = packages.write_run(tmp_path / "op.run", packages.pack(members))
        assert read_run(path).variant == variant


class TestVendorTree:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        return packages.make_vendor_tree(tmp_path / "customize", layout="flat", content="1")

    @pytest.fixture
    def nested(self, tmp_path: Path) -> Path:
        return packages.make_vendor_tree(tmp_path / "customize", layout="nested", content="1")

    def test_lists_that_cannot_be_read_count_as_none(self, tree: Path) -> None:
        (info,) = (path for _, path in vendortree.ops_info_files(tree))
        for text in ("{", "[]", "[" * 100_000, '"text"'):
            info.write_text(text)
            assert ops_of_vendor(tree) == frozenset()

    def test_a_directory_that_is_a_link_is_not_entered(self, tree: Path, tmp_path: Path) -> None:
        config = tree / vendortree.TBE / "config"
        config.rename(tmp_path / "elsewhere")
        config.symlink_to(tmp_path / "elsewhere")
        assert ops_of_vendor(tree) == frozenset()

    def test_the_architecture_comes_from_the_first_library_that_tells(self, tree: Path, refuse: Refuse) -> None:
        assert tree_arch(tree) == packages.ARCH
        library = tree / vendortree.API_LIBRARY
        library.write_bytes(b"no ELF")
        others = tree_arch(tree)
        library.unlink()
        os.mkfifo(library)
        assert tree_arch(tree) == others
        library.unlink()
        library.write_bytes(b"x")
        refuse(builtins, "open", library, errno.EACCES)
        assert tree_arch(tree) == others

    def test_a_tree_that_may_not_be_read(self, tree: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(root: Path) -> Any:
            raise PermissionError(errno.EACCES, "no", str(root / "op_api"))

        monkeypatch.setattr(vendortree, "walk_tree", broken)
        with pytest.raises(AccessError) as caught:
            inspect_vendor(tree)
        assert str(tree) in caught.value.message

    def test_of_two_copies_the_later_stays(self, nested: Path) -> None:
        inner = nested / "vendors" / "customize"
        packages.make_vendor_tree(nested, layout="flat", content="2")
        old, new = inner / vendortree.API_LIBRARY, nested / vendortree.API_LIBRARY
        os.utime(old, ns=(1, 1))
        os.utime(new, ns=(2, 2))
        wanted = new.read_bytes()
        assert flatten(nested)
        assert (nested / vendortree.API_LIBRARY).read_bytes() == wanted
        assert not (nested / "vendors").exists()

    def test_a_copy_without_the_library_loses(self, nested: Path) -> None:
        inner = nested / "vendors" / "customize"
        packages.make_vendor_tree(nested, layout="flat", content="2")
        wanted = (nested / vendortree.API_LIBRARY).read_bytes()
        (inner / vendortree.API_LIBRARY).unlink()
        assert flatten(nested)
        assert (nested / vendortree.API_LIBRARY).read_bytes() == wanted

    def test_copies_that_cannot_be_compared(self, nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        packages.make_vendor_tree(nested, layout="flat", content="2")

        def broken(path: Path) -> str:
            raise OSError(errno.EIO, "broken disk", str(path))

        before = tree_digest(nested)
        monkeypatch.setattr(vendortree, "sha256_file", broken)
        with pytest.raises(InstallError) as caught:
            flatten(nested)
        assert caught.value.code == "IO_ERROR"
        monkeypatch.undo()
        assert tree_digest(nested) == before

    def test_operators_are_not_lost_by_flattening(self, nested: Path) -> None:
        packages.make_vendor_tree(nested, layout="flat", content="2", ops=("VecAddSample",))
        before = tree_digest(nested)
        with pytest.raises(ConflictError) as caught:
            flatten(nested)
        assert caught.value.code == "LAYOUT_CONFLICT"
        assert tree_digest(nested) == before

    @pytest.mark.parametrize("change", [flatten, lambda root: normalise(root, final=root)])
    def test_a_disk_that_refuses_changes(
        self, nested: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
    ) -> None:
        def broken(*arguments: Any, **options: Any) -> Any:
            raise OSError(errno.EROFS, "read-only", str(nested))

        for owner, name in ((os, "rename"), (Path, "unlink"), (Path, "write_text")):
            monkeypatch.setattr(owner, name, broken)
        with pytest.raises(AccessError) as caught:
            change(nested)
        assert str(nested) in caught.value.message

    def test_directories_that_are_closed_are_flattened_all_the_same(self, nested: Path) -> None:
        (nested / "vendors").chmod(0o500)
        assert flatten(nested)
        assert inspect_vendor(nested).layout == "flat"

    def test_normalise_replaces_what_is_no_script_and_refuses_what_is_no_file(self, tree: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        script = tree / vendortree.SET_ENV
        if script.parent.exists():
            vendortree.remove_tree(script.parent)
        script.parent.symlink_to(outside)
        normalise(tree, final=tree)
        assert os.listdir(outside) == []
        assert not script.parent.is_symlink()
        assert script.read_text() == vendortree.set_env_text(tree)
        os.mkfifo(tree / "pipe")
        with pytest.raises(PackageError) as caught:
            normalise(tree, final=tree)
        assert caught.value.code == "UNSAFE_MEMBER"
        assert str(tree / "pipe") in caught.value.message

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_files_get_the_owner_of_the_directory_they_go_to(self, tree: Path, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        os.chown(home, 41, 42)
        normalise(tree, final=home / "customize")
        owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in tree.rglob("*")}
        assert owners == {(41, 42)}
