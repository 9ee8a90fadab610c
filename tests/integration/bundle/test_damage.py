"""Bundles that are damaged, or were changed on purpose: each is refused with a code, and nothing is installed."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from smallq_deploy.base.errors import PackageError, SmallqError, UsageError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.bundlefile import HEAD, open_bundle, verify_bundle
from tests.cli.support import smallq

SUMS = "SHA256SUMS"


@dataclass
class Parts:
    """A bundle taken apart; ``pack`` puts it together again, with right digests unless ``sums`` is set."""

    members: list[tuple[zipfile.ZipInfo, bytes]]
    sums: bytes | None = None
    head: bytes = HEAD
    comment: bytes = b""
    extra: list[tuple[zipfile.ZipInfo, bytes]] = field(default_factory=list)  # not in the digests

    def content(self, name: str) -> bytes:
        return next(content for info, content in self.members if info.filename == name)

    def replace(self, name: str, content: bytes) -> None:
        self.members = [(info, content if info.filename == name else old) for info, old in self.members]

    def index(self, **changes: object) -> None:
        record = json.loads(self.content("bundle.json"))
        self.replace("bundle.json", json.dumps({**record, **changes}).encode())

    def package(self, **changes: object) -> None:
        record = json.loads(self.content("bundle.json"))
        self.index(packages=[{**record["packages"][0], **changes}])

    def pack(self) -> bytes:
        lines = [f"{hashlib.sha256(content).hexdigest()}  {info.filename}\n" for info, content in self.members]
        sums = "".join(lines).encode() if self.sums is None else self.sums
        stream = io.BytesIO()
        stream.write(self.head)
        with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for info, content in [*self.members, *self.extra, (plain(SUMS), sums)]:
                archive.writestr(info, content)
            archive.comment = self.comment
        return stream.getvalue()


def plain(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = mode << 16
    return info


@pytest.fixture(scope="module")
def whole(bundle_file: Path) -> list[tuple[str, bytes]]:
    """Members of the bundle without the tool's own files: what `install` and `verify` look at."""
    with zipfile.ZipFile(bundle_file) as archive:
        return [
            (name, archive.read(name)) for name in archive.namelist() if not name.startswith("tool/") and name != SUMS
        ]


def parts_of(whole: list[tuple[str, bytes]]) -> Parts:
    return Parts([(plain(name), content) for name, content in whole])


def test_taken_apart_and_put_together_it_is_whole(whole: list[tuple[str, bytes]], tmp_path: Path) -> None:
    (tmp_path / "b.pyz").write_bytes(parts_of(whole).pack())
    (tmp_path / "scratch").mkdir()
    found = verify_bundle(tmp_path / "b.pyz", tmp_path / "scratch")
    assert len(found.index.packages) == 1


def _package_name(parts: Parts) -> str:
    return next(info.filename for info, _ in parts.members if info.filename.endswith(".run"))


def _pack_package(parts: Parts) -> None:
    for info, _ in parts.members:
        if info.filename.endswith(".run"):
            info.compress_type = zipfile.ZIP_DEFLATED


def _edit_package(parts: Parts) -> None:
    """Another content with digests that fit everywhere: the package's own digest still tells."""
    name = _package_name(parts)
    raw = bytearray(parts.content(name))
    raw[-100] ^= 0xFF
    parts.replace(name, bytes(raw))
    parts.package(sha256=hashlib.sha256(raw).hexdigest())


CHANGES: dict[str, Callable[[Parts], object]] = {
    "no head": lambda parts: setattr(parts, "head", b""),
    "another head": lambda parts: setattr(parts, "head", b"#!/bin/sh\nrm -rf ~\nexit\n"),
    "comment": lambda parts: setattr(parts, "comment", b"more"),
    "wrong sums": lambda parts: setattr(parts, "sums", b"0" * 64 + b"  __main__.py\n"),
    "sums are no text": lambda parts: setattr(parts, "sums", b"\xff\xfe"),
    "unlisted member": lambda parts: parts.extra.append((plain("tool/evil.py"), b"x")),
    "twice": lambda parts: parts.members.append((plain("bundle.json"), b"{}")),
    "differs in case": lambda parts: parts.members.append((plain("BUNDLE.json"), b"{}")),
    "leads out": lambda parts: parts.members.append((plain("../evil"), b"x")),
    "absolute": lambda parts: parts.members.append((plain("/etc/evil"), b"x")),
    "control character": lambda parts: parts.members.append((plain("a\x1b[2Jb"), b"x")),
    "a link": lambda parts: parts.members.append((plain("tool/link", 0o120777), b"/etc/passwd")),
    "index is no json": lambda parts: parts.replace("bundle.json", b"{"),
    "index is a list": lambda parts: parts.replace("bundle.json", b"[]"),
    "index is deep": lambda parts: parts.replace("bundle.json", b"[" * 100_000),
    "index without packages' size": lambda parts: parts.package(size="many"),
    "index with another digest": lambda parts: parts.package(sha256="0" * 64),
    "index with another size": lambda parts: parts.package(size=1),
    "index names what is not there": lambda parts: parts.package(path="packages/none.run"),
    "index names a manifest that is not there": lambda parts: parts.index(manifest="manifests/none.yaml"),
    "index lies about the architecture": lambda parts: parts.package(arch="riscv64"),
    "index lies about the operators": lambda parts: parts.package(ops=["SmallqFlashAttention", "Another"]),
    "index names another release": lambda parts: parts.index(release="another-1.0.0"),
    "manifest is damaged": lambda parts: parts.replace(json.loads(parts.content("bundle.json"))["manifest"], b"a: ["),
    "package is packed again": _pack_package,
    "package is damaged": _edit_package,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_bundle_is_refused(change: str, whole: list[tuple[str, bytes]], tmp_path: Path) -> None:
    parts = parts_of(whole)
    CHANGES[change](parts)
    (tmp_path / "b.pyz").write_bytes(parts.pack())
    (tmp_path / "scratch").mkdir()
    with pytest.raises(SmallqError) as caught:
        verify_bundle(tmp_path / "b.pyz", tmp_path / "scratch")
    assert isinstance(caught.value, PackageError), caught.value
    if change not in ("package is damaged", "manifest is damaged", "leads out", "absolute", "control character"):
        assert caught.value.code == "BAD_BUNDLE"
    assert caught.value.hint


def _local_name(raw: bytes) -> bytes:
    """The first member's own header gets another name than the directory has."""
    return raw.replace(b"__main__.py", b"__evil__.py", 1)


def _gap(raw: bytes) -> bytes:
    """Bytes between head and first member, with all offsets moved."""
    gap = b"# hidden\n"
    end = len(raw) - 22
    offset = struct.unpack("<L", raw[end + 16 : end + 20])[0]
    directory = bytearray(raw[offset:end])
    position = 0
    while position < len(directory):
        name, extra, comment = struct.unpack("<3H", directory[position + 28 : position + 34])
        old = struct.unpack("<L", directory[position + 42 : position + 46])[0]
        directory[position + 42 : position + 46] = struct.pack("<L", old + len(gap))
        position += 46 + name + extra + comment
    tail = raw[end : end + 16] + struct.pack("<L", offset + len(gap)) + raw[end + 20 :]
    return raw[: len(HEAD)] + gap + raw[len(HEAD) : offset] + bytes(directory) + tail


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "a web page": lambda raw: b"<html>404</html>" * 100,
    "half": lambda raw: raw[: len(raw) // 2],
    "last byte missing": lambda raw: raw[:-1],
    "more behind": lambda raw: raw + b"more",
    "more in front": lambda raw: b"more" + raw,
    "two names": _local_name,
    "a gap": _gap,
    "a flipped bit": lambda raw: raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:],
}


