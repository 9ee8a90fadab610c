"""What the store says when a file of its own is damaged, foreign or cannot be read: typed, with the path, unchanged."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import AccessError, ConflictError, InstallError, OpenTransactionError, SmallqError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.mover import recover_store, rollback, uninstall
from smallq_deploy.store import configini, settle, transaction
from smallq_deploy.store.generations import (
    entries,
    generation_numbers,
    list_generations,
    load_generation,
    next_number,
    read_state,
)
from smallq_deploy.store.history import read_history
from smallq_deploy.store.journal import read_journal
from smallq_deploy.store.live import live_exists, observe_live, read_tree
from smallq_deploy.store.paths import Store
from smallq_deploy.store.recovery import open_transaction
from tests.support import packages
from tests.support.opp import PASS, World
from tests.support.world import live_digest, others_digest, settled_problems


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path).make()
    world.install(world.package("1"))
    return world


READERS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "state": ("state", read_state),
    "journal": ("journal", read_journal),
    "history": ("history", read_history),
    "generation": ("generations/0002/generation", lambda store: load_generation(store, 2)),
    "manifest": ("generations/0002/manifest", lambda store: entries(store, 2)),
    "config.ini": ("../config.ini", configini.read_config),
}
# What each must answer to bytes that are not its own. A line of the history that cannot be read is passed over.
GARBAGE = {
    "not JSON": b"{{{\n",
    "no object": b"[1, 2]\n",
    "no text": b"\xff\xfe\x00\n",
    "no schema": b'{"number": 2}\n',
    "wrong types": b'{"schema": 1, "vendors": 7, "number": "two", "txid": 3}\n',
}


def place_of(store: Store, name: str) -> Path:
    path = store.root / READERS[name][0]
    if not path.exists():
        path.write_text("{}\n")
    return path


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", ["state", "journal", "generation", "manifest"])
def test_garbage_is_named_and_left(world: World, name: str, garbage: str) -> None:
    store = world.store
    path = place_of(store, name)
    path.write_bytes(GARBAGE[garbage])
    with pytest.raises(InstallError) as caught:
        READERS[name][1](store)
    assert caught.value.code in ("STORE_DAMAGED", "JOURNAL_DAMAGED")
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert caught.value.details["path"] == str(path)
    assert path.read_bytes() == GARBAGE[garbage]


def test_lines_of_the_history_that_cannot_be_read_are_passed_over(world: World) -> None:
    store = world.store
    good = read_history(store)
    with open(store.history, "ab") as stream:
        for garbage in GARBAGE.values():
            stream.write(garbage)
    assert [line for line in read_history(store) if "action" in line] == list(good)
    assert read_history(store, vendor=store.vendor) == good
    assert read_history(store, vendor="other") == ()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("code", "kind"), [(errno.EACCES, AccessError), (errno.EIO, InstallError)])
def test_a_file_that_cannot_be_read(
    world: World, name: str, code: int, kind: type[SmallqError], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place_of(world.store, name)
    real = os.open

    def refuse(target: Any, *arguments: Any, **options: Any) -> int:
        if os.path.realpath(target) == os.path.realpath(path):
            raise OSError(code, os.strerror(code), str(target))
        return real(target, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as caught:
        READERS[name][1](world.store)
    assert os.path.basename(path) in caught.value.message
    assert caught.value.hint


def test_a_manifest_that_is_gone(world: World) -> None:
    (world.store.generation_dir(2) / "manifest").unlink()
    with pytest.raises(InstallError) as caught:
        entries(world.store, 2)
    assert caught.value.code == "STORE_DAMAGED"


def test_a_generation_without_its_record(world: World) -> None:
    (world.store.generation_dir(2) / "generation").unlink()
    for read in (lambda: load_generation(world.store, 2), lambda: list_generations(world.store)):
        with pytest.raises(InstallError) as caught:
            read()
        assert caught.value.code == "STORE_DAMAGED"
        assert "0002/generation is damaged" in caught.value.message


class TestDirectories:
    @pytest.fixture
    def refuse(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path, int], None]:
        """``refuse("lstat", path, errno)``: the os or Path function answers so for this path."""

        def install(name: str, path: Path, code: int) -> None:
            owner: Any = Path if name == "lstat" else os
            real = getattr(owner, name)

            def replacement(target: Any, *arguments: Any, **options: Any) -> Any:
                if os.fspath(target) == os.fspath(path):
                    raise OSError(code, os.strerror(code), os.fspath(path))
                return real(target, *arguments, **options)

            monkeypatch.setattr(owner, name, replacement)

        return install

    def test_the_live_directory_may_not_be_looked_at(
        self, world: World, refuse: Callable[[str, Path, int], None]
    ) -> None:
        refuse("lstat", world.live, errno.EACCES)
        with pytest.raises(AccessError) as caught:
            live_exists(world.store)
        assert str(world.live) in caught.value.message

    def test_a_file_where_the_vendors_directory_should_be(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "opp")
        store.opp.mkdir()
        store.vendors.write_text("no directory")
        assert not live_exists(store)
        assert generation_numbers(store) == ()

    def test_the_list_of_generations_may_not_be_read(
        self, world: World, refuse: Callable[[str, Path, int], None]
    ) -> None:
        refuse("listdir", world.store.generations, errno.EACCES)
        with pytest.raises(AccessError) as caught:
            list_generations(world.store)
        assert str(world.store.generations) in caught.value.message

    def test_other_names_among_the_generations_are_nothing(self, world: World) -> None:
        for name in ("0000", "lost+found", "12x"):
            (world.store.generations / name).mkdir()
        assert generation_numbers(world.store) == (1, 2)
        assert next_number(world.store) == 3

    def test_a_live_file_that_may_not_be_read(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        import builtins

        real, victim = open, world.live / "version.info"

        def refuse(target: Any, *arguments: Any, **options: Any) -> Any:
            if os.fspath(target) == os.fspath(victim):
                raise PermissionError(errno.EACCES, "no", str(victim))
            return real(target, *arguments, **options)

        monkeypatch.setattr(builtins, "open", refuse)
        with pytest.raises(AccessError) as caught:
            read_tree(world.live)
        assert str(victim) in caught.value.message

    def test_a_store_that_cannot_be_made(self, tmp_path: Path, refuse: Callable[[str, Path, int], None]) -> None:
        store = Store(tmp_path / "opp")
        store.opp.mkdir()
        refuse("mkdir", store.root, errno.EROFS)
        with pytest.raises(AccessError) as caught:
            store.create()
        assert str(store.root) in caught.value.message

    def test_a_place_of_the_store_that_may_not_be_looked_at(
        self, world: World, refuse: Callable[[str, Path, int], None]
    ) -> None:
        refuse("lstat", world.store.journal, errno.EACCES)
        with pytest.raises(AccessError) as caught:
            world.store.check()
        assert str(world.store.journal) in caught.value.message

    @pytest.mark.parametrize("name", ["", "generations", "staging"])
    def test_a_directory_of_the_store_that_is_a_link(self, world: World, name: str, tmp_path: Path) -> None:
        place = world.store.root / name
        place.rename(tmp_path / "moved")
        place.symlink_to(tmp_path / "moved")
        before = tree_digest(tmp_path / "moved")
        with pytest.raises(ConflictError) as caught:
            rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
        assert caught.value.code == "NOT_PLAIN"
        assert str(place) in caught.value.message
        assert tree_digest(tmp_path / "moved") == before


class TestConfig:
    def test_removing_what_is_not_there_is_fine(self, world: World) -> None:
        configini.write_config(world.store, None, 0o644)
        assert not world.store.config_ini.exists()
        configini.write_config(world.store, None, 0o644)
        assert configini.read_config(world.store).names == ()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_the_owner_stays(self, world: World) -> None:
        os.chown(world.store.config_ini, 17, 18)
        configini.write_config(world.store, "load_priority=a\n", 0o644)
        info = world.store.config_ini.stat()
        assert (info.st_uid, info.st_gid) == (17, 18)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_an_owner_that_cannot_be_kept_is_no_failure(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        os.chown(world.store.config_ini, 17, 18)

        def refuse(*arguments: object, **options: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "chown", refuse)
        configini.write_config(world.store, "load_priority=a\n", 0o644)
        assert configini.read_config(world.store).names == ("a",)

    def test_a_removed_config_comes_back_with_our_place_in_it(self, world: World) -> None:
        """Somebody wrote another order meanwhile: only our name's presence and place return."""
        store = world.store
        name = store.vendor
        change = configini.ConfigChange(f"load_priority={name},b\n", "load_priority=b\n", 0o644)
        store.config_ini.write_text("load_priority=c,b\n# kept\n")
        configini.revert_change(store, change, name)
        assert store.config_ini.read_text() == f"load_priority=c,{name},b\n# kept\n"
        configini.revert_change(store, change, name)
        assert store.config_ini.read_text() == f"load_priority=c,{name},b\n# kept\n"

    def test_a_name_that_was_not_there_before_goes_again(self, world: World) -> None:
        store = world.store
        change = configini.ConfigChange(None, f"load_priority={store.vendor}\n", 0o644)
        store.config_ini.write_text(f"load_priority=new,{store.vendor}\n")
        configini.revert_change(store, change, store.vendor)
        assert store.config_ini.read_text() == "load_priority=new\n"
        store.config_ini.write_text(f"load_priority={store.vendor}\n")
        configini.revert_change(store, configini.ConfigChange(None, "x", 0o644), store.vendor)
        assert not store.config_ini.exists()


