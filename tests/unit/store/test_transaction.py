"""The transaction: what is live afterwards, what comes back, what is said about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base import fsops
from smallq_deploy.base.errors import (
    ConflictError,
    InstallError,
    OpenTransactionError,
    PackageError,
    SmallqError,
    UsageError,
)
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.store import journal as journals
from smallq_deploy.store import switch as switches
from smallq_deploy.store.generations import (
    entries,
    list_generations,
    load_generation,
    next_number,
    read_state,
)
from smallq_deploy.store.history import read_history
from smallq_deploy.store.journal import read_journal
from smallq_deploy.store.live import observe_live
from smallq_deploy.store.paths import ABSENT, Staging, Store
from smallq_deploy.store.transaction import (
    Change,
    ChangeReport,
    Draft,
    Proof,
    change_live,
    open_transaction,
    recover,
    refuse_open,
    session,
)
from tests.support.world import live_digest, others_digest, settled_problems

METHODS = ("exchange", "renames", "copy")
PASS = Proof(True, "pass")
FAIL = Proof(False, "fail", {"message": "wrong numbers"}, "smoke test: wrong numbers")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one hand-made vendor directory and a foreign one."""
    store = Store(tmp_path / "opp")
    write(store.live, "found")
    (store.live / "a").chmod(0o700)
    (store.live / "link").symlink_to("a/text")
    write(store.vendors / "other", "theirs")
    store.config_ini.write_text("load_priority=other\n")
    return store


def write(root: Path, text: str) -> None:
    (root / "a").mkdir(parents=True)
    (root / "a" / "text").write_text(text)


def staged(text: str) -> Callable[[Staging], Draft]:
    def stage(area: Staging) -> Draft:
        write(area.tree, text)
        area.package.write_text("package of " + text)
        return Draft(ops=("Op",), package_sha256=fsops.sha256_file(area.package))

    return stage


def put(store: Store, text: str, proof: Proof = PASS, method: str = "") -> ChangeReport:
    with session(store):
        return change_live(store, Change("install", stage=staged(text), prove=lambda: proof), method=method)


def go(store: Store, target: int, method: str = "", **options: object) -> ChangeReport:
    with session(store):
        change = Change("rollback", target=target, listed=target != ABSENT, **options)  # type: ignore[arg-type]
        return change_live(store, change, method=method)


def text_of(store: Store) -> str:
    return (store.live / "a" / "text").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_the_whole_life(store: Store, method: str) -> None:
    found, others = live_digest(store), others_digest(store)
    first = put(store, "one", method=method)
    assert (first.live, first.previous, first.adopted, first.method) == (2, 1, 1, method)
    assert text_of(store) == "one"
    assert store.config_ini.read_text() == "load_priority=other,customize\n"
    assert load_generation(store, 1).origin == "adopted"
    assert not load_generation(store, 1).listed
    failed = put(store, "two", FAIL, method=method)
    assert (failed.kept, failed.live, failed.reason) == (False, 2, "smoke test: wrong numbers")
    assert text_of(store) == "one"
    assert load_generation(store, 3).failed == "smoke test: wrong numbers"
    assert go(store, 1, method=method).live == 1
    assert tree_digest(store.live) == found
    assert (store.live / "a").stat().st_mode & 0o777 == 0o700
    assert put(store, "three", method=method).live == 4
    assert [item.number for item in list_generations(store)] == [1, 2, 4], "a success removes the failed one"
    with session(store):
        gone = change_live(store, Change("uninstall", listed=False), method=method)
    assert (gone.live, gone.previous) == (ABSENT, 4)
    assert not store.live.exists()
    assert store.config_ini.read_text() == "load_priority=other\n"
    assert go(store, 4).live == 4
    assert text_of(store) == "three"
    assert others_digest(store) == others
    assert list(settled_problems(store, (live_digest(store),), others)) == []
    told = [(line["action"], line["result"], line["live"]) for line in read_history(store)]
    assert told == [
        ("install", "ok", 2),
        ("install", "undone", 2),
        ("rollback", "ok", 1),
        ("install", "ok", 4),
        ("uninstall", "ok", 0),
        ("rollback", "ok", 4),
    ]


