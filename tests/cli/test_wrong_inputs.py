"""Wrong inputs: the documented exit status and code each, nothing changed on disk, no traceback.

No toolkit is simulated here: everything is refused before anything would have to run.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import entries_digest, tree_entries
from tests.cli.support import checked, may_mount, mounting, smallq
from tests.support.packages import ARCH, DAMAGES, make_run, make_vendor_tree
from tests.support.toolkits import make_new, make_old

OTHER_ARCH = "aarch64" if ARCH != "aarch64" else "x86_64"
STORE = ".smallq-deploy"


class Machine:
    """An installation root with one toolkit, without devices, and a directory for packages."""

    def __init__(self, root: Path) -> None:
        self.root = root / "Ascend"
        self.home = make_new(self.root)
        self.vendors = self.home / "opp" / "vendors"
        self.live = self.vendors / "customize"
        self.files = root / "files"
        self.files.mkdir()
        self.prefix: Sequence[str] = ()

    def package(self, name: str = "op.run", **options: str | Sequence[str]) -> Path:
        return make_run(self.files / name, **options)  # type: ignore[arg-type]

    def manifest(self, text: str) -> Path:
        path = self.files / "release.yaml"
        path.write_text(text)
        return path

    def digest(self) -> str:
        """Of everything below the installation root, but for the store's own records."""
        return entries_digest(entry for entry in tree_entries(self.root) if STORE not in entry.path)


Prepare = Callable[[Machine], Sequence[str | Path]]


@dataclass(frozen=True)
class Wrong:
    name: str
    status: int
    code: str
    prepare: Prepare
    mounts: bool = False


def damaged(damage: str) -> Prepare:
    return lambda machine: ["install", machine.package(damage=damage)]


def installed(machine: Machine, **options: str | Sequence[str]) -> None:
    """Somebody's vendor directory, listed."""
    make_vendor_tree(machine.live, **options)  # type: ignore[arg-type]
    (machine.vendors / "config.ini").write_text("load_priority=customize\n")


def foreign(machine: Machine) -> Sequence[str | Path]:
    installed(machine, ops=("SmallqFlashAttention", "VecAddSample"))
    return ["install", machine.package()]


def shadowed(machine: Machine) -> Sequence[str | Path]:
    make_vendor_tree(machine.vendors / "other", vendor="other")
    (machine.vendors / "config.ini").write_text("load_priority=other\n")
    return ["install", machine.package()]


def read_only(machine: Machine) -> Sequence[str | Path]:
    machine.prefix = mounting(
        f'mount --bind "{machine.root}" "{machine.root}"; mount -o remount,ro,bind "{machine.root}"'
    )
    return ["install", machine.package()]


def no_space(machine: Machine) -> Sequence[str | Path]:
    machine.prefix = mounting(f'mount -t tmpfs -o size=512k none "{machine.vendors}"')
    return ["install", machine.package()]


def no_permission(machine: Machine) -> Sequence[str | Path]:
    # Without the capability to override modes, root of a user namespace is an ordinary owner.
    machine.vendors.chmod(0o555)
    machine.prefix = mounting(
        'exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs "$@"'
    )
    return ["install", machine.package()]


def no_set_env(machine: Machine) -> Sequence[str | Path]:
    (machine.home / "set_env.sh").unlink()
    return ["install", machine.package()]


def two_toolkits(machine: Machine) -> Sequence[str | Path]:
    make_new(machine.root, "9.0.0")
    return ["install", machine.package()]


def old_cann(machine: Machine) -> Sequence[str | Path]:
    home = make_old(machine.files / "old")
    return ["install", machine.package(), "--cann", home.parents[1]]


def live_link(machine: Machine) -> Sequence[str | Path]:
    make_vendor_tree(machine.files / "elsewhere")
    machine.live.symlink_to(machine.files / "elsewhere")
    return ["install", machine.package()]


def vendors_link(machine: Machine) -> Sequence[str | Path]:
    machine.vendors.rmdir()
    (machine.files / "vendors").mkdir()
    machine.vendors.symlink_to(machine.files / "vendors")
    return ["install", machine.package()]


def not_ours(machine: Machine) -> Sequence[str | Path]:
    installed(machine)
    return ["uninstall"]


def damaged_store(machine: Machine) -> Sequence[str | Path]:
    (machine.vendors / STORE).mkdir()
    (machine.vendors / STORE / "state").write_text("{")
    return ["status"]


def newer_store(machine: Machine) -> Sequence[str | Path]:
    (machine.vendors / STORE).mkdir()
    (machine.vendors / STORE / "state").write_text('{"schema": 99}')
    return ["status"]


