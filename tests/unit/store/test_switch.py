"""The switch alone: every method, what each does to the trees, and the way back from every halfway state."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError, InstallError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.store import switch as switches
from smallq_deploy.store.journal import Journal, TreeId, drop_journal, new_txid, read_journal, write_journal
from smallq_deploy.store.paths import Staging, Store
from smallq_deploy.store.switch import move, old_tree_place, restore, switch, take

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Stage:
    """A store with a live tree (content "old"), a staged one ("new"), and the journal that names both."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "opp")
        self.store.vendors.parent.mkdir(parents=True)
        self.store.create()
        self.area: Staging = self.store.staging("t1")
        self.area.root.mkdir()
        fill(self.store.live, "old")
        fill(self.area.tree, "new")
        self.digests = {tree_digest(self.store.live): "old", tree_digest(self.area.tree): "new"}
        self.notes: list[str] = []

    def journal(self, *, old: bool = True, new: bool = True, method: str = "") -> Journal:
        vendors = self.store.vendors
        live, tree = self.store.live, self.area.tree
        return Journal(
            *("t1", "install", "customize", "switching", "2026-01-01T00:00:00Z", {}),
            method=method,
            old_tree=TreeId.of(live, tree_digest(live), vendors) if old else None,
            new_tree=TreeId.of(tree, tree_digest(tree), vendors) if new else None,
        )

    def without(self, which: str) -> None:
        switches.remove_tree(self.store.live if which == "old" else self.area.tree)

    def at(self, path: Path) -> str:
        return self.digests.get(tree_digest(path), "something") if path.is_dir() else ""

    @property
    def places(self) -> tuple[str, str, str]:
        """What lies at live, staged, old."""
        return self.at(self.store.live), self.at(self.area.tree), self.at(self.area.old)

    def noter(self, journal: Journal) -> Callable[[str], Journal]:
        def note(method: str) -> Journal:
            from dataclasses import replace

            self.notes.append(method)
            return replace(journal, method=method)

        return note

    def switch(self, journal: Journal, force: str = "") -> Journal:
        return switch(self.store, self.area, journal, self.noter(journal), force=force)


def fill(path: Path, content: str) -> None:
    (path / "lib").mkdir(parents=True)
    (path / "lib" / "file.so").write_text(content * 100)
    (path / "link").symlink_to("lib/file.so")
    (path / "lib").chmod(0o750)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize(
    ("method", "after"),
    [("exchange", ("new", "old", "")), ("renames", ("new", "", "old")), ("copy", ("new", "", "old"))],
)
class TestMethods:
    def test_there_and_back(self, stage: Stage, method: str, after: tuple[str, str, str]) -> None:
        done = stage.switch(stage.journal(), method)
        assert (done.method, stage.notes, stage.places) == (method, [method], after)
        place = old_tree_place(stage.store, stage.area, done)
        assert place is not None
        assert stage.at(place) == "old"
        for _ in range(3):
            restore(stage.store, stage.area, done)
            assert stage.places[0] == "old"
            assert stage.places[1] == "new"

    def test_before_anything_was_done_restore_changes_nothing(
        self, stage: Stage, method: str, after: tuple[str, str, str]
    ) -> None:
        journal = stage.journal(method=method)
        before = tree_digest(stage.store.vendors)
        restore(stage.store, stage.area, journal)
        assert tree_digest(stage.store.vendors) == before

    def test_a_strangers_directory_is_never_touched(
        self, stage: Stage, method: str, after: tuple[str, str, str]
    ) -> None:
        done = stage.switch(stage.journal(), method)
        stage.store.live.rename(stage.store.vendors / "taken-away")
        stage.store.live.mkdir()  # may get the inode of a directory that was removed
        (stage.store.live / "theirs").write_text("x")
        before = tree_digest(stage.store.vendors)
        with pytest.raises(ConflictError) as caught:
            restore(stage.store, stage.area, done)
        assert caught.value.code == "RECOVERY_BLOCKED"
        assert str(stage.store.live) in caught.value.message
        assert "smallq-deploy recover" in caught.value.hint
        assert str(stage.area.root) in caught.value.hint
        assert caught.value.details == {"live": str(stage.store.live), "staging": str(stage.area.root)}
        assert tree_digest(stage.store.vendors) == before


