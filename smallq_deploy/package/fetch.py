"""Fetch a package: from a URL (resumed, retried, bounded) or a file, into the cache of downloads.

What is promised: the file that comes back is whole, has the digest that was asked for and passed the caller's check;
anything else is a typed error, and no unfinished file is ever at a final place. Without a digest or a signature to
hold the content against, only https is believed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from smallq_deploy.base.errors import DownloadError, SmallqError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.package.downloads import Downloads, default_root, key_of
from smallq_deploy.package.transfer import Transfer, Transport, is_url, shown


@dataclass(frozen=True)
class Fetched:
    """A whole, checked file. ``cached``: nothing was transferred; ``resumed``: bytes that an earlier attempt had."""

    path: Path
    source: str
    sha256: str
    size: int
    cached: bool = False
    resumed: int = 0
    attempts: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "source": self.source,
            "sha256": self.sha256,
            "size": self.size,
            "cached": self.cached,
            "resumed": self.resumed,
            "attempts": self.attempts,
        }


def file_name(source: str) -> str:
    """The last part of a path or URL as a harmless file name."""
    path = re.split(r"[?#]", source)[0] if is_url(source) else source
    last = (unquote(path.partition("://")[2].partition("/")[2]) if is_url(source) else path).rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", last)[-120:].lstrip(".") or "package.run"
    return name + "nature" if name.endswith(".sig") else name  # .sig is for what lies beside a file


def fetch(
    source: str,
    *,
    sha256: str = "",
    size: int = 0,
    transport: Transport | None = None,
    accept: Callable[[Path], None] = lambda path: None,
    sealed: bool = False,
    events: Events | None = None,
    downloads: Downloads | None = None,
) -> Fetched:
    """Bring ``source`` (http, https, file URL or a path) into the cache.

    ``sha256`` and ``size`` are what it must have ('' and 0: not known). ``accept`` looks at the finished file before
    it gets its final name, also when it was in the cache, and raises to refuse it; ``sealed`` says that it does so for
    any content that is not the right one, so that nothing else need vouch for it.

    Raises DownloadError UNREACHABLE, HTTP_STATUS, INCOMPLETE, TOO_SLOW, BAD_ANSWER, BAD_REDIRECT, TLS_FAILED,
    SIZE_MISMATCH, DIGEST_MISMATCH, DOWNLOAD_TOO_BIG, NOT_CACHED; UsageError BAD_URL, INSECURE_URL, BAD_CA,
    PACKAGE_NOT_FOUND; ConflictError LOCK_BUSY; what ``accept`` raises, and what the file system refuses.
    """
    transport = transport or Transport()
    events = events or Events()
    downloads = downloads or Downloads(default_root())
    path = _local_path(source)
    job = Transfer(source, sha256, size, sealed, transport, events)
    if path is None:
        job.check_url(source, first=True)
        cached = _cached(downloads, job)
        if cached is not None:
            accept(cached)
            digest = cached.parent.name
            return Fetched(cached, shown(source), digest, cached.stat().st_size, cached=True)
        if transport.offline:
            raise DownloadError(
                "NOT_CACHED",
                f"{shown(source)} was not fetched before, and --offline forbids to do it now",
                hint="run the same command once without --offline, or copy the file here and name its path",
                details={"url": shown(source), "sha256": sha256},
            )
    with downloads.part(key_of(source, sha256), wait_seconds=transport.timeout) as part:
        try:
            if path is None:
                cached = _cached(downloads, job) if sha256 else None  # another process may just have brought it
                if cached is None:
                    job.download(part)
            else:
                cached = None
                job.copy(path, part)
            if cached is None:
                accept(part.path)
        except SmallqError as error:
            if error.code not in ("UNREACHABLE", "INCOMPLETE", "TOO_SLOW", "HTTP_STATUS", "TLS_FAILED"):
                part.discard()  # what is there is wrong, not only unfinished
            raise
        if cached is not None:
            part.discard()
            accept(cached)
            return Fetched(cached, shown(source), sha256, cached.stat().st_size, cached=True)
        kept = downloads.keep(part, name=file_name(source), source=source)
        what = shown(source if path is None else str(path))
        return Fetched(kept, what, part.digest.hexdigest(), part.size, False, job.resumed, job.attempts)


def _cached(downloads: Downloads, job: Transfer) -> Path | None:
    """What need not be transferred: content of the known digest, or (only offline) what the URL gave last."""
    digest = job.sha256 or (downloads.last_from(job.source) if job.transport.offline else "")
    return downloads.find(digest) if digest else None


def _local_path(source: str) -> Path | None:
    """The path of a file URL or plain path; None for what comes over the network.

    Raises UsageError BAD_URL, PACKAGE_NOT_FOUND.
    """
    if not is_url(source):
        return _possible(source)
    if not source.isprintable():
        raise UsageError("BAD_URL", f"{shown(source)} is no URL", hint="SCHEME://HOST/PATH")
    try:
        parts = urlsplit(source)
    except ValueError:
        raise UsageError("BAD_URL", f"{shown(source)} is no URL", hint="SCHEME://HOST/PATH") from None
    if parts.scheme.lower() != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise UsageError("BAD_URL", f"{shown(source)} names another host", hint="a file URL is file:///absolute/path")
    return _possible(unquote(parts.path, errors="surrogateescape"))


def _possible(path: str) -> Path:
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path)
    except UnicodeError:
        pass
    raise UsageError("PACKAGE_NOT_FOUND", f"{shown(path)} can be no file's name", hint="check the path")