def open_journal(command: str) -> Prepare:
    def prepare(machine: Machine) -> Sequence[str | Path]:
        store = machine.vendors / STORE
        store.mkdir()
        journal = {
            "schema": 1, "txid": "0123456789ab", "action": "install", "vendor": "customize", "phase": "staging",
            "started": "2026-01-01T00:00:00Z", "owner": {"pid": 1},
        }  # fmt: skip
        (store / "journal").write_text(json.dumps(journal))
        return [command, *([machine.package()] if command == "plan" else [])]

    return prepare


def conflicting_layouts(machine: Machine) -> Sequence[str | Path]:
    installed(machine, ops=("SmallqFlashAttention", "VecAddSample"))
    make_vendor_tree(machine.live, layout="nested", content="2")
    return ["repair", "--no-smoke"]


def not_empty(machine: Machine) -> Sequence[str | Path]:
    return ["sandbox", "create", machine.root]


def not_a_sandbox(machine: Machine) -> Sequence[str | Path]:
    return ["sandbox", "destroy", machine.root]


def bad_sources(machine: Machine) -> Sequence[str | Path]:
    project = machine.files / "recipes" / "ops" / "ascendc"
    (project / "src").mkdir(parents=True)
    (project / "build.sh").write_text("exit 0\n")
    (project / "CMakeLists.txt").write_text("")
    return ["build", "--recipes", machine.files / "recipes", "--sources", machine.files]


MALFORMED = """\
name: smallq-flash-attention
version: 0.1.0
version: 0.2.0
operator: 7
colour: blue
"""

