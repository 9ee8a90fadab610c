"""Whatever is named as a source: an answer or a typed error that can be printed, and nothing is written elsewhere."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.package.acquire import beside
from smallq_deploy.package.downloads import Downloads
from smallq_deploy.package.fetch import fetch, file_name
from smallq_deploy.package.transfer import Transport, is_url, shown

TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
SCHEMES = st.sampled_from(
    ["http://", "https://", "HTTPS://", "file://", "file:///", "ftp://", "x://", "https://[", "//", ""]
)
HOSTS = st.sampled_from(
    ["", "host", "user:secret@host", "[::1]", "[", "host:99999", "a b", "%00", ".", "host/%2e%2e/", "%zz/"]
)


@given(SCHEMES, HOSTS, TEXT)
@settings(max_examples=400, deadline=None)
def test_any_source(scheme: str, host: str, rest: str) -> None:
    source = scheme + host + rest
    name = file_name(source)
    assert name and "/" not in name and not name.startswith(".") and name.isascii() and len(name) < 200
    assert shown(source).isprintable()
    assert beside(source)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "downloads"
        if not is_url(source):
            source = f"{folder}/none/{source}"
        try:
            fetch(source, sha256="0" * 64, transport=Transport(offline=True), downloads=Downloads(root))
        except SmallqError as error:
            json.dumps(error.to_dict(), ensure_ascii=False).encode()
            if scheme.lower().startswith("http"):
                assert "secret" not in error.message
        else:
            raise AssertionError("there is no such file")
        assert {path.name for path in Path(folder).iterdir()} <= {"downloads"}
