"""What a known_hosts file lets in is what OpenSSH's own ssh-keygen finds in it, however long it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from smallq_deploy.fleet.engines.knownhosts import KnownHosts

A, B, C = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + letter * 43 for letter in "ABC")
FILE = f"""# a comment
one.example,192.0.2.1 {A} comment
[two.example]:2222 {B}

one.example {C}
Mixed.Example {B}
not-a-key
@cert-authority *.example {C}
*.pattern {A}
three.example {A}
three.example {B}
@revoked three.example {A}
|1|broken|digest {A}
"""


def _known(path: Path, text: str = FILE) -> KnownHosts:
    path.write_text(text)
    return KnownHosts([str(path.parent / "none"), str(path)])


def test_names_addresses_and_ports(tmp_path: Path) -> None:
    known = _known(tmp_path / "known")
    assert known.keys("one.example") == [A, C]
    assert known.keys("192.0.2.1") == [A]
    assert known.keys("[two.example]:2222") == [B]
    assert known.keys("mixed.example") == known.keys("MIXED.example") == [B]


@pytest.mark.parametrize(
    "name", ["two.example", "[two.example]:22", "x.pattern", "other.example", "one", "not-a-key", ""]
)
def test_nobody_else_is_let_in(tmp_path: Path, name: str) -> None:
    assert _known(tmp_path / "known").keys(name) == []


def test_a_revoked_key_is_no_key(tmp_path: Path) -> None:
    assert _known(tmp_path / "known").keys("three.example") == [B]


def test_hashed_names_as_ssh_keygen_hashes_them(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(f"one.example {A}\n[two.example]:2222 {B}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert path.read_text().startswith("|1|")
    known = KnownHosts([str(path)])
    assert (known.keys("one.example"), known.keys("[two.example]:2222")) == ([A], [B])
    assert known.keys("two.example") == []


def test_twenty_thousand_hosts_are_found_each_by_its_own_key(tmp_path: Path) -> None:
    lines = [f"host{number:05d} ssh-ed25519 KEY{number}" for number in range(20_000)]
    known = _known(tmp_path / "known", "\n".join(lines))
    assert all(known.keys(f"host{number:05d}") == [f"ssh-ed25519 KEY{number}"] for number in range(20_000))
