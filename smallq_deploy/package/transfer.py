"""The transfer of one file: requests with resume, retries, limits; each answer judged before its body is believed."""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from smallq_deploy.base.errors import DownloadError, UsageError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.package.downloads import Part

if TYPE_CHECKING:
    import requests

MAX_SIZE = 1 << 30  # bytes
MAX_REDIRECTS = 5
_CHUNK = 1 << 16
_PROGRESS = 1 << 20  # an attempt that brought this much more does not count as failed
_MAX_DELAY = 30.0  # seconds
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_BY_HAND = "ask its owner, or get the file by other means and name its path"
_URL_HINT = "http://HOST/..., https://HOST/..., file:///PATH or a path; and look at HTTP_PROXY and HTTPS_PROXY"
_OTHER_FILE = "it was replaced or damaged where it is published: ask its owner, or correct what is stated"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Transport:
    """How to fetch. ``timeout``: seconds to connect, and without enough data (``min_speed`` bytes a second)."""

    offline: bool = False
    ca: Path | None = None
    timeout: float = 30.0
    retries: int = 4
    backoff: float = 0.5
    max_size: int = MAX_SIZE
    min_speed: int = 1024


class _TryAgain(Exception):
    """An attempt failed in a way that may pass. ``after``: seconds the server asks to wait."""

    def __init__(self, error: DownloadError, *, after: float = 0.0) -> None:
        super().__init__(error.message)
        self.error = error
        self.after = after


def is_url(source: str) -> bool:
    """True for what looks like SCHEME://..., whether we can fetch it or not."""
    return bool(_SCHEME.match(source))


def shown(source: str) -> str:
    """A source as messages and records have it: one line, a URL without user, password and query."""
    text = source
    if is_url(source):
        scheme, _, rest = source.partition("://")
        host, slash, path = re.split(r"[?#]", rest)[0].partition("/")
        text = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" + ("?..." if "?" in rest else "")
    return printable(text) or "an empty address"


