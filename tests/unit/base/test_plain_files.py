"""Regular files only: links are not followed, pipes and devices neither waited for nor read."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from smallq_deploy.base import fsops
from smallq_deploy.base.errors import ConflictError


class TestPlainFiles:
    def test_only_a_regular_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"text")
        assert fsops.read_plain(tmp_path / "file") == b"text"
        with pytest.raises(FileNotFoundError):
            fsops.read_plain(tmp_path / "missing")

    @pytest.mark.parametrize(
        ("kind", "word"),
        [
            ("link", "a link"),
            ("dangling", "a link"),
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
            ("dir", "a dir"),
        ],
    )
    def test_anything_else_is_named_and_not_waited_for(self, tmp_path: Path, kind: str, word: str) -> None:
        place = tmp_path / "place"
        (tmp_path / "file").write_text("theirs")
        listener = socket.socket(socket.AF_UNIX)
        if kind == "link":
            place.symlink_to(tmp_path / "file")
        elif kind == "dangling":
            place.symlink_to(tmp_path / "nothing")
        elif kind == "pipe":
            os.mkfifo(place)
        elif kind == "socket":
            listener.bind(str(place))
        else:
            place.mkdir()
        with listener, pytest.raises(ConflictError) as caught:
            os.close(fsops.open_plain(place, os.O_RDWR if kind == "dir" else os.O_RDONLY))
        assert caught.value.code == "NOT_PLAIN"
        assert f"{place} is {word}" in caught.value.message
        assert caught.value.message.endswith("not a file: smallq-deploy does not go there")
        look = f"look who put it there (`ls -ld {place}`), move it away and run the command again"
        assert caught.value.hint == look
        assert caught.value.details == {"path": str(place)}

    def test_a_directory_opened_for_reading_is_refused_too(self, tmp_path: Path) -> None:
        with pytest.raises(ConflictError, match="is a directory, not a file"):
            fsops.open_plain(tmp_path, os.O_RDONLY)

    def test_a_refused_descriptor_is_closed(self, tmp_path: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(ConflictError):
                fsops.open_plain(tmp_path, os.O_RDONLY)
        assert len(os.listdir("/proc/self/fd")) == before

    def test_an_odd_kind_has_a_word_too(self, tmp_path: Path) -> None:
        assert "a device, not a directory" in fsops.not_plain(tmp_path, stat.S_IFCHR, wanted="directory").message
        assert "a device, not a file" in fsops.not_plain(tmp_path, stat.S_IFBLK).message
        assert "a file, not a directory" in fsops.not_plain(tmp_path, stat.S_IFREG, wanted="directory").message
        assert "something else, not a file" in fsops.not_plain(tmp_path, 0).message

    def test_descriptors_are_not_inherited(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for fd in (fsops.open_plain(tmp_path / "file", os.O_RDONLY), fsops.create_new(tmp_path / "new")):
            assert not os.get_inheritable(fd)
            os.close(fd)

    def test_create_new_never_opens_what_is_there(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("theirs")
        os.link(victim, tmp_path / "new")
        fd = fsops.create_new(tmp_path / "new", 0o600)
        os.write(fd, b"ours")
        os.close(fd)
        assert victim.read_text() == "theirs"
        assert (tmp_path / "new").read_text() == "ours"
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) & 0o077 == 0
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError):
            fsops.create_new(tmp_path / "folder")
