"""Readers that never crash, idempotent tree operations."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from smallq_deploy.base.errors import ConflictError, SmallqError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.package.compat import load_compat
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import load_matrix, load_release
from smallq_deploy.package.runfile import extract_vendor, read_run
from smallq_deploy.package.runheader import read_header
from smallq_deploy.package.tarstream import check_link, clean_name, read_members
from smallq_deploy.package.vendortree import flatten, inspect_vendor, normalise
from tests.support import packages
from tests.support.packages import make_vendor_tree, write_run

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# `make bench-tool` runs the readers of foreign text on 5,000 examples each; so does this file with the variable set.
MANY = settings(
    max_examples=int(os.environ.get("SMALLQ_FUZZ_EXAMPLES", "400")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

# --- packages ---

fragments = st.sampled_from(
    [
        b"#!/bin/bash\n",
        b'skip="3"\n',
        b'skip="0"\n',
        b'skip="99999999999999"\n',
        b'SHA="' + b"a" * 64 + b'"\n',
        b'SHA=""\n',
        b'filesizes="10"\n',
        b"filesizes=-1\n",
        b'filesizes="1 2"\n',
        b'label="x\xff"\n',
        b"\n",
        b"\x00",
        b"\x1f\x8b\x08",
    ]
)


@given(st.lists(st.one_of(fragments, st.binary(max_size=40)), max_size=12))
@MANY
def test_no_bytes_crash_the_header_reader(parts: list[bytes]) -> None:
    try:
        header = read_header(Path("x.run"), io.BytesIO(b"#!/bin/sh\n" + b"".join(parts)))
        assert header.size > 0
        assert header.offset > 0
    except SmallqError as error:
        assert error.code in ("NOT_A_RUN", "TRUNCATED", "CHECKSUM")


def readable(path: Path) -> bool:
    try:
        read_run(path)
    except SmallqError as error:
        assert error.exit_status in (5, 2)
        assert error.message
        return False
    return True


@pytest.fixture(scope="module")
def whole_package() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return packages.make_run(Path(directory, "op.run")).read_bytes()


@given(data=st.data())
@MANY
def test_a_changed_package_is_refused_or_says_the_same(whole_package: bytes, data: st.DataObject) -> None:
    """Bytes changed, cut out or doubled anywhere: never a crash, and never other content than was packed."""
    raw = bytearray(whole_package)
    place = data.draw(st.integers(0, len(raw) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "end"]))
    if kind == "flip":
        raw[place] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del raw[place : place + data.draw(st.integers(1, 600))]
    elif kind == "insert":
        raw[place:place] = data.draw(st.binary(min_size=1, max_size=60))
    else:
        del raw[place:]
    assume(bytes(raw) != whole_package)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "op.run")
        path.write_bytes(raw)
        if readable(path):
            assert read_run(path).ops == (packages.OPERATOR,)


@given(data=st.data())
@MANY
def test_a_changed_archive_with_a_right_digest_is_refused_or_stays_inside(
    whole_package: bytes, data: st.DataObject
) -> None:
    """Who can change the archive can also change its digest: the tar reader must hold by itself."""
    files = {"customize": {"op_api/a": b"1", "op_api/b": packages.Link("a")}}
    tar = bytearray(gzip.decompress(packages.pack(packages.package_members(files))))
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers are the first 512 bytes of each member; most of the archive is headers here.
        place = data.draw(st.integers(0, len(tar) - 1))
        tar[place] = data.draw(st.sampled_from([0, 0x2F, 0x2E, 0x31, 0x32, 0x35, 0x37, 0x78, 0x80, 0xFF]))
        block = place - place % 512
        tar[block + 148 : block + 156] = b"        "
        tar[block + 148 : block + 155] = b"%06o\0" % sum(tar[block : block + 512])
    with tempfile.TemporaryDirectory() as directory:
        path = write_run(Path(directory, "op.run"), gzip.compress(bytes(tar), 1))
        readable(path)
        assert [entry.name for entry in Path(directory).iterdir()] == ["op.run"]


@given(st.binary(max_size=3000))
@MANY
def test_no_bytes_crash_the_tar_reader(raw: bytes) -> None:
    stream = io.BytesIO(raw)
    try:
        for member, content in read_members(stream.read, link_root=lambda path: ""):
            assert not member.path.startswith("/")
            b"".join(content)
    except SmallqError as error:
        assert error.code in ("BAD_ARCHIVE", "UNSAFE_MEMBER", "TOO_BIG")


names = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c"]), min_size=1, max_size=7).map("/".join)


@given(names)
@MANY
def test_a_clean_name_stays_inside(name: str) -> None:
    try:
        cleaned = clean_name(name.encode())
    except SmallqError:
        assert ".." in name.split("/") or name.startswith("/")
        return
    assert (Path("/root") / cleaned).is_relative_to("/root")
    assert ".." not in cleaned.split("/")


@given(st.lists(st.tuples(names, names), min_size=1, max_size=6))
@MANY
@example([("a/b", ".."), ("a/c", "b/../..")])
def test_links_that_are_accepted_never_lead_out(pairs: list[tuple[str, str]]) -> None:
    """Really made on disk, whatever links exist beside: the resolved target lies below the root."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve() / "root"
        root.mkdir()
        made = []
        for name, target in pairs:
            try:
                cleaned = clean_name(name.encode())
                assume(cleaned)
                checked = check_link(cleaned, target.encode(), "")
            except SmallqError:
                continue
            path = root / cleaned
            if any((root / parent).is_symlink() for parent in Path(cleaned).parents) or path.exists():
                continue  # the archive reader refuses these by name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                continue
            path.symlink_to(checked)
            made.append(path)
        for path in made:
            try:
                os.stat(path)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    continue  # a loop leads nowhere
            resolved = Path(os.path.realpath(path))
            assert resolved == root or root in resolved.parents, (path, resolved)


