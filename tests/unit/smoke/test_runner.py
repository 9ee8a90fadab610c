"""Every way in which the test process can end, and what the report then says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ExitStatus, NoToolkitError, SmokeError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.package.releases import Release
from smallq_deploy.smoke.report import SmokeReport
from smallq_deploy.smoke.resolve import OPAPI, config_vendors
from smallq_deploy.smoke.runner import child_environment, parse_device, run_smoke
from tests.support.toolkits import write

from .conftest import install

Smoke = Callable[..., SmokeReport]


def test_pass(smoke: Smoke, live: Path, release: Release) -> None:
    report = smoke("answer()")
    assert (report.verdict, report.reason, report.code) == ("pass", "", None)
    assert report.device == 0
    assert len(report.devices) == 1
    assert [case.name for case in report.cases] == [case.name for case in release.smoke_cases]
    assert report.library == str(live / OPAPI)
    assert report.library_inode == (live / OPAPI).stat().st_ino
    assert report.remark == "made-up toolkit"
    assert report.error() is None
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "pass"


def test_request_of_the_child(smoke: Smoke, live: Path, tmp_path: Path) -> None:
    smoke(
        f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps([request, dict(os.environ), os.getcwd()]))\nanswer()"
    )
    request, env, cwd = json.loads((tmp_path / "seen").read_text())
    assert request["library"] == str(live / OPAPI)
    assert request["operator"] == "SmallqFlashAttention"
    assert request["tolerance"] == {"abs": 0.001, "rel": 0.001, "rel_l2": 0.0005}
    assert {"num_heads", "q_len", "kv_len", "head_dim", "v_head_dim", "seed", "distribution"} < set(request["cases"][0])
    assert any(case["head_dim"] == 100 for case in request["cases"])
    assert any(case["kv_len"] == 1023 for case in request["cases"])
    assert "ASCEND_CUSTOM_OPP_PATH" not in env
    assert env["ASCEND_OPP_PATH"].endswith("/opp")
    assert not Path(cwd).exists()


def test_wrong_numbers(smoke: Smoke) -> None:
    report = smoke("answer(cases=[case(n, n != names[1], 'far off') for n in names])")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_WRONG_NUMBERS")
    assert "far off" in report.message
    assert report.message.startswith("wrong numbers in 1 of 7 cases (decode)")
    error = report.error()
    assert isinstance(error, SmokeError)
    assert error.exit_status == ExitStatus.SMOKE_FAILED
    assert error.code == "SMOKE_WRONG_NUMBERS"


@pytest.mark.parametrize(
    ("number", "verdict", "reason", "word"),
    [
        (561003, "fail", "SMOKE_ACLNN_ERROR", "FIND_KERNEL_ERROR"),
        (561113, "fail", "SMOKE_ACLNN_ERROR", "OP_FILE_INVALID"),
        (161002, "fail", "SMOKE_ACLNN_ERROR", "ACLNN_PARAM_INVALID"),
        (507035, "fail", "SMOKE_ACLNN_ERROR", "VECTOR_CORE_EXCEPTION"),
        (507046, "fail", "SMOKE_ACLNN_ERROR", "STREAM_SYNC_TIMEOUT"),
        (507033, "inconclusive", "SMOKE_INCONCLUSIVE", "DEV_SETUP_ERROR"),
        (207018, "inconclusive", "SMOKE_INCONCLUSIVE", "DEVICE_OOM"),
        (207006, "inconclusive", "SMOKE_INCONCLUSIVE", "NO_PERMISSION"),
        (561999, "fail", "SMOKE_ACLNN_ERROR", "ACLNN_INNER_561999"),
        (507777, "inconclusive", "SMOKE_INCONCLUSIVE", "INTERNAL_507777"),
        (42, "fail", "SMOKE_ACLNN_ERROR", "STATUS_42"),
    ],
)
def test_acl_status(smoke: Smoke, number: int, verdict: str, reason: str, word: str) -> None:
    said = f"function='aclThing', number={number}, text='EZ9999: because', at=dict(case='decode')"
    report = smoke(f"answer('acl_error', cases=[], {said})", device=2)
    assert (report.verdict, report.reason, report.code, report.code_name) == (verdict, reason, number, word)
    assert f"aclThing returned {number} {word} (case decode)" in report.message
    assert "EZ9999: because" in report.message
    assert report.hint


def test_status_about_files_names_the_cause(smoke: Smoke) -> None:
    report = smoke("answer('acl_error', cases=[], function='f', number=561003, text='')", device=0)
    assert ". Cause: " in report.message
    assert "ops-info.json" in report.message


@pytest.mark.parametrize(
    "body",
    [
        "",  # ends with 0 and says nothing
        "open(sys.argv[3], 'w').write('{')",
        "open(sys.argv[3], 'w').write('[]')",
        "open(sys.argv[3], 'wb').write(bytes(range(256)))",
        "open(sys.argv[3], 'w').write('{}')",
        "answer(cases=[])",
        "answer(cases=[case('invented')])",
        "answer(cases=[case(n) for n in names][:2])",
        "answer(cases=[case(n, 'yes') for n in names])",
        "answer(cases=[{**case(n), 'bound': None} for n in names])",
        "answer('splendid')",
        "answer(mapped=7)",
        "answer('acl_error')",
    ],
)
def test_garbage_is_never_a_pass(smoke: Smoke, body: str) -> None:
    report = smoke(body, device=0)
    assert (report.verdict, report.reason) == ("fail", "SMOKE_GARBAGE")
    assert report.message


@pytest.mark.parametrize("phase", ["load", "case", "close"])
def test_crash_in_the_operator(smoke: Smoke, phase: str) -> None:
    report = smoke(f"progress({phase!r}, case='decode')\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_CRASHED")
    assert "SIGSEGV" in report.message


@pytest.mark.parametrize("phase", ["init", "device"])
def test_crash_before_the_operator_proves_nothing(smoke: Smoke, phase: str) -> None:
    report = smoke(f"progress({phase!r})\nos.abort()", device=0)
    assert (report.verdict, report.reason) == ("inconclusive", "SMOKE_INCONCLUSIVE")
    assert "SIGABRT" in report.message


def test_exit_status_of_a_runtime_that_gives_up(smoke: Smoke) -> None:
    report = smoke("progress('case', case='decode')\nprint('the runtime says goodbye', flush=True)\nos._exit(3)")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_CRASHED")
    assert "exit status 3" in report.message
    assert "goodbye" in report.output


def test_crash_after_the_answer_is_a_crash(smoke: Smoke) -> None:
    report = smoke("progress('close')\nanswer()\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_CRASHED")


def test_hang_in_the_kernel(smoke: Smoke) -> None:
    start = time.monotonic()
    report = smoke("progress('case', case='decode')\ntime.sleep(60)", timeout=1.0)
    assert time.monotonic() - start < 15
    assert (report.verdict, report.reason) == ("fail", "SMOKE_HUNG")
    assert "case decode" in report.message


def test_hang_while_opening_the_device(smoke: Smoke) -> None:
    body = "progress('device', device=0, device_count=1)\ntime.sleep(60)"
    report = smoke(body, timeout=1.0)
    assert (report.verdict, report.reason) == ("inconclusive", "SMOKE_INCONCLUSIVE")
    assert "hung while opening device 0" in report.message


def test_answer_of_a_process_that_hangs_afterwards_does_not_count(smoke: Smoke) -> None:
    report = smoke("progress('close')\nanswer()\ntime.sleep(60)", timeout=1.0)
    assert (report.verdict, report.reason) == ("fail", "SMOKE_HUNG")


@pytest.mark.parametrize(
    ("text", "operator", "verdict", "reason"),
    [
        ("undefined symbol: NnopbaseNew", True, "fail", "SMOKE_NO_LIBRARY"),
        ("invalid ELF header", True, "fail", "SMOKE_NO_LIBRARY"),
        ("libascend_hal.so: cannot open shared object file", False, "inconclusive", "SMOKE_INCONCLUSIVE"),
    ],
)
def test_library_that_cannot_be_loaded(smoke: Smoke, text: str, operator: bool, verdict: str, reason: str) -> None:
    body = f"answer('library_error', cases=[], library='/x/lib.so', text={text!r}, operator={operator})"
    report = smoke(body, device=0)
    assert (report.verdict, report.reason) == (verdict, reason)
    assert text in report.message


def test_missing_symbol(smoke: Smoke) -> None:
    report = smoke("answer('missing_symbol', cases=[], library='/x/lib.so', symbol='aclnnX')")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_NO_SYMBOL")
    assert "aclnnX" in report.message


def test_overrun(smoke: Smoke) -> None:
    report = smoke("answer('overrun', cases=[], text='wrote beyond', at=dict(case='decode'))")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_OVERRUN")


def test_library_outside_the_live_tree(smoke: Smoke, tmp_path: Path) -> None:
    other = write(tmp_path / "elsewhere" / "libcust_opapi.so", "x")
    report = smoke(f"answer(mapped_file={str(other)!r})")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_OUTSIDE_LIVE_TREE")
    assert str(other) in report.message
    assert report.library == str(other)


def test_library_replaced_during_the_test(smoke: Smoke, live: Path) -> None:
    report = smoke("answer(mapped_file=request['library'] + ' (deleted)')")
    assert (report.verdict, report.reason) == ("fail", "SMOKE_OUTSIDE_LIVE_TREE")
    assert "replaced" in report.message


def test_auto_asks_other_devices_while_inconclusive(smoke: Smoke) -> None:
    sick = "answer('acl_error', cases=[], function='aclrtSetDevice', number=507033, text='')"
    report = smoke(f"if device < 2: {sick}\nelse: answer()")
    assert report.verdict == "pass"
    assert report.device == 2
    assert [item.outcome.verdict for item in report.devices] == ["inconclusive", "inconclusive", "pass"]
    assert "inconclusive on 0, 1" in report.message


def test_auto_stops_at_the_first_fail(smoke: Smoke) -> None:
    report = smoke("answer(cases=[case(n, False, 'off') for n in names])")
    assert [item.device for item in report.devices] == [0]


def test_auto_without_a_good_device(smoke: Smoke) -> None:
    report = smoke("answer('acl_error', cases=[], function='aclrtSetDevice', number=507033, text='')")
    assert report.verdict == "inconclusive"
    assert len(report.devices) == 4
    assert "4 of 4 devices gave no pass" in report.message


def test_all_needs_every_device(smoke: Smoke) -> None:
    assert smoke("answer()", device="all").verdict == "pass"
    report = smoke("answer(cases=[case(n, device != 3, 'off') for n in names])", device="all")
    assert (report.verdict, report.device) == ("fail", 3)
    assert [item.device for item in report.devices] == [0, 1, 2, 3]


def test_unknown_device(smoke: Smoke) -> None:
    report = smoke("answer('no_device', cases=[])", device=9)
    assert report.verdict == "inconclusive"
    assert "there is no device 9" in report.message
    assert "0 to 3" in report.message
    error = report.error(9)
    assert isinstance(error, NoToolkitError)
    assert error.code == "UNKNOWN_DEVICE"


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "", "٣"])
def test_bad_device(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_device(text)
    assert caught.value.code == "BAD_DEVICE"


def test_good_device() -> None:
    assert [parse_device(text) for text in ("auto", "all", "0", "15")] == ["auto", "all", 0, 15]


NEVER = "raise SystemExit('must not be started')"


def check_no_library(report: SmokeReport, *words: str) -> None:
    assert (report.verdict, report.reason) == ("fail", "SMOKE_NO_LIBRARY")
    assert report.devices == ()
    assert report.device is None
    for word in words:
        assert word in report.message


def test_not_installed(smoke: Smoke, live: Path) -> None:
    shutil.rmtree(live)
    check_no_library(smoke(NEVER), "not installed", str(live))


def test_nested_layout(smoke: Smoke, live: Path) -> None:
    shutil.rmtree(live)
    install(live / "vendors", "customize")
    check_no_library(smoke(NEVER), "nested", str(live / "vendors/customize"))


def test_no_config_ini(smoke: Smoke, live: Path) -> None:
    (live.parent / "config.ini").unlink()
    check_no_library(smoke(NEVER), "config.ini is missing")


@pytest.mark.parametrize(
    "line", ["load_priority=other", "load_priority= customize", "load_priority=", "# load_priority=customize"]
)
def test_config_ini_that_does_not_name_it(smoke: Smoke, live: Path, line: str) -> None:
    (live.parent / "config.ini").write_text(line + "\n")
    check_no_library(smoke(NEVER), "does not name customize")


def test_library_of_other_operators(smoke: Smoke, live: Path) -> None:
    (live / OPAPI).write_text("\0aclnnOther\0")
    report = smoke(NEVER)
    assert (report.verdict, report.reason) == ("fail", "SMOKE_NO_SYMBOL")
    assert "aclnnSmallqFlashAttentionGetWorkspaceSize" in report.message


def test_another_vendor_comes_first(smoke: Smoke, live: Path) -> None:
    other = install(live.parent, "other")
    (live.parent / "config.ini").write_text("load_priority=other,customize\n")
    report = smoke(NEVER)
    assert (report.verdict, report.reason) == ("fail", "SMOKE_OUTSIDE_LIVE_TREE")
    assert str(other / OPAPI) in report.message
    assert "other first" in report.message


def test_vendor_without_the_operator_in_front_does_not_matter(smoke: Smoke, live: Path) -> None:
    install(live.parent, "other", "\0aclnnOther\0")
    (live.parent / "config.ini").write_text("load_priority=missing,other,customize\n")
    assert smoke("answer()").verdict == "pass"


def test_callers_own_environment_is_a_warning(smoke: Smoke, live: Path, tmp_path: Path) -> None:
    own = install(tmp_path / "private", "mine")
    events = Events()
    path = f"{tmp_path / 'gone'}:{own}:"
    report = smoke("answer()", environ={"ASCEND_CUSTOM_OPP_PATH": path}, events=events)
    assert report.verdict == "pass"
    assert list(report.warnings) == events.warnings
    stale, shadow = report.warnings
    assert "does not exist" in stale
    assert str(own / OPAPI) in shadow
    assert str(live / OPAPI) in shadow
    same = smoke("answer()", environ={"ASCEND_CUSTOM_OPP_PATH": str(live)})
    assert same.warnings == ()


def test_toolkit_for_another_architecture(toolkit: Toolkit, release: Release, live: Path) -> None:
    import dataclasses

    foreign = dataclasses.replace(toolkit, arch="riscv64")
    report = run_smoke(foreign, release, live=live, command=["/bin/false"], environ={})
    assert report.verdict == "inconclusive"
    assert "riscv64" in report.message


def test_steps_are_reported(smoke: Smoke) -> None:
    events = Events()
    smoke("answer()", events=events)
    assert [step.name for step in events.steps] == ["call the operator on device 0"]


def test_config_ini_as_the_runtime_reads_it(tmp_path: Path) -> None:
    ini = write(tmp_path / "config.ini", "# comment priority\n\nsome_priority=a,b, c,\nload_priority=d\n")
    assert config_vendors(ini) == ("a", "b", " c")
    assert config_vendors(tmp_path / "missing") == ()


def test_child_environment_finds_this_package_first(toolkit: Toolkit) -> None:
    env = child_environment(toolkit)
    first, *rest = env["PYTHONPATH"].split(":")
    assert (Path(first) / "smallq_deploy").is_dir()
    assert any("site-packages" in part for part in rest)