def test_a_first_install_on_nothing_can_be_rolled_back_to_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    report = put(store, "one")
    assert (report.live, report.previous, report.method, report.adopted) == (1, ABSENT, "rename", None)
    assert go(store, ABSENT).live == ABSENT
    assert not store.live.exists()
    assert read_state(store).of("customize").previous == 1


def test_numbers_are_never_used_twice(store: Store) -> None:
    put(store, "one")
    put(store, "bad", FAIL)
    put(store, "good")
    put(store, "bad", FAIL)
    assert [item.number for item in list_generations(store)] == [1, 2, 4, 5]
    assert next_number(store) == 6


def test_the_trees_are_the_same_directories(store: Store) -> None:
    """Nothing is copied: a process that has a library mapped keeps it, and a switch costs no space."""
    inode = store.live.stat().st_ino
    put(store, "one")
    assert store.tree_dir(1).stat().st_ino == inode
    go(store, 1)
    assert store.live.stat().st_ino == inode


def test_a_changed_live_tree_is_kept_as_a_generation_of_its_own(store: Store) -> None:
    put(store, "one")
    (store.live / "a" / "text").write_text("edited")
    assert observe_live(store).kind == "changed"
    report = put(store, "two")
    assert (report.live, report.adopted) == (4, 3)
    go(store, 3)
    assert text_of(store) == "edited"


def test_new_times_alone_are_no_change(store: Store) -> None:
    put(store, "one")
    os.utime(store.live / "a" / "text", (1, 1))
    assert observe_live(store).kind == "current"


def test_a_removed_live_tree_is_seen_and_replaced(store: Store) -> None:
    put(store, "one")
    fsops.remove_tree(store.live)
    assert observe_live(store).kind == "removed"
    assert put(store, "two").previous == ABSENT