@dataclass
class Transfer:
    """One fetch on its way: what is wanted, how, and how far it is.

    ``resumed``: where the last answer went on; ``pieces``: the bytes are of more than one answer.
    """

    source: str
    sha256: str
    size: int
    sealed: bool
    transport: Transport
    events: Events
    resumed: int = 0
    attempts: int = 0
    pieces: bool = False
    redirected: bool = False

    @property
    def limit(self) -> int:
        return self.size or self.transport.max_size

    def check_url(self, url: str, *, first: bool) -> None:
        """Is this a URL we may ask? Raises UsageError for the user's, DownloadError for a server's."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https") or not host:
            if first:
                raise UsageError("BAD_URL", f"{shown(url)} cannot be fetched", hint=_URL_HINT)
            raise DownloadError(
                "BAD_REDIRECT",
                f"{shown(self.source)} leads to {shown(url)}, which is not followed",
                hint=_BY_HAND,
            )
        if scheme == "http" and not (self.sha256 or self.sealed):
            text = f"{shown(url)} is plain http, and nothing says what the file must be"
            hint = "use https, state the file's --sha256, or demand a signature with --require-signature"
            if first:
                raise UsageError("INSECURE_URL", text, hint=hint)
            raise DownloadError("BAD_REDIRECT", f"{shown(self.source)} leads to plain http: {text}", hint=hint)

    def check_size(self, size: int, what: str) -> None:
        """Raises DownloadError SIZE_MISMATCH, DOWNLOAD_TOO_BIG."""
        if self.size and size != self.size:
            raise DownloadError(
                "SIZE_MISMATCH", f"{what} has {size:,} bytes, not {self.size:,} as stated", hint=_OTHER_FILE
            )
        self.check_limit(size, what)

    def check_limit(self, size: int, what: str) -> None:
        if self.size and size > self.size:
            raise DownloadError(
                "SIZE_MISMATCH", f"{what} has more than the {self.size:,} bytes stated", hint=_OTHER_FILE
            )
        if size > self.transport.max_size:
            raise DownloadError(
                "DOWNLOAD_TOO_BIG",
                f"{what} has more than {self.transport.max_size:,} bytes",
                hint="--max-size raises the limit, if you know that it is right",
            )

    def _digest_is_right(self, part: Part) -> bool:
        return not self.sha256 or part.digest.hexdigest() == self.sha256

    def _wrong_digest(self, part: Part) -> DownloadError:
        return DownloadError(
            "DIGEST_MISMATCH",
            f"{shown(self.source)} is another file than stated: its sha256 is {part.digest.hexdigest()}, "
            f"not {self.sha256}",
            hint=_OTHER_FILE,
        )

    def copy(self, path: Path, part: Part) -> None:
        """A local file, as it is now."""
        part.restart()
        try:
            # O_NONBLOCK: a pipe must not stop us.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise UsageError("PACKAGE_NOT_FOUND", f"{shown(str(path))} does not exist", hint="check the path") from None
        except OSError as error:
            raise access_error(error, f"read {path}") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError("PACKAGE_NOT_FOUND", f"{shown(str(path))} is no file", hint="name the file itself")
            self.check_size(os.fstat(fd).st_size, shown(str(path)))
            while chunk := _read_file(fd, path):
                part.write(chunk)
                self.check_limit(part.size, shown(str(path)))
        finally:
            os.close(fd)
        self.check_size(part.size, shown(str(path)))
        if not self._digest_is_right(part):
            raise self._wrong_digest(part)

    def download(self, part: Part) -> None:
        """Attempts until the part is whole. Raises what :func:`smallq_deploy.package.fetch.fetch` does."""
        if part.size > self.limit:
            part.restart()
        self.resumed, self.pieces = part.size, part.size > 0
        reached, failed = part.size, 0
        while True:
            try:
                if not (self.size and part.size == self.size):
                    self.attempts += 1
                    self._attempt(part)
                if self._digest_is_right(part):
                    return
                if not self.pieces:
                    raise self._wrong_digest(part)
                self._restart(part)  # pieces of two versions, perhaps: once more, in one piece
                raise _TryAgain(DownloadError("DIGEST_MISMATCH", "the pieces do not make the file that is stated"))
            except _TryAgain as problem:
                # ``reached`` never falls, so that this ends whatever the server does.
                failed = 1 if part.size >= reached + _PROGRESS else failed + 1
                reached = max(reached, part.size)
                if failed > self.transport.retries:
                    raise self._given_up(problem, part) from problem
                self._wait(problem, failed, part)

    def _restart(self, part: Part, validator: str = "") -> None:
        part.restart(validator)
        self.resumed, self.pieces = 0, False

    def _given_up(self, problem: _TryAgain, part: Part) -> DownloadError:
        kept = f"; {part.size:,} bytes are kept" if part.size else ""
        return DownloadError(
            problem.error.code,
            f"{shown(self.source)} could not be fetched in {self.attempts} attempts: {problem}{kept}",
            hint="check network, proxy (HTTPS_PROXY, NO_PROXY) and address; the same command goes on where this ended",
            details={"url": shown(self.source), "attempts": self.attempts, "bytes": part.size},
        )

    def _wait(self, problem: _TryAgain, failed: int, part: Part) -> None:
        delay = min(max(self.transport.backoff * 2 ** (failed - 1), problem.after), _MAX_DELAY)
        self.events.note(
            f"{problem}; again in {delay:.1f} s from byte {part.size:,} ({failed} of {self.transport.retries})"
        )
        time.sleep(delay)

    def _attempt(self, part: Part) -> None:
        """One request, until its answer ends. Raises _TryAgain, DownloadError."""
        import requests
        from urllib3.exceptions import HTTPError

        if part.size and not (part.validator or self.sha256):
            self._restart(part)  # nothing could tell whether the rest belongs to it
        headers = {"Accept-Encoding": "identity", "User-Agent": _user_agent()}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.validator:
                headers["If-Range"] = part.validator
        with requests.Session() as session:
            try:
                with self._ask(session, headers) as response:
                    self._receive(response, part)
            except requests.exceptions.SSLError as error:
                raise self._tls_error(error) from error
            except requests.exceptions.Timeout as error:
                raise _TryAgain(
                    DownloadError("UNREACHABLE", f"no answer within {self.transport.timeout:g} s")
                ) from error
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
                text = f"{shown(self.source)} cannot be fetched: {_reason(error)}"
                if self.redirected:
                    raise DownloadError("BAD_REDIRECT", f"{text} (it leads elsewhere)", hint=_BY_HAND) from error
                raise UsageError("BAD_URL", text, hint=_URL_HINT) from error
            except (requests.exceptions.RequestException, HTTPError) as error:
                raise _TryAgain(DownloadError("INCOMPLETE" if part.size else "UNREACHABLE", _reason(error))) from error

    def _tls_error(self, error: Exception) -> DownloadError | _TryAgain:
        if "certificate" not in str(error).lower():
            return _TryAgain(DownloadError("TLS_FAILED", f"the encrypted connection failed ({_reason(error)})"))
        return DownloadError(
            "TLS_FAILED",
            f"the server of {shown(self.source)} cannot be believed: {_reason(error)}",
            hint="if it or your proxy has an authority of its own, name its file: --ca FILE or REQUESTS_CA_BUNDLE",
        )

    def _ask(self, session: requests.Session, headers: dict[str, str]) -> requests.Response:
        """The answer after redirects, each of which is checked before it is followed."""
        import requests

        url, verify = self.source, str(self.transport.ca) if self.transport.ca else None
        for _ in range(MAX_REDIRECTS + 1):
            request = session.prepare_request(requests.Request("GET", url, headers=headers))
            settings = session.merge_environment_settings(request.url, {}, True, verify, None)
            try:
                # Not session.get: that would read the whole body of a redirect.
                response = session.get_adapter(str(request.url)).send(
                    request,
                    stream=True,
                    timeout=self.transport.timeout,
                    verify=True if settings["verify"] is None else settings["verify"],
                    cert=settings["cert"],
                    proxies=settings["proxies"],
                )
            except OSError as error:
                if "CA certificate bundle" in str(error):
                    text = "the file of certificate authorities (--ca, REQUESTS_CA_BUNDLE) does not exist"
                    raise UsageError("BAD_CA", text, hint="name a PEM file") from error
                raise
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            target = response.headers.get("Location", "")
            response.close()
            self.redirected = True
            try:
                url = urljoin(url, target)
            except ValueError:
                target = ""
            self.check_url(url if target else "", first=False)
        raise DownloadError(
            "BAD_REDIRECT",
            f"{shown(self.source)} leads from address to address, more than {MAX_REDIRECTS} times",
            hint=_BY_HAND,
        )

    def _receive(self, response: requests.Response, part: Part) -> None:
        total = self._begin(response, part)
        name = shown(self.source)
        clock, counted = time.monotonic(), 0
        while True:
            chunk = _read_some(response.raw)
            if not chunk:
                break
            part.write(chunk)
            self.check_limit(part.size, name)
            counted += len(chunk)
            passed = time.monotonic() - clock
            if passed >= self.transport.timeout:
                if counted < self.transport.min_speed * passed:
                    raise _TryAgain(DownloadError("TOO_SLOW", f"only {counted:,} bytes came in {passed:.0f} s"))
                clock, counted = time.monotonic(), 0
        if (total is not None and part.size < total) or part.size < self.size:
            text = f"the connection ended after {part.size:,} of {total or self.size:,} bytes"
            raise _TryAgain(DownloadError("INCOMPLETE", text))
        self.check_size(part.size, name)

    def _begin(self, response: requests.Response, part: Part) -> int | None:
        """Judge status and headers; put the part where the body goes on. Returns the size of the whole, if stated."""
        status, headers = response.status_code, response.headers
        length = _number(headers.get("Content-Length"))
        if status == 206 and part.size:
            found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
            if found is None or int(found[1]) != part.size or (found[3] != "*" and int(found[3]) <= int(found[2])):
                self._restart(part)
                text = f"the server sends another range than asked for: {_cut(headers)}"
                raise _TryAgain(DownloadError("BAD_ANSWER", text))
            total = int(found[3]) if found[3] != "*" else (part.size + length if length is not None else None)
            self.resumed, self.pieces = part.size, True
        elif status == 200:
            self._restart(part, _validator(headers))
            total = length
        elif status == 416 and part.size:
            self._restart(part)
            raise _TryAgain(
                DownloadError("BAD_ANSWER", "the server has no more bytes of this file; it is fetched anew")
            )
        elif status in _TRY_AGAIN:
            after = _number(headers.get("Retry-After")) or 0
            raise _TryAgain(
                DownloadError("HTTP_STATUS", f"the server answers {status} {printable(response.reason)}"), after=after
            )
        else:
            raise self._refused(status, printable(response.reason))
        if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise DownloadError(
                "BAD_ANSWER",
                f"{shown(self.source)} comes packed ({headers['Content-Encoding']!r:.40}), which was not asked for",
                hint="ask its owner to publish the file as it is",
            )
        if total is not None:
            self.check_size(total, shown(self.source))
        elif "chunked" not in headers.get("Transfer-Encoding", "").lower() and not (self.sha256 or self.sealed):
            raise DownloadError(
                "BAD_ANSWER",
                f"the server does not say how long {shown(self.source)} is, so half of it would pass for all",
                hint="state its --sha256",
            )
        return total

    def _refused(self, status: int, reason: str) -> DownloadError:
        hints = {
            401: "the server wants a login: put it into ~/.netrc, or get the file by other means",
            403: "the server does not give it to you: check the address and your rights",
            404: "check the address: there is no such file",
            407: "your proxy wants a login: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
        }
        return DownloadError(
            "HTTP_STATUS",
            f"{shown(self.source)}: the server answers {status} {reason}",
            hint=hints.get(status, "check the address with a browser or curl"),
            details={"url": shown(self.source), "status": status},
        )


def _user_agent() -> str:
    from smallq_deploy import __version__

    return f"smallq-deploy/{__version__}"


def _read_some(raw: Any) -> bytes:
    """What has come, as soon as something has; b'' at the end."""
    if hasattr(raw, "read1"):
        return raw.read1(_CHUNK, decode_content=False) or b""
    return raw.read(1024, decode_content=False) or b""  # urllib3 1


def _read_file(fd: int, path: Path) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except OSError as error:
        raise access_error(error, f"read {path}") from error


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\s*\d{1,18}\s*", text) else None


def _validator(headers: Any) -> str:
    """A strong ETag, else Last-Modified: what If-Range may have."""
    etag = str(headers.get("ETag", "")).strip()
    if etag.startswith('"') and etag.endswith('"') and etag.isprintable() and 2 < len(etag) < 200:
        return etag
    date = str(headers.get("Last-Modified", "")).strip()
    return date if re.fullmatch(r"[A-Za-z0-9,: +-]{10,60}", date) else ""


def _cut(headers: Any) -> str:
    return repr(str(headers.get("Content-Range", "")))[:80]


def printable(text: object) -> str:
    """What a server says, harmless for a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(text or ""))[:300]


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: requests wraps what happened several times."""
    inner: BaseException = error
    seen = {id(inner)}
    while True:
        deeper = getattr(inner, "reason", None)
        if not isinstance(deeper, BaseException):
            deeper = next((item for item in inner.args if isinstance(item, BaseException)), None)
        if deeper is None or id(deeper) in seen:
            break
        inner = deeper
        seen.add(id(inner))
    text = " ".join(str(inner).split()) or type(inner).__name__
    text = re.sub(r"^<[^>]*>: |^\w+\([^)]*\): ", "", text)
    return printable(re.sub(r"//[^/@\s]*@", "//", text))
