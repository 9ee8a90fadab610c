"""The hosts of the fleet tests: 20 sshd on loopback ports, 5 network namespaces, shared by the tests of one worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sshd


def _skip_without_sshd() -> None:
    if not sshd.sshd_path():
        pytest.skip("no sshd: `.ci/setup dev` installs openssh-server")


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Farm]:
    """20 hosts on loopback ports."""
    _skip_without_sshd()
    with sshd.loopback(tmp_path_factory.mktemp("farm"), 20) as made:
        yield made


@pytest.fixture(scope="session")
def namespace_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Farm]:
    """5 hosts in network namespaces of their own."""
    _skip_without_sshd()
    if why := sshd.why_no_namespaces():
        pytest.skip(why)
    with sshd.namespaces(tmp_path_factory.mktemp("namespaces"), 5) as made:
        yield made


@pytest.fixture
def one_host(tmp_path: Path) -> Iterator[sshd.Farm]:
    """One host of this test alone, which it may break."""
    _skip_without_sshd()
    with sshd.loopback(tmp_path / "farm", 1) as made:
        yield made
