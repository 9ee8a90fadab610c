"""What the fault tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.opp import nobody_else


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory that every user can enter, in memory where there is some: the tests make thousands of fsyncs."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smallq-fault-", dir=place) as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def alone() -> Iterator[None]:
    """See nobody_else."""
    with nobody_else():
        yield