# --- manifests ---

yaml_texts = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            ["schema: 1", "name: x", "smoke:", "  cases:", "  - {", "}", "[", "]", "&a", "*a", "!!x", "- 1", ": "]
        ),
        max_size=12,
    ).map("\n".join),
)


@given(yaml_texts)
@MANY
def test_no_text_crashes_the_manifest_loaders(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.yaml")
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        for load in (load_release, load_matrix, load_compat):
            with pytest.raises(SmallqError) as caught:
                load(path)
            assert all(item.code == "BAD_MANIFEST" for item in caught.value.problems)


@given(data=st.data())
@FEW
def test_a_changed_manifest_is_refused_with_a_line_or_loads(data: st.DataObject) -> None:
    kind, load = data.draw(st.sampled_from([("releases", load_release), ("compat", load_compat)]))
    text = data.draw(st.sampled_from(sorted((data_root() / "manifests" / kind).glob("*.yaml")))).read_text()
    place = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 30))
    changed = text[:place] + data.draw(st.text(max_size=10)) + text[place + length :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.yaml")
        path.write_text(changed, encoding="utf-8", errors="surrogatepass")
        try:
            load(path)
        except SmallqError as error:
            assert all(str(path) in item.message for item in error.problems)


# --- trees ---


@given(
    layout=st.sampled_from(["flat", "nested", "double", "both", "empty"]),
    second=st.sampled_from(["", "flat", "nested"]),
    more=st.booleans(),
)
@FEW
def test_flatten_and_normalise_are_idempotent(layout: str, second: str, more: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = make_vendor_tree(Path(directory, "customize"), layout=layout)
        if second:
            ops = (packages.OPERATOR, "VecAddSample") if more else (packages.OPERATOR,)
            target = root / "vendors" / "later" if second == "nested" else root
            make_links_replaceable(target)
            make_vendor_tree(target, ops=ops, content="later")
        before = set(inspect_vendor(root).ops)
        try:
            flatten(root)
        except ConflictError:
            assert more
            return
        assert set(inspect_vendor(root).ops) == before
        assert inspect_vendor(root).layout in ("flat", "empty")
        assert not flatten(root)
        final = Path(directory, "opp", "vendors", "customize")
        normalise(root, final=final)
        digest = tree_digest(root)
        normalise(root, final=final)
        assert not flatten(root)
        assert tree_digest(root) == digest


def make_links_replaceable(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_symlink():
            path.unlink()


def test_extraction_of_a_normal_package_needs_no_flattening(tmp_path: Path) -> None:
    run = read_run(packages.make_run(tmp_path / "op.run"))
    extract_vendor(run, tmp_path / "out")
    assert not flatten(tmp_path / "out")