@pytest.mark.parametrize("change", BYTES)
def test_a_damaged_file_is_refused(change: str, whole: list[tuple[str, bytes]], tmp_path: Path) -> None:
    (tmp_path / "b.pyz").write_bytes(BYTES[change](parts_of(whole).pack()))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(PackageError) as caught:
        verify_bundle(tmp_path / "b.pyz", tmp_path / "scratch")
    assert caught.value.code == "BAD_BUNDLE"


def test_a_newer_bundle_says_how_to_go_on(whole: list[tuple[str, bytes]], tmp_path: Path) -> None:
    parts = parts_of(whole)
    parts.index(schema=99)
    (tmp_path / "b.pyz").write_bytes(parts.pack())
    with pytest.raises(UsageError) as caught, open_bundle(tmp_path / "b.pyz"):
        pass
    assert caught.value.code == "BUNDLE_NEWER"
    assert "run the bundle itself" in caught.value.hint


def test_nothing_is_installed_from_a_damaged_bundle(
    whole: list[tuple[str, bytes]], fresh_toolkit: Callable[..., Path], operator_package: Path, tmp_path: Path
) -> None:
    root = fresh_toolkit()
    parts = parts_of(whole)
    parts.replace(_package_name(parts), b"#!/bin/sh\ntouch /tmp/ran\n")
    bad = tmp_path / "bad.pyz"
    bad.write_bytes(parts.pack())
    before = tree_digest(root)
    cases = [
        (("--bundle", bad), 5, "BAD_BUNDLE"),
        (("--bundle", tmp_path / "none.pyz"), 2, "BUNDLE_NOT_FOUND"),
        (("--bundle", operator_package), 5, "BAD_BUNDLE"),
        ((operator_package, "--bundle", bad), 2, "USAGE"),
    ]
    for words, status, code in cases:
        ran = smallq("install", *words, "--cann", root, "--json")
        assert (ran.status, ran.codes) == (status, [code])
    assert tree_digest(root) == before


def test_a_bundle_without_a_package_for_this_machine(bundle_file: Path, fresh_toolkit: Callable[..., Path]) -> None:
    import platform

    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    root = fresh_toolkit(arch=other)
    before = tree_digest(root)
    ran = smallq("install", "--bundle", bundle_file, "--cann", root, "--no-smoke", "--json")
    assert (ran.status, ran.codes) == (4, ["NOT_IN_BUNDLE"])
    assert f"the toolkit is for {other}" in ran.document["errors"][0]["message"]
    ran = smallq("install", "--bundle", bundle_file, "--cann", root, "--soc", "Ascend310P3", "--json")
    assert ran.status == 4
    assert tree_digest(root) == before


def test_only_a_bundle_is_overwritten(operator_package: Path, tmp_path: Path) -> None:
    mine = tmp_path / "notes.txt"
    mine.write_text("mine\n")
    ran = smallq("bundle", "create", operator_package, "-o", mine, "--json")
    assert (ran.status, ran.codes) == (2, ["OUTPUT_EXISTS"])
    assert mine.read_text() == "mine\n"
    ran = smallq("bundle", "create", operator_package, "-o", tmp_path / "b.pyz", "--arch", "riscv64", "--json")
    assert (ran.status, ran.codes) == (2, ["NO_PACKAGE"])
    assert "it is for" in ran.document["errors"][0]["message"]
    ran = smallq("bundle", "create", operator_package, "-o", tmp_path / "b.pyz", "--python-runtime", mine, "--json")
    assert (ran.status, ran.codes) == (5, ["BAD_RUNTIME"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]
