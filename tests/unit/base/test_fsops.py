"""File operations: what is on disk afterwards, what is refused, what is never followed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from smallq_deploy.base import fsops
from smallq_deploy.base.errors import InstallError
from smallq_deploy.base.fsops import FileEntry


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that were fsynced, in order."""
    found: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def make_tree(root: Path) -> Path:
    (root / "b" / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"alpha")
    (root / "b" / "deep" / "c").write_bytes(b"x" * 5000)
    (root / "b" / "link").symlink_to("../a")
    (root / "a").chmod(0o640)
    (root / "b").chmod(0o750)
    return root


class TestDurability:
    def test_a_tree_is_synced_leaves_first_and_links_are_not(self, tmp_path: Path, synced: list[str]) -> None:
        root = make_tree(tmp_path / "t")
        (root / "outside").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_text("not ours")
        fsops.fsync_tree(root)
        places = [Path(item) for item in synced]
        assert sorted(places) == [root, *(root / name for name in ("a", "b", "b/deep", "b/deep/c"))]
        assert places[-1] == root
        assert places.index(root / "b/deep/c") < places.index(root / "b/deep") < places.index(root / "b")

    def test_write_atomic_syncs_the_file_before_the_rename_and_the_directory_after(
        self, tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "state"
        target.write_text("old")
        real = os.rename

        def rename(source: object, destination: object) -> None:
            synced.append(f"rename {Path(str(source)).name} {Path(str(destination)).name}")
            real(str(source), str(destination))

        monkeypatch.setattr(os, "rename", rename)
        fsops.write_atomic(target, "new", mode=0o600)
        assert synced == [str(tmp_path / ".state.new"), "rename .state.new state", str(tmp_path)]
        assert target.read_text() == "new"
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == ["state"]

    def test_write_atomic_gives_the_mode_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            fsops.write_atomic(tmp_path / "a", b"\xff\x00")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
        assert (tmp_path / "a").read_bytes() == b"\xff\x00"

    def test_write_atomic_that_fails_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "state"
        target.write_text("old")

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            fsops.write_atomic(target, "new")
        assert target.read_text() == "old"
        assert os.listdir(tmp_path) == ["state"]

    def test_a_failure_is_told_even_where_the_remains_cannot_be_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object) -> None:
            raise OSError(errno.EIO, "broken disk")

        monkeypatch.setattr(os, "rename", refuse)
        monkeypatch.setattr(os, "unlink", refuse)
        with pytest.raises(OSError, match="broken disk"):
            fsops.write_atomic(tmp_path / "state", "new")

    def test_write_atomic_never_writes_through_what_lies_at_the_temporary_name(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("theirs")
        (tmp_path / ".state.new").symlink_to(victim)
        fsops.write_atomic(tmp_path / "state", "ours")
        os.link(victim, tmp_path / ".state.new")
        fsops.write_atomic(tmp_path / "state", "ours again")
        assert victim.read_text() == "theirs"
        assert (tmp_path / "state").read_text() == "ours again"

    def test_append_line_is_durable_and_closes_a_torn_line(self, tmp_path: Path, synced: list[str]) -> None:
        path = tmp_path / "history"
        fsops.append_line(path, "one")
        assert synced == [str(path), str(tmp_path)]
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        with open(path, "a") as stream:
            stream.write("to")
        fsops.append_line(path, "three")
        fsops.append_line(path, "four")
        assert path.read_text() == "one\nto\nthree\nfour\n"

    def test_append_line_leaves_the_other_name_of_a_file_alone(self, tmp_path: Path) -> None:
        path, backup = tmp_path / "history", tmp_path / "backup"
        path.write_text("one\ntor")
        path.chmod(0o600)
        os.link(path, backup)
        fsops.append_line(path, "two")
        assert path.read_text() == "one\ntor\ntwo\n"
        assert backup.read_text() == "one\ntor"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("before", ["", "one\n"])
    def test_append_line_to_a_shared_file_adds_no_empty_line(self, tmp_path: Path, before: str) -> None:
        path = tmp_path / "history"
        path.write_text(before)
        os.link(path, tmp_path / "backup")
        fsops.append_line(path, "two")
        assert path.read_text() == before + "two\n"

    def test_only_what_was_named_is_synced(self, tmp_path: Path, synced: list[str]) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("file")
        with pytest.raises(NotADirectoryError):
            fsops.fsync_dir(tmp_path / "file")
        with pytest.raises(OSError) as caught:
            fsops.fsync_file(tmp_path / "link")
        assert caught.value.errno == errno.ELOOP
        assert synced == []

    def test_modes_are_those_of_data_that_all_may_read(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            os.close(fsops.open_plain(tmp_path / "opened", os.O_WRONLY | os.O_CREAT))
            os.close(fsops.create_new(tmp_path / "created"))
            fsops.append_line(tmp_path / "appended", "a line", mode=0o640)
        finally:
            os.umask(before)
        modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in tmp_path.iterdir()}
        assert modes == {"opened": 0o644, "created": 0o644, "appended": 0o640}


class TestExchange:
    def test_two_directories_change_places(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "who").write_text(name)
        fsops.rename_exchange(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a" / "who").read_text() == "b"
        assert (tmp_path / "b" / "who").read_text() == "a"

    def test_the_kernels_error_is_told_with_the_path(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(OSError) as caught:
            fsops.rename_exchange(tmp_path / "a", tmp_path / "missing")
        assert caught.value.errno == errno.ENOENT
        assert caught.value.filename == str(tmp_path / "a")
        assert caught.value.strerror == os.strerror(errno.ENOENT)

    def test_a_libc_without_the_call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fsops.ctypes, "CDLL", lambda *a, **k: object())
        with pytest.raises(OSError) as caught:
            fsops.rename_exchange(tmp_path / "a", tmp_path / "b")
        assert caught.value.errno == errno.ENOSYS
        assert caught.value.filename == str(tmp_path / "a")


class TestRemove:
    def test_a_link_goes_and_its_target_stays(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "kept").write_text("x")
        (tmp_path / "t" / "sub").mkdir(parents=True)
        (tmp_path / "t" / "sub" / "door").symlink_to(outside)
        (tmp_path / "door").symlink_to(outside)
        fsops.remove_tree(tmp_path / "t")
        fsops.remove_tree(tmp_path / "door")
        assert sorted(os.listdir(tmp_path)) == ["outside"]
        assert (outside / "kept").read_text() == "x"

    def test_missing_and_plain_files(self, tmp_path: Path) -> None:
        fsops.remove_tree(tmp_path / "missing")
        (tmp_path / "file").touch()
        fsops.remove_tree(tmp_path / "file")
        assert os.listdir(tmp_path) == []

    def test_directories_without_permissions_are_opened_first(self, tmp_path: Path) -> None:
        """Seen as a user whom permissions bind."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                tree = make_tree(tmp_path / "t")
                outside = tmp_path / "outside"
                outside.mkdir(mode=0o500)
                (tree / "b" / "door").symlink_to(outside)
                if os.geteuid() == 0:
                    for path in (tmp_path, tree, *(tree / name for name, _ in fsops.walk_tree(tree)), outside):
                        os.chown(path, 65534, 65534, follow_symlinks=False)
                    for parent in tmp_path.parents:
                        if parent.stat().st_mode & 0o005 != 0o005:
                            parent.chmod(parent.stat().st_mode | 0o055)
                    os.setgroups([])
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(65534, 65534, 65534)
                (tree / "b" / "deep").chmod(0o500)
                (tree / "b").chmod(0o000)
                fsops.remove_tree(tree)
                code = 0 if not tree.exists() and stat.S_IMODE(outside.stat().st_mode) == 0o500 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        fsops.remove_tree(tmp_path / "outside")
        assert not (tmp_path / "outside").exists()

    def test_an_error_names_the_whole_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = make_tree(tmp_path / "t")
        real = os.unlink

        def unlink(path: str, *, dir_fd: int | None = None) -> None:
            if os.path.basename(path) == "c":
                raise OSError(errno.EIO, "broken disk", path)
            real(path, dir_fd=dir_fd)

        monkeypatch.setattr(os, "unlink", unlink)
        with pytest.raises(OSError) as caught:
            fsops.remove_tree(root)
        found = caught.value
        assert (found.errno, found.strerror, found.filename) == (errno.EIO, "broken disk", str(root / "b/deep/c"))

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("without a number")])
    def test_what_is_no_error_of_the_disk_is_passed_on(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught:
            fsops._stop("place", error)
        assert caught.value is error


class TestTrees:
    def test_entries_say_everything(self, tmp_path: Path) -> None:
        root = make_tree(tmp_path / "t")
        os.utime(root / "a", ns=(1, 123_456_789_000))
        found = fsops.tree_entries(root)
        assert [(item.path, item.kind, item.mode, item.size, item.target) for item in found] == [
            ("a", "file", 0o640, 5, ""),
            ("b", "dir", 0o750, 0, ""),
            ("b/deep", "dir", 0o755, 0, ""),
            ("b/deep/c", "file", 0o644, 5000, ""),
            ("b/link", "link", 0o777, 0, "../a"),
        ]
        assert found[0].sha256 == hashlib.sha256(b"alpha").hexdigest()
        assert found[0].mtime_ns == 123_456_789_000
        assert fsops.sha256_file(root / "b/deep/c") == hashlib.sha256(b"x" * 5000).hexdigest()
        assert [item.sha256 for item in fsops.tree_entries(root, digests=False)] == [""] * 5
        assert [FileEntry.from_dict(json.loads(json.dumps(item.to_dict()))) for item in found] == list(found)
        assert found[0].to_dict() == {
            "path": "a",
            "kind": "file",
            "mode": "0640",
            "size": 5,
            "sha256": found[0].sha256,
            "mtime_ns": 123_456_789_000,
        }
        assert found[4].to_dict() == {"path": "b/link", "kind": "link", "mode": "0777", "target": "../a"}

    def test_a_large_file_is_digested_whole(self, tmp_path: Path) -> None:
        data = os.urandom((1 << 20) + 17)
        (tmp_path / "big").write_bytes(data)
        assert fsops.sha256_file(tmp_path / "big") == hashlib.sha256(data).hexdigest()

    @pytest.mark.parametrize(("processors", "at_once"), [(1, 1), (None, 1), (2, 2), (64, 4)])
    def test_a_large_tree_is_digested_by_some_threads(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int | None, at_once: int
    ) -> None:
        for number in range(9):
            (tmp_path / f"f{number}").write_bytes(bytes([number]) * ((1 << 21) + number))
        real, order, threads = fsops.sha256_file, list[str](), set[int]()
        together = threading.Barrier(at_once)

        def digest(path: Path) -> str:
            order.append(path.name)
            threads.add(threading.get_ident())
            if len(order) <= at_once:
                together.wait(20)
            return real(path)

        monkeypatch.setattr(fsops, "sha256_file", digest)
        monkeypatch.setattr(os, "cpu_count", lambda: processors)
        found = {item.path: item.sha256 for item in fsops.tree_entries(tmp_path)}
        data = {f"f{number}": bytes([number]) * ((1 << 21) + number) for number in range(9)}
        assert found == {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        assert len(threads) == at_once
        if at_once > 1:
            assert sorted(order[:at_once]) == [f"f{number}" for number in range(9 - at_once, 9)]  # the largest first

    def test_a_file_that_cannot_be_read_ends_all_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(40):
            (tmp_path / f"f{number:02}").write_bytes(bytes(1 << 19))
        asked = list[str]()
        failed = threading.Event()

        def digest(path: Path) -> str:
            asked.append(path.name)
            if path.name == "f03":
                failed.set()
                raise IndexError("f03")  # of the reading itself, not of the end of the list
            if len(asked) > 4:
                assert failed.wait(20)
                time.sleep(0.01)
            return path.name

        monkeypatch.setattr(fsops, "sha256_file", digest)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        with pytest.raises(IndexError, match="f03"):
            fsops.tree_entries(tmp_path)
        assert len(asked) < 40

    @pytest.mark.parametrize(("size", "here"), [((16 << 20) - 1, True), (16 << 20, False)])
    def test_a_small_tree_needs_no_threads(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, here: bool
    ) -> None:
        (tmp_path / "big").touch()
        os.truncate(tmp_path / "big", size - 1)
        (tmp_path / "small").write_bytes(b"1")
        threads = set[int]()

        def digest(path: Path) -> str:
            threads.add(threading.get_ident())
            return path.name

        monkeypatch.setattr(fsops, "sha256_file", digest)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        assert [item.sha256 for item in fsops.tree_entries(tmp_path)] == ["big", "small"]
        assert (threads == {threading.get_ident()}) is here

    def test_a_record_needs_only_what_its_kind_has(self) -> None:
        record = {"path": "d", "kind": "dir", "mode": "0750"}
        assert FileEntry.from_dict(record) == FileEntry("d", "dir", 0o750, 0, "", "", 0)
        assert FileEntry("d", "dir", 0o750).to_dict() == record

    def test_a_pipe_is_other(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        assert fsops.tree_entries(tmp_path) == (FileEntry("pipe", "other", 0o600),)

    def test_the_digest_sees_every_change_but_times_and_order(self, tmp_path: Path) -> None:
        root = make_tree(tmp_path / "t")
        first = fsops.tree_digest(root)
        os.utime(root / "a", ns=(5, 5))
        assert fsops.tree_digest(root) == first
        assert fsops.entries_digest(reversed(fsops.tree_entries(root))) == first
        seen = {first}
        for change in (
            lambda: (root / "a").chmod(0o644),
            lambda: (root / "a").write_bytes(b"alphb"),
            lambda: (root / "a").rename(root / "z"),
            lambda: (root / "b").chmod(0o755),
            lambda: ((root / "b/link").unlink(), (root / "b/link").symlink_to("../b")),
            lambda: (root / "new").mkdir(),
        ):
            change()
            seen.add(fsops.tree_digest(root))
        assert len(seen) == 7

    def test_the_digest_is_the_documented_one(self, tmp_path: Path) -> None:
        """Generations on disk are compared with it for years: it must not change with a rewrite."""
        entries = [FileEntry("é", "file", 0o640, 5, "ab" * 32), FileEntry("a", "link", 0o777, target="../x")]
        lines = ['["a", "link", "0777", "", "../x"]\n', f'["\\u00e9", "file", "0640", "{"ab" * 32}", ""]\n']
        assert fsops.entries_digest(entries) == hashlib.sha256("".join(lines).encode()).hexdigest()

    def test_size_is_counted_in_blocks(self, tmp_path: Path) -> None:
        root = tmp_path / "t"
        root.mkdir()
        assert fsops.tree_size(root) == 0
        (root / "empty").touch()
        assert fsops.tree_size(root) == 4096
        (root / "one").write_bytes(b"1" * 4096)
        (root / "more").write_bytes(b"1" * 4097)
        assert fsops.tree_size(root) == 4096 + 4096 + 8192

    def test_too_deep_a_tree_is_an_error_and_no_crash(self, tmp_path: Path) -> None:
        place = tmp_path
        for _ in range(200):
            place = place / "d"
        place.mkdir(parents=True)
        assert len(list(fsops.walk_tree(tmp_path))) == 200
        (place / "d").mkdir()
        with pytest.raises(OSError) as caught:
            list(fsops.walk_tree(tmp_path))
        assert caught.value.errno == errno.ENAMETOOLONG
        assert "nested more than 200 deep" in str(caught.value)

    def test_a_copy_has_links_modes_and_times_and_shares_nothing(self, tmp_path: Path) -> None:
        root = make_tree(tmp_path / "t")
        os.utime(root / "a", ns=(1_000_000_000, 2_000_000_007))
        os.link(root / "a", root / "second")
        fsops.copy_tree(root, tmp_path / "copy")
        assert fsops.tree_digest(tmp_path / "copy") == fsops.tree_digest(root)
        info = (tmp_path / "copy" / "a").stat()
        assert (info.st_mtime_ns, info.st_nlink) == (2_000_000_007, 1)
        assert info.st_atime_ns != 0

    def test_a_copy_does_not_write_over_a_file(self, tmp_path: Path) -> None:
        for name in ("file", "copy"):
            (tmp_path / name).write_text(name)
        with pytest.raises(FileExistsError):
            fsops._copy_plain(str(tmp_path / "file"), str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_text() == "copy"

    def test_a_copy_of_something_odd_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        root = make_tree(tmp_path / "t")
        os.mkfifo(root / "b" / "pipe")
        with pytest.raises(InstallError) as caught:
            fsops.copy_tree(root, tmp_path / "copy")
        assert caught.value.code == "UNSAFE_TREE"
        assert str(root / "b" / "pipe") in caught.value.message
        assert caught.value.message.endswith("is neither file, directory nor link: it cannot be copied")
        assert caught.value.hint == "move it out of the vendor directory and run the command again"
        assert caught.value.details == {"path": str(root / "b" / "pipe")}
        assert not (tmp_path / "copy").exists()

    def test_a_link_that_took_a_files_place_is_not_followed(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("theirs")
        (tmp_path / "file").symlink_to(secret)
        with pytest.raises(OSError) as caught:
            fsops._copy_plain(str(tmp_path / "file"), str(tmp_path / "copy"))
        assert caught.value.errno == errno.ELOOP
        assert not (tmp_path / "copy").exists()
