"""An opp on a shared file system, as a user sees it. NFS is made up: a library loaded first answers statfs(2) so."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Ran, smallq

ELSEWHERE = {"pid": 77, "host": "npu002", "boot": "another", "command": "install", "since": "2026-11-24T08:00:00Z"}
ANSWER = """
#include <string.h>
int statfs(const char *path, void *answer) {
    (void)path;
    memset(answer, 0, 120);
    *(long *)answer = 0x6969;
    return 0;
}
"""


@pytest.fixture
def nfs(fresh_toolkit: Callable[..., Path], tmp_path: Path) -> Callable[..., Ran]:
    """Runs the command on a toolkit of the test's own that lies on NFS."""
    (tmp_path / "answer.c").write_text(ANSWER)
    library = tmp_path / "answer.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "answer.c"], check=True)
    root = fresh_toolkit()

    def run(*words: str | os.PathLike[str]) -> Ran:
        return smallq(*words, "--cann", root, "--json", env={"LD_PRELOAD": str(library)})

    return run


def test_the_lock_of_another_host(nfs: Callable[..., Ran], operator_package: Path) -> None:
    seen = nfs("plan", operator_package)
    assert seen.status == 0
    assert any("shared file system (NFS)" in text for text in seen.document["warnings"])
    installed = nfs("install", operator_package)
    assert installed.status == 0, installed.stdout
    data = nfs("status").document["data"]
    assert data["shared_file_system"] == "NFS"
    owner = Path(data["live_path"]).parent / ".smallq-deploy" / "owner"
    assert not owner.exists()

    owner.write_text(json.dumps(ELSEWHERE))
    refused = nfs("uninstall", "--yes")
    assert (refused.status, refused.codes) == (7, ["LOCK_OTHER_HOST"])
    assert "npu002" in refused.document["errors"][0]["message"]
    assert nfs("verify").status == 0  # readers need no lock
    wrong = nfs("recover", "--break-lock", "npu003", "--yes")
    assert (wrong.status, wrong.codes) == (2, ["NO_SUCH_LOCK"])
    asked = nfs("recover", "--break-lock", "npu002")
    assert (asked.status, asked.codes) == (2, ["CONFIRMATION_NEEDED"])
    assert nfs("recover", "--break-lock", "npu002", "--dry-run").document["data"]["broken"] == ELSEWHERE
    assert owner.exists()
    assert nfs("recover", "--break-lock", "npu002", "--yes").document["data"]["broken"] == ELSEWHERE
    assert nfs("uninstall", "--yes").status == 0
