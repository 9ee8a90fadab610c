"""Where downloads lie: whole files by their sha256, unfinished ones apart, each with one writer.

``$XDG_CACHE_HOME/smallq-deploy/downloads/``: ``sha256/<digest>/<name>`` (and ``<name>.sig``), ``parts/<key>.part`` with
``<key>.json``, ``sources/<key>`` (the digest last fetched from a URL). A file gets into ``sha256/`` by one rename, when
it is whole, checked and durable.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from smallq_deploy.base.errors import ConflictError, SmallqError, access_error
from smallq_deploy.base.fsops import fsync_dir, sha256_file, write_atomic

_MODE = 0o644


def default_root(environ: Mapping[str, str] | None = None) -> Path:
    """The downloads of this user."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "smallq-deploy", "downloads")


def key_of(*parts: str) -> str:
    """A file name for a source."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


@dataclass
class Part:
    """An unfinished download. ``validator`` is what the server called this version (ETag or Last-Modified).

    ``digest`` is that of the first ``size`` bytes, which are in the file.
    """

    path: Path
    stream: IO[bytes]
    size: int = 0
    validator: str = ""
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    def load(self) -> None:
        """Take up what an earlier process left."""
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
            self.validator = str(content["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            self.validator = ""
        self.stream.seek(0)
        while chunk := self.stream.read(1 << 20):
            self.digest.update(chunk)
            self.size += len(chunk)

    def restart(self, validator: str = "") -> None:
        """Forget every byte; what follows is of the version ``validator``."""
        self.stream.seek(0)
        self.stream.truncate(0)
        self.size, self.digest, self.validator = 0, hashlib.sha256(), validator
        write_atomic(self.record, json.dumps({"validator": validator}) + "\n")

    def write(self, data: bytes) -> None:
        self.stream.seek(self.size)
        rest = memoryview(data)
        while rest:  # unbuffered: a write may be short
            rest = rest[self.stream.write(rest) :]
        self.size += len(data)
        self.digest.update(data)

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


@dataclass(frozen=True)
class Downloads:
    """The downloads below ``root``."""

    root: Path

    def find(self, sha256: str) -> Path | None:
        """The file of that digest; its content is read and compared, and an entry that is damaged is removed."""
        folder = self.root / "sha256" / sha256
        try:
            names = sorted(os.listdir(folder))
            for name in names:
                path = folder / name
                if name.startswith(".") or name.endswith(".sig") or not stat.S_ISREG(path.lstat().st_mode):
                    continue
                if sha256_file(path) == sha256:
                    return path
                path.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cache_error(error, f"read the download cache {folder}") from error
        return None

    def last_from(self, source: str) -> str:
        """The digest of what was last fetched from ``source``; '' when nothing was."""
        try:
            text = (self.root / "sources" / key_of(source)).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return text if len(text) == 64 and not set(text) - set("0123456789abcdef") else ""

    def keep(self, part: Part, *, name: str, source: str) -> Path:
        """Make a finished, checked part a whole file; returns its path."""
        sha256 = str(part.digest.hexdigest())
        folder = self.root / "sha256" / sha256
        path = folder / name
        try:
            os.fsync(part.stream.fileno())
            os.fchmod(part.stream.fileno(), _MODE)
            for directory in (folder, self.root / "sources"):
                directory.mkdir(parents=True, exist_ok=True)
            os.replace(part.path, path)
            fsync_dir(folder)
            part.record.unlink(missing_ok=True)
            write_atomic(self.root / "sources" / key_of(source), sha256 + "\n")
        except OSError as error:
            raise _cache_error(error, f"keep the download in {folder}") from error
        return path

    @contextmanager
    def part(self, key: str, *, wait_seconds: float) -> Iterator[Part]:
        """The part of ``key``, held alone. Raises ConflictError LOCK_BUSY, and what the file system refuses."""
        path = self.root / "parts" / f"{key}.part"
        deadline = time.monotonic() + wait_seconds
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = _locked(path, deadline)
        except OSError as error:
            raise _cache_error(error, f"write {path}") from error
        with stream:
            part = Part(path, stream)
            try:
                part.load()
                yield part
            except OSError as error:
                raise _cache_error(error, f"write {path}") from error


def _cache_error(error: OSError, doing: str) -> SmallqError:
    found = access_error(error, doing)
    found.hint = "make room there, or name another place with XDG_CACHE_HOME"
    return found


def _locked(path: Path, deadline: float) -> IO[bytes]:
    """``path`` opened for reading and writing, under flock, and still the file of that name."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                return os.fdopen(fd, "r+b", buffering=0)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise ConflictError(
                    "LOCK_BUSY",
                    "another smallq-deploy is downloading the same file",
                    hint="wait for it to end and run the command again; it will find the file",
                    details={"path": str(path)},
                ) from None
            time.sleep(0.05)
        os.close(fd)
