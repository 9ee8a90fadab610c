"""config.ini: read as leniently as CANN does, written in the one form every reader accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError, UsageError
from smallq_deploy.store.configini import ConfigIni, apply_change, parse, read_config, revert_change, with_vendor
from smallq_deploy.store.journal import ConfigChange
from smallq_deploy.store.paths import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "vendors").mkdir()
    return Store(tmp_path)


@pytest.mark.parametrize(
    ("text", "names", "clean"),
    [
        ("load_priority=customize\n", ("customize",), True),
        ("load_priority=b,a", ("b", "a"), True),
        ("load_priority=\n", (), True),
        ("", (), True),
        ("load_priority=b, a\n", ("b", "a"), False),
        ("# comment\nload_priority=a\n", ("a",), False),
        ("\nload_priority=a\n", ("a",), False),
        ("\ufeffload_priority=a\n", ("a",), False),
        ("priority=a\n", ("a",), False),
        ("load_priority=a,,b\n", ("a", "b"), False),
        ("nonsense\n", (), False),
    ],
)
def test_what_is_understood(text: str, names: tuple[str, ...], clean: bool) -> None:
    found = parse(text)
    assert (found.names, found.clean) == (names, clean)


def test_a_file_that_not_everybody_can_read_is_not_clean() -> None:
    assert not parse("load_priority=a\n", 0o600).clean


@pytest.mark.parametrize(
    ("before", "listed", "first", "after"),
    [
        (None, True, False, "load_priority=us\n"),
        ("load_priority=a\n", True, False, "load_priority=a,us\n"),
        ("load_priority=a\n", True, True, "load_priority=us,a\n"),
        ("load_priority=a,us,b\n", True, False, "load_priority=a,us,b\n"),
        ("load_priority=a,us,b\n", True, True, "load_priority=us,a,b\n"),
        ("load_priority=a, us\n", True, False, "load_priority=a,us\n"),
        ("# who\nload_priority=a\n", True, False, "load_priority=a,us\n# who\n"),
        ("load_priority=us", True, False, "load_priority=us"),
        ("load_priority=us,a\n", False, False, "load_priority=a\n"),
        ("load_priority=us\n", False, False, None),
        ("load_priority=us\n# who\n", False, False, "# who\n"),
        ("load_priority=a\n", False, False, "load_priority=a\n"),
        (None, False, False, None),
    ],
)
def test_our_name_comes_and_goes(before: str | None, listed: bool, first: bool, after: str | None) -> None:
    config = parse(before) if before is not None else ConfigIni()
    assert with_vendor(config, "us", listed=listed, first=first) == after


def test_every_written_form_is_clean() -> None:
    for text in ("load_priority=b, a\n", "# c\nload_priority=a\n", "x priority = a , b\n", "junk\n"):
        written = with_vendor(parse(text), "us", listed=True)
        assert written is not None
        assert parse(written).clean
        assert parse(written).names[-1] == "us"


def test_undo_gives_back_the_very_bytes(store: Store) -> None:
    raw = b"load_priority=b, a\n# \xff\xfe kept\n"
    store.config_ini.write_bytes(raw)
    store.config_ini.chmod(0o640)
    config = read_config(store)
    change = ConfigChange(config.text, with_vendor(config, "us", listed=True), config.mode)
    apply_change(store, change)
    assert store.config_ini.read_bytes() == b"load_priority=b,a,us\n# \xff\xfe kept\n"
    assert store.config_ini.stat().st_mode & 0o777 == 0o644
    revert_change(store, change, "us")
    assert store.config_ini.read_bytes() == raw
    assert store.config_ini.stat().st_mode & 0o777 == 0o640


def test_undo_removes_a_file_that_was_not_there(store: Store) -> None:
    change = ConfigChange(None, "load_priority=us\n", 0o644)
    apply_change(store, change)
    revert_change(store, change, "us")
    assert not store.config_ini.exists()


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"),
    [
        (None, "load_priority=us,new\n", "load_priority=new\n"),
        ("load_priority=a,us,b\n", "load_priority=us,a,b,new\n", "load_priority=a,us,b,new\n"),
        ("load_priority=us\n", "load_priority=new\n", "load_priority=new,us\n"),
    ],
)
def test_undo_keeps_a_vendor_that_others_added(store: Store, before: str, meanwhile: str, after: str) -> None:
    store.config_ini.write_text(meanwhile)
    revert_change(store, ConfigChange(before, "load_priority=us,x\n", 0o644), "us")
    assert store.config_ini.read_text() == after


def test_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("load_priority=a\n")
    store.config_ini.symlink_to(target)
    with pytest.raises(ConflictError) as caught:
        read_config(store)
    assert caught.value.code == "CONFIG_NOT_A_FILE"


@pytest.mark.parametrize("name", ["", "a b", "../x", ".hidden", "a,b", "x.o", "lib.json5", "a/b", "é"])
def test_vendor_names_that_cann_would_not_find(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Store(tmp_path, name)
    assert caught.value.code == "BAD_VENDOR_NAME"
