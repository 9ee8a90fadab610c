"""The lock of an opp that several machines mount: the record of another machine counts, one of this machine does not.

The file system is a tmpfs or a disk of this machine; only the answer of statfs is made up.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.base import lock
from smallq_deploy.base.errors import ConflictError, UsageError
from smallq_deploy.base.filesystem import shared_kind
from smallq_deploy.base.lock import boot_id, break_lock, exclusive_lock, held_elsewhere
from tests.support.processes import end_of, start

ELSEWHERE = {"pid": 77, "host": "npu002", "boot": "another", "command": "install", "since": "2026-11-24T08:00:00Z"}


@pytest.fixture
def nfs() -> Iterator[None]:
    with mock.patch.object(lock, "shared_kind", lambda path: "NFS"):
        yield


def hold(directory: Path) -> None:
    with exclusive_lock(directory, across_hosts=True):
        pass


def refusal(directory: Path) -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        hold(directory)
    return caught.value


def test_this_machines_own_file_systems_are_not_shared(tmp_path: Path) -> None:
    assert shared_kind(tmp_path) == ""
    assert shared_kind(Path("/proc")) == ""
    assert shared_kind(tmp_path / "missing") == ""


@pytest.mark.parametrize(
    ("magic", "name"), [(0x6969, "NFS"), (0x0BD00BD0, "Lustre"), (0xFF534D42, "SMB"), (0xEF53, "")]
)
def test_the_kind_is_told_by_statfs(magic: int, name: str, tmp_path: Path) -> None:
    def statfs(path: bytes, buffer: object) -> int:
        assert path == os.fsencode(tmp_path)
        buffer[0:8] = magic.to_bytes(8, "little")  # type: ignore[index]
        return 0

    with mock.patch("ctypes.CDLL", lambda name: mock.Mock(statfs=statfs)):
        assert shared_kind(tmp_path) == name


@pytest.mark.usefixtures("nfs")
def test_another_host_is_respected_until_its_lock_is_broken(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text(json.dumps(ELSEWHERE))
    error = refusal(tmp_path)
    assert error.code == "LOCK_OTHER_HOST" and error.exit_status == 7
    assert "npu002" in error.message and "pid 77" in error.message and "NFS" in error.message
    assert "--break-lock npu002" in error.hint
    assert json.loads((tmp_path / "owner").read_text()) == ELSEWHERE
    with pytest.raises(UsageError, match="npu003 does not hold") as wrong:
        break_lock(tmp_path, "npu003")
    assert wrong.value.code == "NO_SUCH_LOCK"
    assert break_lock(tmp_path, "npu002", dry_run=True) == ELSEWHERE
    assert held_elsewhere(tmp_path) == ELSEWHERE
    assert break_lock(tmp_path, "npu002") == ELSEWHERE
    hold(tmp_path)
    assert not (tmp_path / "owner").exists()


@pytest.mark.usefixtures("nfs")
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_record_that_cannot_be_read_may_be_anybodys(text: str, tmp_path: Path) -> None:
    (tmp_path / "owner").write_text(text)
    assert "--break-lock unknown" in refusal(tmp_path).hint
    break_lock(tmp_path, "unknown")
    hold(tmp_path)


@pytest.mark.usefixtures("nfs")
@pytest.mark.parametrize(
    "ours",
    [
        {"pid": 4_000_000, "host": os.uname().nodename, "boot": "an earlier start"},
        {"pid": 4_000_000, "host": "another container", "boot": boot_id()},
    ],
)
def test_a_dead_process_of_this_machine_holds_nothing(ours: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "owner").write_text(json.dumps(ours))
    assert held_elsewhere(tmp_path) is None
    hold(tmp_path)


def test_on_this_machines_own_disk_the_record_is_only_text(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text(json.dumps(ELSEWHERE))
    hold(tmp_path)
    with pytest.raises(UsageError) as caught:
        break_lock(tmp_path, "npu002")
    assert caught.value.code == "NO_SUCH_LOCK"


@pytest.mark.usefixtures("nfs")
def test_of_two_machines_whose_flock_says_nothing_one_wins(tmp_path: Path) -> None:
    """Two processes that are told different names and boots, while flock always answers yes."""
    for round_number in range(20):
        inside = tmp_path / f"inside-{round_number}"

        def machine(name: str, inside: Path = inside) -> None:
            node = mock.Mock(nodename=name)
            with (
                mock.patch.object(fcntl, "flock", lambda *_: None),
                mock.patch.object(lock, "boot_id", lambda: f"boot of {name}"),
                mock.patch.object(os, "uname", lambda: node),
                exclusive_lock(tmp_path, wait_seconds=10, across_hosts=True),
            ):
                inside.mkdir()  # fails when the other is in there
                inside.rmdir()

        reader, writer = os.pipe()
        pids = [start(lambda name=name: machine(name), go=(reader, writer)) for name in ("npu001", "npu002")]  # type: ignore[misc]
        os.close(writer)
        os.close(reader)
        assert [end_of(pid) for pid in pids] == [0, 0]
        assert not (tmp_path / "owner").exists()


def test_a_file_system_without_locks_is_told(tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with mock.patch.object(fcntl, "flock", refuse):
        error = refusal(tmp_path)
    assert error.code == "NO_FILE_LOCKS" and "nolock" in error.hint