class TestEnds:
    """Errors after the decision, and during the way back."""

    def test_an_error_after_the_decision_leaves_it_to_recovery(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, others = live_digest(world.store), others_digest(world.store)

        def full(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "full", str(world.store.history))

        monkeypatch.setattr(settle, "append_history", full)
        with pytest.raises(OpenTransactionError) as caught:
            world.install(world.package("2"))
        assert caught.value.code == "UNFINISHED"
        assert "the new state was decided on" in caught.value.message
        assert open_transaction(world.store) is not None
        monkeypatch.undo()
        report = recover_store(world.store)
        assert report is not None
        assert report.outcome == "completed"
        assert live_digest(world.store) != before
        assert list(settled_problems(world.store, (live_digest(world.store),), others)) == []

    def test_an_error_on_the_way_back_keeps_the_transaction_open(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, others = live_digest(world.store), others_digest(world.store)
        package = world.package("2")

        def crash() -> Any:
            raise RuntimeError("the smoke test's own bug")

        def broken(*arguments: object) -> None:
            raise OSError(errno.EIO, "broken disk")

        monkeypatch.setattr(settle, "restore", broken)
        with pytest.raises(OpenTransactionError) as caught:
            world.install(package, smoke=crash)
        assert caught.value.code == "UNDO_FAILED"
        assert "the smoke test's own bug" in caught.value.message
        assert "broken disk" in caught.value.message
        monkeypatch.undo()
        report = recover_store(world.store)
        assert report is not None
        assert report.outcome == "undone"
        assert live_digest(world.store) == before
        assert list(settled_problems(world.store, (before,), others)) == []

    def test_a_full_disk_does_not_stop_the_way_back(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The note that the transaction is being undone cannot be written: the old state comes back all the same."""
        before = live_digest(world.store)
        package = world.package("2")
        real = settle.write_journal

        def full(*arguments: Any) -> Any:
            raise OSError(errno.ENOSPC, "full")

        def crash() -> Any:
            monkeypatch.setattr(settle, "write_journal", full)
            raise RuntimeError("the smoke test's own bug")

        with pytest.raises(RuntimeError):
            world.install(package, smoke=crash)
        monkeypatch.setattr(settle, "write_journal", real)
        assert live_digest(world.store) == before
        assert read_journal(world.store) is None

    def test_the_live_tree_vanishes_while_the_new_one_is_prepared(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = world.package("2")
        generations = tree_digest(world.store.generations)
        real_fsync = transaction.fsync_tree

        def fsync_then_vanish(path: Path) -> None:
            real_fsync(path)
            shutil.rmtree(world.live, ignore_errors=True)

        monkeypatch.setattr(transaction, "fsync_tree", fsync_then_vanish)
        with pytest.raises(InstallError) as caught:
            world.install(package)
        assert caught.value.code == "LIVE_CHANGED"
        assert "was removed while" in caught.value.message
        assert tree_digest(world.store.generations) == generations
        assert observe_live(world.store).kind == "removed"

    def test_rolling_back_to_a_generation_whose_files_are_gone(self, world: World) -> None:
        before = live_digest(world.store)
        shutil.rmtree(world.store.tree_dir(1))
        with pytest.raises(InstallError) as caught:
            rollback(world.store, operator=packages.OPERATOR, to=1, smoke=lambda: PASS)
        assert caught.value.code == "GENERATION_DAMAGED"
        assert "generation 1" in caught.value.message
        assert live_digest(world.store) == before

    def test_a_damaged_generation_is_not_made_live(self, world: World) -> None:
        world.install(world.package("2"))
        before = live_digest(world.store)
        (world.store.tree_dir(2) / "version.info").write_text("damaged")
        with pytest.raises(InstallError) as caught:
            rollback(world.store, operator=packages.OPERATOR, to=2, deep_check=True)
        assert caught.value.code == "GENERATION_DAMAGED"
        assert caught.value.details == {"generation": 2}
        assert live_digest(world.store) == before


def test_state_of_a_newer_schema_is_refused_by_every_change(world: World) -> None:
    record = json.loads(world.store.state.read_text())
    world.store.state.write_text(json.dumps({**record, "schema": 99}))
    before = tree_digest(world.store.vendors)
    for change in (
        lambda: rollback(world.store, operator=packages.OPERATOR),
        lambda: uninstall(world.store),
        lambda: world.install(world.package("2")),
    ):
        with pytest.raises(SmallqError) as caught:
            change()
        assert caught.value.code == "STORE_NEWER"
        assert "upgrade smallq-deploy" in caught.value.hint
    assert tree_digest(world.store.vendors) == before