class TestOneSide:
    def test_nothing_on_either_side_is_only_noted(self, stage: Stage) -> None:
        stage.without("new")
        stage.without("old")
        assert stage.switch(stage.journal(old=False, new=False)).method == "none"
        assert stage.places == ("", "", "")

    def test_first_install_is_one_rename(self, stage: Stage) -> None:
        stage.without("old")
        done = stage.switch(stage.journal(old=False))
        assert (done.method, stage.places) == ("rename", ("new", "", ""))
        assert old_tree_place(stage.store, stage.area, done) is None
        for _ in range(2):
            restore(stage.store, stage.area, done)
            assert stage.places == ("", "new", "")

    def test_a_directory_that_appeared_meanwhile_stops_the_way_back(self, stage: Stage) -> None:
        stage.without("old")
        journal = stage.journal(old=False, method="rename")
        fill(stage.store.live, "theirs")
        with pytest.raises(ConflictError, match="neither the old nor the new"):
            restore(stage.store, stage.area, journal)
        assert stage.places == ("something", "new", "")

    def test_removal_is_one_rename(self, stage: Stage) -> None:
        stage.without("new")
        done = stage.switch(stage.journal(new=False))
        assert (done.method, stage.places) == ("rename", ("", "", "old"))
        assert old_tree_place(stage.store, stage.area, done) == stage.area.old
        for _ in range(2):
            restore(stage.store, stage.area, done)
            assert stage.places == ("old", "", "")

    def test_removal_by_copy(self, stage: Stage) -> None:
        stage.without("new")
        done = stage.switch(stage.journal(new=False), "copy")
        assert (done.method, stage.places) == ("copy", ("", "", "old"))
        restore(stage.store, stage.area, done)
        assert stage.places == ("old", "", "")

    def test_exchange_cannot_be_forced_where_one_side_is_absent(self, stage: Stage) -> None:
        stage.without("old")
        assert stage.switch(stage.journal(old=False), "exchange").method == "rename"