@pytest.mark.parametrize("error", [PackageError("BAD", "no good"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["stage", "prove"])
def test_whatever_goes_wrong_the_old_state_is_back(store: Store, error: BaseException, when: str) -> None:
    before = tree_digest(store.vendors / "other"), live_digest(store), store.config_ini.read_bytes()

    def fail(*_: object) -> Proof:
        raise error

    stage = fail if when == "stage" else staged("one")
    with pytest.raises((SmallqError, KeyboardInterrupt)) as caught, session(store):
        change_live(store, Change("install", stage=stage, prove=fail))  # type: ignore[arg-type]
    if isinstance(error, OSError):
        assert isinstance(caught.value, InstallError)
        assert caught.value.code == "NO_SPACE"
    assert (tree_digest(store.vendors / "other"), live_digest(store), store.config_ini.read_bytes()) == before
    assert read_journal(store) is None
    assert list((store.root / "staging").iterdir()) == []
    assert read_history(store)[-1]["result"] == "undone"
    assert list_generations(store) == ()


def test_a_special_file_in_the_new_tree_is_refused(store: Store) -> None:
    def stage(area: Staging) -> Draft:
        write(area.tree, "one")
        os.mkfifo(area.tree / "pipe")
        return Draft()

    with pytest.raises(InstallError) as caught, session(store):
        change_live(store, Change("install", stage=stage))
    assert caught.value.code == "UNSAFE_TREE"
    assert text_of(store) == "found"


def test_the_exchange_falls_back_to_renames(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, "no exchange here", str(first))

    monkeypatch.setattr(switches, "rename_exchange", refuse)
    assert put(store, "one").method == "renames"
    assert text_of(store) == "one"


def test_and_to_a_copy_where_the_live_directory_cannot_be_renamed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a directory of an overlayfs lower layer: EXDEV for both ways of renaming."""
    lower = [store.live]
    rename = os.rename

    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EXDEV, "cross-device", str(first))

    def picky(source: Path, target: Path) -> None:
        if source in lower:
            refuse(source, target)
        rename(source, target)

    monkeypatch.setattr(switches, "rename_exchange", refuse)
    monkeypatch.setattr(os, "rename", picky)
    before = live_digest(store)
    assert put(store, "one").method == "copy"
    assert text_of(store) == "one"
    monkeypatch.undo()
    go(store, 1)
    assert live_digest(store) == before


def test_a_half_done_fallback_is_taken_back_before_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename
    refused = []

    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, "no exchange here", str(first))

    def picky(source: Path, target: Path) -> None:
        if Path(source).name == "tree" and target == store.live and not refused:
            refused.append(source)
            raise OSError(errno.EXDEV, "cross-device", str(source))
        rename(source, target)

    monkeypatch.setattr(switches, "rename_exchange", refuse)
    monkeypatch.setattr(os, "rename", picky)
    before = live_digest(store)
    assert put(store, "one").method == "copy"
    assert (text_of(store), len(refused)) == ("one", 1)
    monkeypatch.undo()
    go(store, 1)
    assert live_digest(store) == before


def test_an_edited_generation_is_not_made_live(store: Store) -> None:
    put(store, "one")
    (store.tree_dir(1) / "a" / "text").write_text("FOUND")
    with pytest.raises(InstallError) as caught:
        go(store, 1)
    assert caught.value.code == "GENERATION_DAMAGED"
    assert text_of(store) == "one"
    assert store.tree_dir(1).is_dir(), "the tree went home again"


def test_a_digest_check_finds_what_times_hide(store: Store) -> None:
    put(store, "one")
    path = store.tree_dir(1) / "a" / "text"
    times = path.stat()
    path.write_text("FOUND")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InstallError):
        go(store, 1, deep_check=True)


def test_a_lost_tree_is_rebuilt_and_compared(store: Store) -> None:
    put(store, "one")
    go(store, 1)
    fsops.remove_tree(store.tree_dir(2))

    def rebuild(text: str) -> Callable[..., None]:
        return lambda area, generation: write(area.tree, text)

    with pytest.raises(InstallError) as caught:
        go(store, 2, rebuild=rebuild("other bytes"))
    assert caught.value.code == "GENERATION_DAMAGED"
    assert go(store, 2, rebuild=rebuild("one")).live == 2


def test_an_unknown_generation(store: Store) -> None:
    put(store, "one")
    with pytest.raises(UsageError) as caught:
        go(store, 7)
    assert caught.value.code == "NO_SUCH_GENERATION"
    assert "1, 2" in caught.value.hint


# --- recovery ---


def interrupted(store: Store, where: str, monkeypatch: pytest.MonkeyPatch, method: str = "") -> None:
    """Die (without any clean-up) when the journal has reached phase ``where``."""

    class Died(BaseException):
        pass

    write_journal = journals.write_journal

    def dying(target: Store, journal: journals.Journal) -> journals.Journal:
        write_journal(target, journal)
        if journal.phase == where:
            raise Died
        return journal

    with monkeypatch.context() as patch:
        patch.setattr("smallq_deploy.store.transaction.write_journal", dying)
        patch.setattr("smallq_deploy.store.transaction._Transaction._give_up", lambda self, error: None)
        with pytest.raises(Died):
            put(store, "new", PASS if where != journals.UNDONE else FAIL, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("phase", journals.PHASES)
def test_recovery_from_every_phase(store: Store, phase: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "one")
    others = others_digest(store)
    interrupted(store, phase, monkeypatch, method)
    opened = open_transaction(store)
    assert opened is not None
    assert (opened.phase, opened.action, opened.running) == (phase, "install", False)
    with pytest.raises(OpenTransactionError) as caught:
        refuse_open(store)
    assert caught.value.code == "OPEN_TRANSACTION"
    with session(store) as report:
        assert report is not None
        assert report.outcome == ("completed" if phase == journals.OK else "undone")
        assert recover(store) is None
    assert text_of(store) == ("new" if phase == journals.OK else "one")
    assert list(settled_problems(store, (live_digest(store),), others)) == []


@pytest.mark.parametrize("phase", [journals.SWITCHING, journals.SWITCHED, journals.OK])
def test_recovery_by_content_where_inodes_did_not_survive(
    store: Store, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "one")
    interrupted(store, phase, monkeypatch)
    elsewhere = Store(store.opp.with_name("copied"))
    fsops.copy_tree(store.opp, elsewhere.opp)
    with session(elsewhere):
        pass
    assert text_of(elsewhere) == ("new" if phase == journals.OK else "one")
    assert list(settled_problems(elsewhere, (live_digest(elsewhere),), others_digest(elsewhere))) == []


def test_recovery_after_the_device_number_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "one")
    interrupted(store, journals.SWITCHED, monkeypatch)
    text = store.journal.read_text()
    info = store.vendors.stat()
    store.journal.write_text(text.replace(f'dev": {info.st_dev}', f'dev": {info.st_dev + 1}'))
    with session(store):
        pass
    assert text_of(store) == "one"


def test_recovery_never_touches_a_strangers_directory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "one")
    interrupted(store, journals.SWITCHED, monkeypatch)
    store.live.rename(store.vendors / "aside")
    write(store.live, "a stranger's")
    with pytest.raises(ConflictError) as caught, session(store):
        pass
    assert caught.value.code == "RECOVERY_BLOCKED"
    assert text_of(store) == "a stranger's"
    fsops.remove_tree(store.live)
    (store.vendors / "aside").rename(store.live)
    with session(store):
        pass
    assert text_of(store) == "one"


def test_a_damaged_journal_is_an_answer(store: Store) -> None:
    put(store, "one")
    store.journal.write_text("{")
    with pytest.raises(InstallError) as caught, session(store):
        pass
    assert caught.value.code == "STORE_DAMAGED"


def test_a_newer_schema_is_refused_and_left_alone(store: Store) -> None:
    put(store, "one")
    newer = store.state.read_text().replace('"schema": 1', '"schema": 2')
    store.state.write_text(newer)
    with pytest.raises(UsageError) as caught:
        observe_live(store)
    assert caught.value.code == "STORE_NEWER"
    assert store.state.read_text() == newer


def test_a_damaged_manifest_is_noticed(store: Store) -> None:
    put(store, "one")
    path = store.generation_dir(2) / "manifest"
    path.write_text(path.read_text().replace("0644", "0600"))
    assert len(entries(store, 2)) == 2
    with pytest.raises(InstallError) as caught:
        observe_live(store)
    assert caught.value.code == "STORE_DAMAGED"


def test_a_link_in_place_of_the_live_directory_is_refused(store: Store, tmp_path: Path) -> None:
    store.live.rename(tmp_path / "real")
    store.live.symlink_to(tmp_path / "real")
    with pytest.raises(ConflictError) as caught:
        put(store, "one")
    assert caught.value.code == "LIVE_NOT_A_DIRECTORY"
    assert store.live.is_symlink()


def test_two_vendors_share_a_store(store: Store) -> None:
    put(store, "one")
    second = Store(store.opp, "second")
    assert put(second, "two").live == 3
    assert read_state(store).of("customize").current == 2
    assert [item.number for item in list_generations(second)] == [3]
    assert store.config_ini.read_text() == "load_priority=other,customize,second\n"
    with pytest.raises(UsageError):
        put(Store(store.opp, ".smallq-deploy"), "x")


def test_one_at_a_time(store: Store) -> None:
    with session(store):
        with pytest.raises(ConflictError) as caught, session(store):
            pass
        assert caught.value.code == "LOCK_BUSY"
        assert str(os.getpid()) in caught.value.message
