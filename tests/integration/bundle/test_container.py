"""A Dockerfile's own RUN line on an overlay, as an image build does it, and a container on top of that image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import checked, smallq
from tests.integration.bundle.conftest import document, start

IMAGE = "registry.example.org/cann:8.5.0-910b"
TOOL = "/usr/local/bin/smallq-deploy"


def dockerfile(bundle: Path, *arguments: str | Path) -> list[str]:
    ran = smallq("bundle", "dockerfile", bundle, "--from", IMAGE, *arguments, "--json")
    text = checked(ran, "bundle dockerfile")["dockerfile"]
    assert smallq("bundle", "dockerfile", bundle, "--from", IMAGE, *arguments).stdout == text
    return [line for line in text.replace("\\\n", "").splitlines() if not line.startswith("#")]


def test_what_it_says(bundle_file: Path) -> None:
    lines = dockerfile(bundle_file)
    assert lines[:2] == [f"FROM {IMAGE}", f"COPY {bundle_file.name} {TOOL}"]
    assert lines[2].startswith("RUN ")
    assert "install --no-smoke --yes --soc ascend910b" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "BAD_IMAGE"),
        (("--from", "a image\nRUN evil"), "BAD_IMAGE"),
        (("--from", IMAGE, "--soc", "x; rm -rf /"), "BAD_VALUE"),
        (("--from", IMAGE, "--cann", "/a b"), "BAD_VALUE"),
    ],
)
def test_only_plain_words_get_into_it(bundle_file: Path, words: tuple[str, ...], code: str) -> None:
    ran = smallq("bundle", "dockerfile", bundle_file, *words, "--json")
    assert (ran.status, ran.codes) == (2, [code])


def mounting(script: str) -> list[str]:
    """A prefix that runs ``script`` in a mount namespace of its own: with root's rights where this is root."""
    return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "bash", "-ec", script + 'exec "$@"', "-"]


def overlay(lower: str | Path, place: Path, target: Path) -> str:
    """A shell line that mounts ``lower`` with a writable layer (``place``/upper) on ``target``."""
    for name in ("upper", "work"):
        (place / name).mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work"
    return f"mount -t overlay overlay -o {layers} {target}; "


def test_image_build_and_container(
    bundle_file: Path, operator_package: Path, fresh_toolkit: Callable[..., Path], tmp_path: Path
) -> None:
    base = fresh_toolkit(devices=0)
    # The image has an operator already: its directory is in a lower layer and cannot be renamed (EXDEV).
    older = base / "cann-8.5.0" / "opp" / "vendors" / "customize"
    (older / "op_api" / "lib").mkdir(parents=True)
    (older / "version.info").write_text("custom_opp_compiler_version=8.5.0\n")
    build = tmp_path / "build"
    mounts = overlay(base, build, base)  # at its own place: links in a toolkit are absolute
    probe = subprocess.run([*mounting(mounts), "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"NO OVERLAY TEST: overlayfs cannot be mounted here ({probe.stderr.strip()})")
    tool = Path(shutil.copyfile(bundle_file, tmp_path / "smallq-deploy"))
    home = tmp_path / "home"
    home.mkdir()

    line = dockerfile(bundle_file, "--cann", base)[2].removeprefix("RUN ")
    line = line.replace(TOOL, str(tool)).replace("python3 ", f"{os.path.realpath(sys.executable)} -S ")
    line = line.replace("/tmp/smallq-cache", str(tmp_path / "cache"))
    built = subprocess.run(
        [*mounting(mounts), "/bin/sh", "-c", line],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert built.returncode == 0, built.stderr
    assert not (tmp_path / "cache").exists()  # nothing but the operator and the tool gets into the image
    vendors = build / "upper" / "cann-8.5.0" / "opp" / "vendors"
    history = [json.loads(text) for text in (vendors / ".smallq-deploy" / "history").read_text().splitlines()]
    assert [(item["action"], item["result"], item["method"]) for item in history] == [("install", "ok", "copy")]

    # A container: the image's layers below, a layer of its own above.
    container = tmp_path / "container"
    mounts = overlay(f"{build}/upper:{base}", container, base)

    def run(*arguments: str | Path) -> dict[str, object]:
        done = start(tool, *arguments, "--cann", base, "--json", home=home, prefix=mounting(mounts))
        assert done.returncode == 0, done.stdout + done.stderr
        return document(done)

    status = run("status")
    assert status["data"]["current"]["proven"] is False  # type: ignore[index]
    assert status["data"]["current"]["flags"] == {"no_smoke": True}  # type: ignore[index]
    assert any("unproven" in warning for warning in status["warnings"])  # type: ignore[attr-defined]
    text = start(tool, "status", "--cann", base, home=home, prefix=mounting(mounts)).stdout
    assert "unproven" in text
    assert run("verify")["status"] == "ok"
    back = run("rollback", "--no-smoke")["data"]
    assert back["change"]["method"] == "copy"  # type: ignore[index]
    live = container / "upper" / "cann-8.5.0" / "opp" / "vendors" / "customize"
    assert (live / "version.info").is_file()
    assert not (live / "op_impl").exists()