WRONG: tuple[Wrong, ...] = (
    # the package
    Wrong("corrupt", 5, "CHECKSUM", damaged("flipped_byte")),
    Wrong("false checksum", 5, "CHECKSUM", damaged("wrong_sha")),
    Wrong("truncated", 5, "TRUNCATED", damaged("truncated")),
    Wrong("appended to", 5, "TRAILING_DATA", damaged("trailing")),
    Wrong("an error page", 5, "NOT_A_RUN", damaged("html")),
    Wrong("nothing in it", 5, "NOT_A_RUN", damaged("zero_bytes")),
    Wrong("no archive", 5, DAMAGES["not_gzip"], damaged("not_gzip")),
    Wrong("empty package", 5, "EMPTY_PACKAGE", damaged("no_ops")),
    Wrong("no vendor", 5, "NO_VENDOR", damaged("no_vendor")),
    Wrong("several vendors", 5, "SEVERAL_VENDORS", damaged("several_vendors")),
    Wrong("path traversal", 5, "UNSAFE_MEMBER", damaged("traversal")),
    Wrong("link out of the tree", 5, "UNSAFE_MEMBER", damaged("link_out")),
    Wrong("kernel not as described", 5, "BAD_TREE", damaged("kernel_digest")),
    Wrong("without its functions", 5, "BAD_TREE", damaged("no_symbols")),
    Wrong("no such file", 2, "PACKAGE_NOT_FOUND", lambda machine: ["install", machine.files / "no.run"]),
    Wrong("a directory", 2, "PACKAGE_NOT_FOUND", lambda machine: ["install", machine.files]),
    Wrong("no package at all", 2, "NO_PACKAGE", lambda machine: ["install"]),
    Wrong("another operator", 5, "MISSING_OPERATOR", lambda m: ["install", m.package(ops=("VecAddSample",))]),
    # package against machine
    Wrong("wrong architecture", 4, "WRONG_ARCH", lambda m: ["install", m.package(arch=OTHER_ARCH)]),
    Wrong("wrong unit", 4, "WRONG_UNIT", lambda m: ["install", m.package(unit="ascend310p"), "--soc", "Ascend910B3"]),
    Wrong("CANN too old", 4, "CANN_VERSION", old_cann),
    Wrong("another vendor's package", 2, "VENDOR_MISMATCH", lambda m: ["install", m.package(vendor="mine")]),
    Wrong("dropped operators", 7, "FOREIGN_OPERATORS", foreign),
    Wrong("foreign vendor first", 7, "SHADOWED", shadowed),
    # the machine
    Wrong("no space", 8, "NO_SPACE", no_space, mounts=True),
    Wrong("read-only opp", 14, "READ_ONLY", read_only, mounts=True),
    Wrong("no permission", 14, "NO_PERMISSION", no_permission, mounts=True),
    Wrong("missing set_env.sh", 3, "MISSING_SET_ENV", no_set_env),
    Wrong("two toolkits", 2, "SEVERAL_TOOLKITS", two_toolkits),
    Wrong("no toolkit", 3, "NOT_A_TOOLKIT", lambda m: ["install", m.package(), "--cann", m.files / "none"]),
    Wrong("no such opp", 2, "NO_SUCH_OPP", lambda m: ["status", "--opp", m.files / "none"]),
    Wrong("live is a link", 7, "LIVE_NOT_A_DIRECTORY", live_link),
    Wrong("vendors is a link", 7, "VENDORS_IS_LINK", vendors_link),
    Wrong("store damaged", 8, "STORE_DAMAGED", damaged_store),
    Wrong("store of a newer version", 2, "STORE_NEWER", newer_store),
    Wrong("interrupted: plan", 12, "OPEN_TRANSACTION", open_journal("plan")),
    Wrong("interrupted: smoke", 12, "OPEN_TRANSACTION", open_journal("smoke")),
    Wrong("interrupted: verify", 12, "OPEN_TRANSACTION", open_journal("verify")),
    # the command line
    Wrong("no device name", 2, "BAD_DEVICE", lambda m: ["install", m.package(), "--device", "first"]),
    Wrong("no vendor name", 2, "BAD_VENDOR_NAME", lambda m: ["status", "--vendor", "a b"]),
    Wrong("malformed manifest", 5, "BAD_MANIFEST", lambda m: ["plan", m.package(), "--release", m.manifest(MALFORMED)]),
    Wrong("manifest is no YAML", 5, "BAD_MANIFEST", lambda m: ["plan", m.package(), "--release", m.manifest("a: [")]),
    Wrong("nothing to roll back", 2, "NOTHING_TO_ROLL_BACK", lambda m: ["rollback"]),
    Wrong("not ours to remove", 7, "NOT_OURS", not_ours),
    Wrong("purge unasked", 2, "CONFIRMATION_NEEDED", lambda m: ["uninstall", "--purge"]),
    Wrong("two different copies", 7, "LAYOUT_CONFLICT", conflicting_layouts),
    Wrong("nothing installed", 10, "NOT_INSTALLED", lambda m: ["verify"]),
    Wrong("nothing to call", 9, "SMOKE_NO_LIBRARY", lambda m: ["smoke"]),
    Wrong("build without a checkout", 2, "MISSING_PARAMETER", lambda m: ["build"]),
    Wrong("no checkout", 2, "NOT_A_CHECKOUT", lambda m: ["build", "--recipes", m.files]),
    Wrong("no sources", 2, "NOT_SOURCES", bad_sources),
    Wrong("sandbox over something", 2, "SANDBOX_NOT_EMPTY", not_empty),
    Wrong("no sandbox", 2, "NOT_A_SANDBOX", not_a_sandbox),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_input(tmp_path: Path, wrong: Wrong) -> None:
    if wrong.mounts and not may_mount():
        pytest.skip("this machine does not allow a mount namespace")
    machine = Machine(tmp_path)
    arguments = list(wrong.prepare(machine))
    if arguments[0] != "sandbox" and "--cann" not in arguments:
        arguments += ["--cann", machine.root]
    before = machine.digest()
    ran = smallq(*arguments, "--json", prefix=machine.prefix)
    assert (ran.status, ran.codes[:1]) == (wrong.status, [wrong.code]), ran.document["errors"]
    command = " ".join(str(part) for part in arguments[: 2 if arguments[0] == "sandbox" else 1])
    checked(ran, command)
    first = ran.document["errors"][0]
    assert first["message"] and first["hint"], first
    assert machine.digest() == before


def test_a_manifest_reports_every_problem_with_its_line(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    path = machine.manifest(MALFORMED)
    ran = smallq("plan", machine.package(), "--release", path, "--cann", machine.root, "--json")
    messages = [error["message"] for error in ran.document["errors"]]
    for line, word in ((3, "version"), (4, "operator"), (5, "colour")):
        assert any(message.startswith(f"{path}:{line}:") and word in message for message in messages), messages


def test_every_reason_is_reported_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    foreign(machine)
    package = machine.package(arch=OTHER_ARCH, unit="ascend310p")
    ran = smallq("plan", package, "--soc", "ascend910b", "--cann", machine.root, "--json")
    assert ran.status == 4
    assert {"WRONG_ARCH", "WRONG_UNIT", "FOREIGN_OPERATORS"} <= set(ran.codes)


def test_a_busy_opp_names_its_owner(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    store = machine.vendors / STORE
    store.mkdir()
    (store / "owner").write_text(json.dumps({"pid": 4711, "host": "node7", "command": "smallq-deploy install"}))
    before = machine.digest()
    with open(store / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = smallq("install", machine.package(), "--no-smoke", "--cann", machine.root, "--json")
    assert (ran.status, ran.codes) == (7, ["LOCK_BUSY"])
    assert "4711" in ran.document["errors"][0]["message"]
    assert machine.digest() == before


def test_an_unknown_device(simulated_toolkit: Path, operator_package: Path) -> None:
    vendors = simulated_toolkit / "cann-8.5.0" / "opp" / "vendors"
    before = entries_digest(tree_entries(vendors))
    ran = smallq("install", operator_package, "--device", "77", "--cann", simulated_toolkit, "--json")
    assert (ran.status, ran.codes) == (3, ["UNKNOWN_DEVICE"])
    assert "0 to 7" in ran.document["errors"][0]["message"]
    assert entries_digest(tree_entries(vendors)) == before
