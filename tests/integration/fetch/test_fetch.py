"""Fetching from a server that misbehaves: the right file or a typed error, and nothing unfinished in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import ConflictError, DownloadError, PackageError, SmallqError, UsageError
from smallq_deploy.package.downloads import Downloads, key_of
from smallq_deploy.package.fetch import Fetched, fetch, file_name
from smallq_deploy.package.transfer import Transport
from tests.integration.fetch.server import CONTENT, ETAG, Server

DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = Transport(timeout=0.5, retries=2, backoff=0.01)


def final(downloads: Downloads) -> list[Path]:
    """Whole files in the cache."""
    return [path for path in downloads.root.glob("sha256/*/*") if path.is_file()]


def parts(downloads: Downloads) -> list[Path]:
    return [path for path in downloads.root.glob("parts/*.part") if path.stat().st_size]


@pytest.fixture(autouse=True)
def nothing_wrong_is_final(downloads: Downloads) -> Iterator[None]:
    """After every test: what lies at a final place has the digest of its place."""
    yield
    for path in final(downloads):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name


def get(server: Server, downloads: Downloads, behaviour: str, **options: Any) -> Fetched:
    known = {"sha256": DIGEST, "size": len(CONTENT), "transport": QUICK, **options}
    return fetch(server.url(behaviour), downloads=downloads, **known)


# behaviour of the server, requests it takes
SUCCEED = [
    ("good", 1),
    ("drops", 3),
    ("drops-once", 2),
    ("ignores-range", 2),
    ("wrong-range", 3),
    ("wrong-piece", 3),
    ("no-length", 1),
    ("chunked", 1),
    ("busy-once", 2),
    ("redirect", 1),
]


@pytest.mark.parametrize(("behaviour", "requests"), SUCCEED)
def test_ends_well(server: Server, downloads: Downloads, behaviour: str, requests: int) -> None:
    got = get(server, downloads, behaviour)
    assert got.path.read_bytes() == CONTENT
    assert (got.sha256, got.size, got.cached) == (DIGEST, len(CONTENT), False)
    assert server.count(behaviour) == requests
    assert final(downloads) == [got.path]
    assert list(downloads.root.glob("parts/*")) == []


# behaviour, code, may an unfinished part stay for the next time?
FAIL = [
    ("drops-always", "INCOMPLETE", True),
    ("hangs-up", "UNREACHABLE", False),
    ("longer", "SIZE_MISMATCH", False),
    ("shorter", "SIZE_MISMATCH", False),
    ("chunked-cut", "INCOMPLETE", True),
    ("endless", "SIZE_MISMATCH", False),
    ("packed", "BAD_ANSWER", False),
    ("unavailable", "HTTP_STATUS", False),
    ("forbidden", "HTTP_STATUS", False),
    ("missing", "HTTP_STATUS", False),
    ("loop", "BAD_REDIRECT", False),
    ("to-file", "BAD_REDIRECT", False),
    ("to-nowhere", "BAD_REDIRECT", False),
    ("silent", "UNREACHABLE", False),
    ("stalls", "INCOMPLETE", True),
    ("drips", "TOO_SLOW", True),
    ("page", "SIZE_MISMATCH", False),
]


@pytest.mark.parametrize(("behaviour", "code", "kept"), FAIL)
def test_ends_in_a_typed_error(server: Server, downloads: Downloads, behaviour: str, code: str, kept: bool) -> None:
    with pytest.raises(DownloadError) as caught:
        get(server, downloads, behaviour, transport=Transport(timeout=0.4, retries=1, backoff=0.01))
    assert caught.value.code == code
    assert caught.value.exit_status == 13
    assert caught.value.hint
    assert final(downloads) == []
    assert bool(parts(downloads)) == kept


# Without a stated size the same lies are told by the digest, or not at all.
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("longer", "INCOMPLETE"),
        ("shorter", "DIGEST_MISMATCH"),
        ("endless", "DOWNLOAD_TOO_BIG"),
        ("page", "DIGEST_MISMATCH"),
    ],
)
def test_without_a_stated_size(server: Server, downloads: Downloads, behaviour: str, code: str) -> None:
    transport = Transport(timeout=2, retries=1, backoff=0.01, max_size=3 * len(CONTENT))
    with pytest.raises(DownloadError) as caught:
        get(server, downloads, behaviour, size=0, transport=transport)
    assert caught.value.code == code
    assert final(downloads) == []


HOSTILE = [
    b"",
    b"\n",
    b"junk\r\n\r\n",
    b"HTTP/1.1 twohundred\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nabcde",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: \x1b[31m\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
    b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/3\r\n\r\nabc",
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://[::1/op\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://a b:99999999/\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://.\xff\xfe./\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: //\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: javascript:alert(1)\r\n\r\n",
    b"HTTP/1.1 404 \x1b]0;owned\x07\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X-Header: 1\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX-Header: " + b"1" * 70_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_answers_that_are_none(server: Server, downloads: Downloads, raw: bytes) -> None:
    server.raw = raw
    with pytest.raises(DownloadError) as caught:
        get(server, downloads, "raw", transport=Transport(timeout=2, retries=1, backoff=0.01))
    assert caught.value.message.isprintable()
    assert caught.value.exit_status == 13
    assert final(downloads) == []


@pytest.mark.parametrize(
    "range_", ["bytes 0-2/" + "9" * 5000, "bytes 200000-1/512000", "bytes */512000", "pages 1-2/3", ""]
)
def test_a_range_that_is_none_is_not_used(server: Server, downloads: Downloads, range_: str) -> None:
    with pytest.raises(DownloadError):
        get(server, downloads, "drops", transport=Transport(timeout=2, retries=0))
    (part,) = parts(downloads)
    other = part.with_name(f"{key_of(server.url('raw'), DIGEST)}.part")
    part.rename(other)
    server.raw = f"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\nContent-Range: {range_}\r\n\r\nabc".encode()
    with pytest.raises(DownloadError):
        get(server, downloads, "raw", transport=Transport(timeout=2, retries=1, backoff=0.01))
    assert final(downloads) == []


def test_a_wrong_digest_is_final_and_leaves_nothing(server: Server, downloads: Downloads) -> None:
    with pytest.raises(DownloadError) as caught:
        get(server, downloads, "good", sha256="0" * 64)
    assert caught.value.code == "DIGEST_MISMATCH"
    assert DIGEST in caught.value.message
    assert server.count("good") == 1
    assert list(downloads.root.glob("*/*")) == []


def test_stated_size_and_limit_hold_before_a_byte_is_taken(server: Server, downloads: Downloads) -> None:
    for options, code in (({"size": 1000}, "SIZE_MISMATCH"), ({"size": 0}, "DOWNLOAD_TOO_BIG")):
        with pytest.raises(DownloadError) as caught:
            get(server, downloads, "good", transport=Transport(max_size=1000), **options)
        assert caught.value.code == code


def test_a_later_process_goes_on_where_an_earlier_one_ended(server: Server, downloads: Downloads) -> None:
    with pytest.raises(DownloadError):
        get(server, downloads, "drops", transport=Transport(timeout=2, retries=0))
    assert [path.stat().st_size for path in parts(downloads)] == [200_000]
    got = get(server, downloads, "drops")
    assert got.path.read_bytes() == CONTENT
    assert got.resumed == 400_000
    _, headers = server.requests[1]
    assert (headers["Range"], headers["If-Range"]) == ("bytes=200000-", ETAG)


def test_pieces_of_two_versions_are_never_joined(server: Server, downloads: Downloads) -> None:
    """Without a digest the validator alone tells that the file was replaced."""
    got = fetch(server.url("replaced"), sealed=True, transport=QUICK, downloads=downloads)
    assert got.path.read_bytes() == CONTENT[::-1]
    assert got.resumed == 0


def test_what_an_earlier_process_left_is_not_believed(server: Server, downloads: Downloads) -> None:
    """A part with bytes of something else, and one that is longer than the file."""
    part = downloads.root / "parts" / f"{key_of(server.url('good'), DIGEST)}.part"
    part.parent.mkdir(parents=True)
    for junk in (b"junk" * 100, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)):
        part.write_bytes(junk)
        got = get(server, downloads, "good")
        assert got.path.read_bytes() == CONTENT
        got.path.unlink()


def test_a_link_in_place_of_a_part_is_not_followed(server: Server, downloads: Downloads, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    part = downloads.root / "parts" / f"{key_of(server.url('good'), DIGEST)}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to(victim)
    with pytest.raises(SmallqError):
        get(server, downloads, "good")
    assert victim.read_text() == "mine"


def test_the_cache_is_asked_before_the_network(server: Server, downloads: Downloads) -> None:
    first = get(server, downloads, "good")
    again = get(server, downloads, "missing")  # the content counts, not the address
    assert (again.path, again.cached) == (first.path, True)
    assert server.count("missing") == 0


def test_a_damaged_cache_entry_is_fetched_again(server: Server, downloads: Downloads) -> None:
    path = get(server, downloads, "good").path
    path.write_bytes(CONTENT[:-1] + b"?")
    got = get(server, downloads, "good")
    assert not got.cached
    assert got.path.read_bytes() == CONTENT


def test_offline_never_asks(server: Server, downloads: Downloads) -> None:
    offline = Transport(offline=True)
    with pytest.raises(DownloadError) as caught:
        get(server, downloads, "good", transport=offline)
    assert caught.value.code == "NOT_CACHED"
    assert server.requests == []
    path = get(server, downloads, "good").path
    count = len(server.requests)
    assert get(server, downloads, "good", transport=offline).path == path
    # Without a digest: what this address gave last.
    assert fetch(server.url("good"), sealed=True, transport=offline, downloads=downloads).path == path
    with pytest.raises(DownloadError):
        fetch(server.url("other"), sealed=True, transport=offline, downloads=downloads)
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError):
        get(server, downloads, "good", transport=offline)
    assert len(server.requests) == count


def test_plain_http_needs_a_digest_or_a_signature(server: Server, downloads: Downloads) -> None:
    with pytest.raises(UsageError) as caught:
        fetch(server.url("good"), transport=QUICK, downloads=downloads)
    assert caught.value.code == "INSECURE_URL"
    assert server.requests == []
    assert fetch(server.url("good"), sealed=True, transport=QUICK, downloads=downloads).sha256 == DIGEST


@pytest.mark.parametrize(
    "source", ["ftp://host/op.run", "http://", "http://[1::2/op.run", "https://host:port/op.run", "file://host/op.run"]
)
def test_addresses_that_cannot_be_fetched(downloads: Downloads, source: str) -> None:
    with pytest.raises(UsageError) as caught:
        fetch(source, sha256=DIGEST, transport=QUICK, downloads=downloads)
    assert caught.value.code == "BAD_URL"
    assert not downloads.root.exists()


def test_a_refused_connection(downloads: Downloads, server: Server) -> None:
    server.server_close()
    with pytest.raises(DownloadError) as caught:
        get(server, downloads, "good")
    assert caught.value.code == "UNREACHABLE"
    assert "3 attempts" in caught.value.message


def test_passwords_are_not_shown(server: Server, downloads: Downloads) -> None:
    url = server.url("missing").replace("//", "//user:secret@") + "?token=hidden"
    with pytest.raises(DownloadError) as caught:
        fetch(url, sha256=DIGEST, transport=QUICK, downloads=downloads)
    text = caught.value.message + repr(caught.value.details)
    assert "secret" not in text and "hidden" not in text
    assert server.requests[0][1]["Authorization"].startswith("Basic ")
    server.server_close()
    with pytest.raises(DownloadError) as caught:
        fetch(url, sha256=DIGEST, transport=QUICK, downloads=downloads)
    assert "secret" not in caught.value.message and "hidden" not in caught.value.message


def test_files_and_file_urls(downloads: Downloads, tmp_path: Path) -> None:
    path = tmp_path / "my op.run"
    path.write_bytes(CONTENT)
    for source in (str(path), path.as_uri()):
        got = fetch(source, sha256=DIGEST, downloads=downloads, transport=Transport(offline=True))
        assert got.path.read_bytes() == CONTENT
        assert got.path.name == "my_op.run"
    with pytest.raises(DownloadError) as caught:
        fetch(str(path), sha256="1" * 64, downloads=downloads)
    assert caught.value.code == "DIGEST_MISMATCH"
    for wrong in (tmp_path / "none", tmp_path, Path(os.devnull)):
        with pytest.raises(UsageError) as refused:
            fetch(str(wrong), downloads=downloads)
        assert refused.value.code == "PACKAGE_NOT_FOUND"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError):
        fetch(str(pipe), downloads=downloads)


def test_what_the_caller_refuses_does_not_get_into_the_cache(server: Server, downloads: Downloads) -> None:
    def refuse(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        raise PackageError("BAD_SIGNATURE", "no")

    with pytest.raises(PackageError):
        get(server, downloads, "good", accept=refuse)
    assert list(downloads.root.glob("*/*")) == []
    get(server, downloads, "good")
    with pytest.raises(PackageError):
        get(server, downloads, "good", accept=refuse)


def test_two_at_once_make_one_file(server: Server, downloads: Downloads) -> None:
    got: list[Fetched] = []
    patient = Transport(timeout=10)
    threads = [
        threading.Thread(target=lambda: got.append(get(server, downloads, "drops", transport=patient))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({item.path for item in got}) == 1 and len(got) == 2
    assert sorted(item.cached for item in got) == [False, True]
    assert server.count("drops") == 3


def test_a_download_in_progress_is_not_disturbed(server: Server, downloads: Downloads) -> None:
    with downloads.part(key_of(server.url("good"), DIGEST), wait_seconds=0):
        with pytest.raises(ConflictError) as caught:
            get(server, downloads, "good", transport=Transport(timeout=0.1))
    assert caught.value.code == "LOCK_BUSY"
    assert server.requests == []


def test_proxy_settings_are_honoured(server: Server, downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.setenv("http_proxy", server.address)
    url = "http://packages.invalid/good/op.run"
    assert fetch(url, sha256=DIGEST, transport=QUICK, downloads=downloads).path.read_bytes() == CONTENT
    assert server.requests[0][0] == url


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate of this test")
def test_an_authority_of_ones_own(
    server: Server, downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server.encrypt(certificate, key)
    url = server.url("good")

    def over_tls(ca: Path | None) -> Fetched:
        return fetch(url, transport=Transport(timeout=5, retries=1, backoff=0.01, ca=ca), downloads=downloads)

    with pytest.raises(DownloadError) as caught:
        over_tls(None)
    assert caught.value.code == "TLS_FAILED"
    assert "--ca" in caught.value.hint
    assert over_tls(certificate).path.read_bytes() == CONTENT  # https needs no digest
    for wrong in (tmp_path / "none.pem", key):
        with pytest.raises(SmallqError) as refused:
            over_tls(wrong)
        assert refused.value.code in ("BAD_CA", "TLS_FAILED")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert over_tls(None).sha256 == DIGEST
    # A stated authority counts for more than the environment.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    assert over_tls(certificate).sha256 == DIGEST


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://host/a/op.run?x=1", "op.run"),
        ("https://host/a/..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://host/", "package.run"),
        ("https://host", "package.run"),
        ("http://[broken/op.run", "op.run"),
        ("https://host/op.run?token=a/b#c", "op.run"),
        ("https://host/.hidden", "hidden"),
        ("dir/op 1.run", "op_1.run"),
        ("https://host/op.run.sig", "op.run.signature"),
    ],
)
def test_names_are_harmless(source: str, name: str) -> None:
    assert file_name(source) == name