class TestFallback:
    @pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP])
    def test_a_file_system_without_the_exchange(self, stage: Stage, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(first: Path, second: Path) -> None:
            raise OSError(code, "no")

        monkeypatch.setattr(switches, "rename_exchange", refuse)
        done = stage.switch(stage.journal())
        assert (done.method, stage.notes, stage.places) == ("renames", ["exchange", "renames"], ("new", "", "old"))

    def test_any_other_error_ends_it(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(first: Path, second: Path) -> None:
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr(switches, "rename_exchange", refuse)
        with pytest.raises(OSError, match="broken"):
            stage.switch(stage.journal())
        assert (stage.notes, stage.places) == (["exchange"], ("old", "new", ""))

    def test_a_live_tree_that_cannot_be_renamed_is_copied(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """As overlayfs answers for a directory of a lower layer."""
        real = os.rename

        def refuse(first: object, second: object, *more: object) -> None:
            if stage.store.live == first:
                raise OSError(errno.EXDEV, "lower layer")
            real(first, second)  # type: ignore[arg-type]

        def no_exchange(first: Path, second: Path) -> None:
            raise OSError(errno.EXDEV, "lower layer")

        monkeypatch.setattr(os, "rename", refuse)
        monkeypatch.setattr(switches, "rename_exchange", no_exchange)
        done = stage.switch(stage.journal())
        assert (done.method, stage.notes) == ("copy", ["exchange", "renames", "copy"])
        assert stage.places == ("new", "", "old")

    def test_the_last_methods_error_is_told(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object) -> None:
            raise OSError(errno.EXDEV, "everything is refused")

        monkeypatch.setattr(os, "rename", refuse)
        with pytest.raises(OSError, match="everything is refused"):
            stage.switch(stage.journal(), "renames")
        assert stage.places[0] == "old"

    def test_take_copies_only_what_cannot_be_renamed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(tmp_path / "a", "x")
        take(tmp_path / "a", tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["b"]
        for code, left in ((errno.EXDEV, ["b", "c"]), (errno.EACCES, ["b", "c"])):

            def refuse(*arguments: object, code: int = code) -> None:
                raise OSError(code, "no")

            monkeypatch.setattr(os, "rename", refuse)
            if code == errno.EXDEV:
                take(tmp_path / "b", tmp_path / "c")
                assert tree_digest(tmp_path / "b") == tree_digest(tmp_path / "c")
            else:
                with pytest.raises(OSError):
                    take(tmp_path / "b", tmp_path / "d")
            assert sorted(os.listdir(tmp_path)) == left


class TestCopy:
    @root_only
    def test_owners_and_special_bits_are_kept(self, stage: Stage) -> None:
        live = stage.store.live
        for path, owner in ((live, 11), (live / "lib", 12), (live / "lib" / "file.so", 13)):
            os.chown(path, owner, owner + 100)
        os.lchown(live / "link", 14, 114)
        (live / "lib" / "file.so").chmod(0o4751)
        target = stage.area.old
        switches._copy(live, target)
        found = [(target / name).lstat() for name in ("", "lib", "lib/file.so", "link")]
        assert [(info.st_uid, info.st_gid) for info in found] == [(11, 111), (12, 112), (13, 113), (14, 114)]
        assert found[2].st_mode & 0o7777 == 0o4751
        assert (live / "lib" / "file.so").stat().st_uid == 13

    def test_without_root_owners_are_left(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object, **more: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(os, "chown", refuse)
        switches._copy(stage.store.live, stage.area.old)
        assert stage.at(stage.area.old) == "old"

    def test_an_older_half_copy_is_replaced(self, stage: Stage) -> None:
        fill(stage.area.old, "half")
        done = stage.switch(stage.journal(), "copy")
        assert (done.method, stage.places) == ("copy", ("new", "", "old"))

    def test_a_tree_that_changes_meanwhile_is_not_removed(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = stage.journal()
        (stage.store.live / "lib" / "late").write_text("x")
        with pytest.raises(InstallError) as caught:
            stage.switch(journal, "copy")
        assert caught.value.code == "LIVE_CHANGED"
        assert str(stage.store.live) in caught.value.message
        assert "stop whatever writes there" in caught.value.hint
        assert stage.notes == []
        assert (stage.store.live / "lib" / "late").exists()
        assert stage.places[1] == "new"

    def test_remains_of_a_half_removed_old_tree_make_way_for_its_copy(self, stage: Stage) -> None:
        journal = stage.journal(method="copy")
        switches._copy(stage.store.live, stage.area.old)
        (stage.store.live / "lib" / "file.so").unlink()
        for _ in range(2):
            restore(stage.store, stage.area, journal)
            assert stage.places == ("old", "new", "")

    def test_a_whole_old_tree_stays_and_its_copy_too(self, stage: Stage) -> None:
        journal = stage.journal(method="copy")
        switches._copy(stage.store.live, stage.area.old)
        inode = stage.store.live.stat().st_ino
        restore(stage.store, stage.area, journal)
        assert stage.places == ("old", "new", "old")
        assert stage.store.live.stat().st_ino == inode


class TestAttack:
    def test_a_link_put_where_the_live_tree_was(self, stage: Stage, tmp_path: Path) -> None:
        journal = stage.journal()
        stage.store.live.rename(tmp_path / "hidden")
        stage.store.live.symlink_to(tmp_path / "hidden")
        with pytest.raises(InstallError, match="replaced by something that is no directory") as caught:
            stage.switch(journal, "exchange")
        assert caught.value.code == "LIVE_CHANGED"
        assert "run the command again" in caught.value.hint
        assert stage.store.live.is_symlink()
        assert stage.at(stage.area.tree) == "new"


class TestPower:
    def test_an_exchange_is_durable_on_both_sides(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(switches, "fsync_dir", synced.append)
        done = stage.switch(stage.journal(), "exchange")
        assert set(synced) == {stage.store.vendors, stage.area.root}
        synced.clear()
        restore(stage.store, stage.area, done)
        assert set(synced) == {stage.store.vendors, stage.area.root}

    def test_a_move_is_durable_on_both_sides_and_once_where_they_are_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(switches, "fsync_dir", synced.append)
        (tmp_path / "x").mkdir()
        fill(tmp_path / "a", "1")
        move(tmp_path / "a", tmp_path / "x" / "a")
        assert synced == [tmp_path / "x", tmp_path]
        synced.clear()
        move(tmp_path / "x" / "a", tmp_path / "x" / "b")
        assert synced == [tmp_path / "x"]

    def test_a_copy_is_durable_before_the_old_tree_goes(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        real = switches.remove_tree
        monkeypatch.setattr(switches, "fsync_tree", lambda path: said.append(f"tree {path.name}"))
        monkeypatch.setattr(switches, "fsync_dir", lambda path: said.append(f"dir {path.name}"))
        monkeypatch.setattr(switches, "remove_tree", lambda path: (said.append(f"remove {path.name}"), real(path)))
        stage.switch(stage.journal(), "copy")
        assert said == [
            *("remove old", "tree old", "dir t1"),
            *("remove customize", "dir vendors", "dir vendors", "dir t1"),
        ]

    def test_inodes_that_a_remount_changed_are_matched_by_content(self, stage: Stage) -> None:
        from dataclasses import replace

        done = stage.switch(stage.journal(), "exchange")
        assert done.old_tree is not None
        assert done.new_tree is not None
        other = replace(
            done, old_tree=replace(done.old_tree, ino=1, dev=1), new_tree=replace(done.new_tree, ino=2, dev=1)
        )
        assert old_tree_place(stage.store, stage.area, other) == stage.area.tree
        restore(stage.store, stage.area, other)
        assert stage.places == ("old", "new", "")

    def test_device_numbers_may_change_with_a_reboot_inodes_may_not(self, stage: Stage) -> None:
        from dataclasses import replace

        live, vendors = stage.store.live, stage.store.vendors
        tree = TreeId.of(live, "digest", vendors)
        assert tree.is_at(live, vendors)
        assert not tree.is_at(stage.area.tree, vendors)
        assert not tree.is_at(live / "missing", vendors)
        assert not tree.is_at(live / "link" / "below", vendors)
        assert not replace(tree, dev=tree.dev + 1).is_at(live, vendors)
        assert replace(tree, dev=tree.dev + 1, home_dev=tree.home_dev + 1).is_at(live, vendors)
        assert not replace(tree, ino=tree.ino + 1, home_dev=tree.home_dev + 1).is_at(live, vendors)
        file = live / "lib" / "file.so"
        assert not TreeId.of(file, "", vendors).is_at(file, vendors)


class TestJournal:
    def test_it_comes_back_as_it_was_written(self, stage: Stage) -> None:
        from smallq_deploy.store.journal import ConfigChange

        journal = stage.journal(method="exchange")
        full = Journal.from_dict({**journal.to_dict(), "unknown": 1, "config": ConfigChange("a", None, 0o600).__dict__})
        assert full.config == ConfigChange("a", None, 0o600)
        assert full.old_tree == journal.old_tree
        assert write_journal(stage.store, full) is full
        assert read_journal(stage.store) == full
        drop_journal(stage.store)
        drop_journal(stage.store)
        assert read_journal(stage.store) is None

    def test_on_disk_it_is_one_line_of_ascii_with_sorted_keys(self, stage: Stage) -> None:
        """Read by people at night and by older and newer versions: schema, every field, no encoding to guess."""
        journal = Journal(*("t1", "install", "中", "staging", "2026-01-01T00:00:00Z", {"user": "é"}))
        write_journal(stage.store, journal)
        raw = stage.store.journal.read_bytes()
        assert raw.isascii() and raw.endswith(b"}\n") and raw.count(b"\n") == 1
        record = json.loads(raw)
        assert list(record) == sorted(record)
        assert record["schema"] == 1 and record["owner"] == {"user": "é"} and record["vendor"] == "中"
        assert read_journal(stage.store) == journal

    def test_names_of_transactions_differ_and_are_names(self) -> None:
        names = {new_txid() for _ in range(100)}
        assert len(names) == 100
        assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)

    def test_what_a_tree_is_known_by(self, stage: Stage) -> None:
        live, vendors = stage.store.live, stage.store.vendors
        info = live.lstat()
        known = TreeId.of(live, "d1g", vendors)
        assert known == TreeId(info.st_dev, info.st_ino, vendors.lstat().st_dev, "d1g")
        assert not known.is_at(live / "missing", vendors)
        assert not known.is_at(live / "lib" / "file.so" / "below", vendors)

    @pytest.mark.parametrize(
        "change",
        [
            {"phase": "somewhere"},
            {"old_tree": {"dev": 1}},
            {"txid": None, "vendor": ...},
            *({"txid": name} for name in ("", ".", "..", "a/b")),
            {"old": "1"},
            {"new_tree": {"dev": 1, "ino": "2", "home_dev": 3, "digest": ""}},
            {"config": {"before": 1, "after": None}},
        ],
    )
    def test_what_cannot_be_understood_is_refused(self, stage: Stage, change: dict[str, object]) -> None:
        record = {**stage.journal().to_dict(), **change}
        record = {key: value for key, value in record.items() if value is not ...}
        stage.store.journal.write_text(json.dumps(record))
        with pytest.raises(InstallError) as caught:
            read_journal(stage.store)
        assert caught.value.code == "JOURNAL_DAMAGED"
        assert str(stage.store.journal) in caught.value.message
        assert caught.value.hint == "nothing was changed; keep the file and report it"
        assert caught.value.details == {"path": str(stage.store.journal)}

    def test_dropping_it_is_durable(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        from smallq_deploy.store import journal as journals

        synced: list[Path] = []
        write_journal(stage.store, stage.journal())
        monkeypatch.setattr(journals, "fsync_dir", synced.append)
        drop_journal(stage.store)
        assert synced == [stage.store.root]
        drop_journal(stage.store)
        assert synced == [stage.store.root]
