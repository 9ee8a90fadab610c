"""Each check of doctor on a machine that has the defect and on one that has not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from smallq_deploy.base.versions import CannSpecifier, CannVersion
from smallq_deploy.machine.devices import Devices, Npu
from smallq_deploy.operate.doctor import Check, Context, Finding, checks, diagnose
from smallq_deploy.package.vendortree import API_LIBRARY, TBE
from smallq_deploy.store.journal import Journal, write_journal
from tests.support.packages import ARCH, OPERATOR, UNIT, make_vendor_tree
from tests.support.toolkits import make_new, write
from tests.unit.doctor.conftest import CONTENT, Machine

Break = Callable[[Machine], None]


def test_a_sound_machine_passes_every_check(machine: Machine) -> None:
    found = diagnose(machine.context())
    assert [(item.check.name, item.finding) for item in found.results if item.status != "pass"] == []
    assert found.failure is None
    assert found.resolution is not None
    live = machine.live
    assert found.resolution.sentence() == (
        f"for operator {OPERATOR}, a process with this environment loads tiling from {live}, kernels from {live}, "
        f"symbols from {live}"
    )


def test_an_empty_machine_has_one_failure(tmp_path: Path, machine: Machine) -> None:
    machine.root = tmp_path / "empty"
    machine.environ = {}
    machine.root.mkdir()
    found = diagnose(machine.context())
    assert {item.check.name for item in found.results if item.status == "fail"} == {"toolkit"}
    assert {item.status for item in found.results} <= {"fail", "skip", "pass"}
    assert found.failure is not None and found.failure.exit_status == 10


def test_nothing_installed_is_no_defect(tmp_path: Path) -> None:
    from tests.unit.doctor.conftest import make_machine

    found = diagnose(make_machine(tmp_path).context())
    assert {item.status for item in found.results} == {"pass", "skip"}


def disagree(machine: Machine) -> None:
    write(machine.home / "share/info/runtime/version.info", "Version=8.5.1\n")


def moved(machine: Machine) -> None:
    (machine.home / "set_env.sh").write_text("export ASCEND_OPP_PATH=/usr/local/Ascend/cann-8.5.0/opp\n")
    machine.environ = {}


def other_host(machine: Machine) -> None:
    machine.changes["host_arch"] = "riscv64"


def too_old(machine: Machine) -> None:
    machine.release = replace(machine.release, cann=CannSpecifier.parse(">=9.0.0"))


def trap(machine: Machine) -> None:
    place = machine.root / "my.opp"
    shutil.copytree(machine.live, place, symlinks=True)
    machine.environ = machine.shell(ASCEND_CUSTOM_OPP_PATH=str(place))


def old_driver(machine: Machine) -> None:
    write(machine.ascend / "driver/version.info", "Version=24.1.rc1\n")


def half_driver(machine: Machine) -> None:
    write(machine.root / "etc/ascend_install.info", "Driver_Install_Status=failed\n")


def health(state: str) -> Break:
    def change(machine: Machine) -> None:
        npus = (Npu(0, "Ascend910B3", "OK", "0000:01:00.0", 0, UNIT), Npu(1, "Ascend910B3", state, "0000:02:00.0", 1))
        machine.changes["devices"] = Devices(npus, "25.5.0")

    return change


def no_svm(machine: Machine) -> None:
    (machine.root / "dev/devmm_svm").unlink()


def stub_library(machine: Machine) -> None:
    stub = write(machine.home / "devlib/libascend_hal.so", "").parent
    shell = machine.shell()
    machine.environ = {**shell, "LD_LIBRARY_PATH": f"{stub}:{shell['LD_LIBRARY_PATH']}"}


def no_driver_library(machine: Machine) -> None:
    (machine.ascend / "driver/lib64/driver/libascend_hal.so").unlink()


def no_kernels(machine: Machine) -> None:
    (machine.home / f"{ARCH}-linux/ascend_ops_install.info").unlink()


def no_compiler(machine: Machine) -> None:
    (machine.home / "bin/bisheng").unlink()


def bare_shell(machine: Machine) -> None:
    machine.environ = {"PATH": os.environ["PATH"]}


def gone_home(machine: Machine) -> None:
    machine.environ = machine.shell(ASCEND_HOME_PATH=str(machine.root / "gone"))


def other_opp(machine: Machine) -> None:
    home = make_new(machine.root / "opt", "8.5.1")
    machine.environ = machine.shell(ASCEND_OPP_PATH=str(home / "opp"))


def custom(entry: Callable[[Machine], Path]) -> Break:
    def change(machine: Machine) -> None:
        machine.environ = machine.shell(ASCEND_CUSTOM_OPP_PATH=str(entry(machine)))

    return change


def stale_copy(machine: Machine) -> Path:
    return make_vendor_tree(machine.root / "old/vendors/customize", content="old" + CONTENT)


def dead_library_path(machine: Machine) -> None:
    machine.environ = machine.shell(LD_LIBRARY_PATH=str(machine.root / "old/op_api/lib"))


def foreign_library_path(machine: Machine) -> None:
    machine.environ = machine.shell(LD_LIBRARY_PATH=str((stale_copy(machine) / API_LIBRARY).parent))


def config(text: str | None) -> Break:
    def change(machine: Machine) -> None:
        if text is None:
            machine.store.config_ini.unlink()
        else:
            machine.store.config_ini.write_text(text)

    return change


def nested_other(machine: Machine) -> None:
    make_vendor_tree(machine.store.vendors / "other", layout="nested", vendor="other", ops=("VecAddSample",))


def other_first(machine: Machine) -> None:
    make_vendor_tree(machine.store.vendors / "other", vendor="other", content="other" + CONTENT)
    config("load_priority=other,customize\n")(machine)


def other_last(machine: Machine) -> None:
    make_vendor_tree(machine.store.vendors / "other", vendor="other", content="other" + CONTENT)
    config("load_priority=customize,other\n")(machine)


def no_tiling(machine: Machine) -> None:
    for path in (machine.live / TBE / "op_tiling/lib").rglob("*.so"):
        path.unlink()


def live_is_link(machine: Machine) -> None:
    machine.live.rename(machine.root / "moved")
    machine.live.symlink_to(machine.root / "moved")


def shared(machine: Machine) -> None:
    point = f"/{machine.ascend.relative_to(machine.root)}"
    write(machine.root / "proc/self/mountinfo", f"36 1 0:50 / {point} rw - nfs4 filer:/soft rw\n")


def two_variables(machine: Machine) -> None:
    home = make_new(machine.root / "opt", "8.5.1")
    machine.named = {"ASCEND_HOME_PATH": str(machine.home), "ASCEND_TOOLKIT_HOME": str(home)}


def closed_vendors(machine: Machine) -> None:
    machine.store.vendors.chmod(0o750)


def no_kernel_file(machine: Machine) -> None:
    next((machine.live / TBE / "kernel").rglob("*.o")).unlink()


def edited(machine: Machine) -> None:
    with open(machine.live / "version.info", "a") as stream:
        stream.write("edited\n")


def unproven(machine: Machine) -> None:
    machine.install("2", no_smoke=True)


def by_hand(machine: Machine) -> None:
    shutil.rmtree(machine.store.root)


def switched(machine: Machine) -> None:
    toolkit = machine.environment().toolkit
    assert toolkit is not None
    machine.changes["toolkit"] = replace(toolkit, version=CannVersion.parse("8.5.1"))


def abi_range(machine: Machine) -> None:
    write(machine.home / "runtime/version.info", 'Version=7.7.0.1\nrequired_opp_abi_version=">=6.3, <=7.7"\n')


def no_needed_library(machine: Machine) -> None:
    (machine.home / "lib64/libnnopbase.so").unlink()


def no_link(machine: Machine) -> None:
    (machine.live / TBE / "op_tiling/liboptiling.so").unlink()


def dangling_link(machine: Machine) -> None:
    link = machine.live / TBE / "op_tiling/liboptiling.so"
    link.unlink()
    link.symlink_to("lib/linux/riscv64/libcust_opmaster_rt2.0.so")


def damaged_state(machine: Machine) -> None:
    machine.store.state.write_text("{")


def damaged_journal(machine: Machine) -> None:
    machine.store.journal.write_text("{")


def interrupted(machine: Machine) -> None:
    left = Journal("0123456789ab", "install", "customize", "staging", "2026-01-01T00:00:00Z", {"pid": 1})
    write_journal(machine.store, left)


def leftovers(machine: Machine) -> None:
    (machine.store.root / "staging/0123456789ab").mkdir(parents=True)


def no_package(machine: Machine) -> None:
    machine.store.package_file(1).unlink()


def left_behind(machine: Machine) -> None:
    old = make_new(machine.ascend, "8.4.0", active=False)
    make_vendor_tree(old / "opp/vendors/other", vendor="other", ops=("VecAddSample",))


@pytest.mark.parametrize(
    ("name", "change", "status", "says", "mend"),
    [
        ("toolkit", two_variables, "warn", "ASCEND_HOME_PATH counts", "set_env.sh"),
        ("toolkit-files", disagree, "warn", "8.5.1", "install CANN 8.5.0 again at"),
        ("set-env", moved, "fail", "not ", "--cann"),
        ("host-architecture", other_host, "warn", "this host is riscv64", "--no-smoke"),
        ("compatibility", too_old, "warn", ">=9.0.0", "--allow-untested"),
        ("path-names", trap, "fail", "my.opp", "move it"),
        ("driver", old_driver, "warn", "older than 25.5.0", "--upgrade"),
        ("driver", half_driver, "fail", "'failed'", "--upgrade"),
        ("devices", health("Critical"), "fail", "NPU 1 at 0000:02:00.0: Critical", "npu-smi info -t health -i 1"),
        ("devices", health("Warning"), "warn", "1 of 2 devices", "npu-smi"),
        ("device-files", no_svm, "fail", "devmm_svm", "--device /dev/devmm_svm"),
        ("driver-library", stub_library, "fail", "the stub", "export LD_LIBRARY_PATH="),
        ("driver-library", no_driver_library, "fail", "no directory", "export LD_LIBRARY_PATH="),
        ("built-in-kernels", no_kernels, "warn", "no kernels package", "install the ops package"),
        ("build-tools", no_compiler, "warn", "bisheng", "full toolkit"),
        ("environment", bare_shell, "warn", "561107", "set_env.sh"),
        ("environment", gone_home, "fail", "does not exist", "set_env.sh"),
        ("environment", other_opp, "fail", "is the toolkit that was chosen", "--cann"),
        (
            "custom-opp-path",
            custom(lambda m: m.root / "gone"),
            "warn",
            "does not exist",
            "unset ASCEND_CUSTOM_OPP_PATH",
        ),
        ("custom-opp-path", custom(lambda m: m.store.opp), "fail", "no vendor directory", "unset"),
        ("custom-opp-path", custom(stale_copy), "fail", f"another {OPERATOR}", "unset"),
        ("library-path", dead_library_path, "warn", "does not exist", "unset LD_LIBRARY_PATH"),
        ("library-path", foreign_library_path, "warn", "not to the one in", "export LD_LIBRARY_PATH="),
        ("config-ini", config(None), "fail", "does not exist", "smallq-deploy repair"),
        ("config-ini", config("# ours\nload_priority=customize\n"), "warn", "first line", "smallq-deploy repair"),
        ("config-ini", config("load_priority=customize,gone\n"), "warn", "gone", "take gone out"),
        ("config-ini", other_first, "fail", "comes first", "--priority first"),
        ("other-vendors", nested_other, "warn", "nested", "smallq-deploy repair --vendor other"),
        ("resolution", custom(stale_copy), "fail", "two builds are mixed", "unset ASCEND_CUSTOM_OPP_PATH"),
        ("resolution", other_first, "fail", "tiling from", "--priority first"),
        ("resolution", no_tiling, "fail", "tiling from nowhere", "--reinstall"),
        ("resolution", config(None), "fail", "kernels from nowhere", "smallq-deploy repair"),
        ("duplicates", other_last, "warn", OPERATOR, "config.ini"),
        ("place", live_is_link, "fail", "is a link to", "real directory"),
        ("place", shared, "warn", "nfs4 filer:/soft", "on one node"),
        ("readable", closed_vendors, "warn", "closed to other users", "chmod o+rx"),
        ("files", no_kernel_file, "fail", "MISSING_KERNEL", "package"),
        ("unchanged", edited, "fail", "1 of", "--reinstall"),
        ("proven", unproven, "warn", "unproven", "smallq-deploy smoke"),
        ("proven", by_hand, "warn", "not installed by smallq-deploy", "smallq-deploy smoke"),
        ("built-for", switched, "warn", "CANN 8.5.0", "smallq-deploy migrate"),
        ("built-for", abi_range, "warn", "graph mode ignores it", "smallq-deploy build"),
        ("libraries", no_needed_library, "warn", "libnnopbase.so", "set_env.sh"),
        ("tiling-library", no_link, "warn", "missing", "--reinstall"),
        ("tiling-library", dangling_link, "warn", "riscv64", "--reinstall"),
        ("store", damaged_journal, "fail", "damaged", ""),
        ("store", interrupted, "fail", "interrupted in phase 'staging'", "smallq-deploy recover"),
        ("store", leftovers, "warn", "leftovers", "smallq-deploy recover"),
        ("store", no_package, "warn", "generation 1 is gone", "--reinstall"),
        ("left-behind", left_behind, "warn", "VecAddSample", "smallq-deploy migrate"),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else None,
)
def test_a_defect_is_found(machine: Machine, name: str, change: Break, status: str, says: str, mend: str) -> None:
    assert machine.look(name).status == "pass"
    change(machine)
    found = machine.look(name)
    assert found.status == status, found
    assert says in " ".join((found.message, *found.evidence)), found
    assert mend in " ".join(found.mend), found


def test_every_check_has_a_defect_above() -> None:
    (mark,) = test_a_defect_is_found.pytestmark  # type: ignore[attr-defined]
    tested = {case[0] for case in mark.args[1]}
    # writable, space: tests/cli/doctor; processes: below.
    assert {item.name for item in checks()} - tested == {"writable", "space", "processes"}


def test_all_problems_are_shown_at_once(machine: Machine) -> None:
    for change in (old_driver, no_svm, edited, config(None), no_link):
        change(machine)
    found = diagnose(machine.context())
    bad = {item.check.name for item in found.results if item.status in ("fail", "warn")}
    assert bad >= {"driver", "device-files", "unchanged", "config-ini", "tiling-library", "resolution"}
    assert found.failure is not None
    assert set(found.failure.details["failed"]) >= {"device-files", "unchanged", "config-ini"}
    for item in found.results:
        if item.status in ("fail", "warn"):
            record = item.to_dict()
            assert record["why"] and record["mend"], record


def test_a_check_that_cannot_be_made_says_why_and_stops_nothing(machine: Machine) -> None:
    def broken(context: Context) -> Finding:
        raise RuntimeError("out of cheese")

    last = machine.check("tiling-library")
    results = diagnose(machine.context(), [Check("broken", "machine", "", broken), last]).results
    assert [item.status for item in results] == ["unknown", "pass"]
    assert results[0].finding.message == "could not be checked: RuntimeError: out of cheese"
    damaged_state(machine)
    found = machine.look("proven")
    assert found.status == "unknown" and "STORE_DAMAGED" in found.evidence


def test_a_script_that_fails_leaves_the_other_questions_answered(machine: Machine) -> None:
    moved(machine)
    found = diagnose(machine.context())
    assert [item.check.name for item in found.results if item.status in ("fail", "unknown")] == ["set-env"]
    assert found.resolution is not None and found.resolution.tiling == machine.live


def test_mending_names_the_toolkit_that_was_looked_at(machine: Machine) -> None:
    edited(machine)
    context = replace(machine.context(), options="--cann /opt/cann")
    (result,) = diagnose(context, [machine.check("unchanged")]).results
    assert "smallq-deploy install --cann /opt/cann --reinstall" in result.finding.mend


@pytest.mark.parametrize("root", ["earlier", "present"])
def test_processes_that_use_an_earlier_install(machine: Machine, root: str) -> None:
    code = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    code += "; print('ready', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, str(machine.live / API_LIBRARY)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        if root == "earlier":
            machine.install("2")
        found = machine.look("processes")
        assert (f"(pid {child.pid}, " in found.message) is (root == "earlier"), found
        assert found.status == ("warn" if root == "earlier" else "pass")
        child.communicate("")


def test_a_root_of_ones_own_needs_the_variable(machine: Machine, tmp_path: Path) -> None:
    """Installed without root: programs find it through ASCEND_CUSTOM_OPP_PATH, and by nothing else."""
    own = tmp_path / "own"
    live = make_vendor_tree(own / "vendors/customize", content=CONTENT)
    (own / "vendors/config.ini").write_text("load_priority=customize\n")
    shutil.rmtree(machine.live)
    machine.store.config_ini.unlink()
    machine.opp = own
    machine.environ = machine.shell()
    del machine.environ["ASCEND_CUSTOM_OPP_PATH"]
    found = machine.look("custom-opp-path")
    assert found.status == "warn" and str(live) in found.message
    assert found.mend == (f'eval "$(smallq-deploy env --opp {own})"',)
    assert machine.look("resolution").status == "fail"
    machine.environ["ASCEND_CUSTOM_OPP_PATH"] = str(live)
    for name in ("custom-opp-path", "environment", "toolkit", "resolution", "left-behind"):
        assert machine.look(name).status == "pass", machine.look(name)
