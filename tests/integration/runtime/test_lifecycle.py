"""Process set-up, devices, streams and memory of the simulated acl runtime."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.acl_toolkit import ARCH, NATIVE, Child, Toolkit, run_tool


def test_init_twice_and_finalize(child: Child) -> None:
    answer = child("""
        acl = Acl()
        result["codes"] = [acl.aclFinalize(), acl.aclInit(None), acl.aclInit(None), acl.aclFinalize()]
    """)
    assert answer["codes"] == [100001, 0, 100002, 0]


def test_device_ids(child: Child) -> None:
    answer = child("""
        acl = Acl()
        before = acl.aclrtSetDevice(0)
        acl.start(7)
        count = c_uint32()
        acl.aclrtGetDeviceCount(ctypes.byref(count))
        bad = acl.aclrtSetDevice(8)
        result.update(before=before, count=count.value, bad=bad, negative=acl.aclrtSetDevice(-1))
        result.update(message=acl.message(), soc=acl.rt.aclrtGetSocName().decode())
    """)
    assert answer["before"] == 100001
    assert (answer["count"], answer["bad"], answer["negative"]) == (8, 107001, 107001)
    assert "8 device(s) are visible" in answer["message"]
    assert answer["soc"] == "Ascend910B3"


@pytest.mark.parametrize(
    ("visible", "count"), [("2,5", 2), ("2,5,9,1", 2), ("5,2", 1), ("1,x,2", 1), ("", 0), ("9", 0)]
)
def test_visible_devices(child: Child, visible: str, count: int) -> None:
    answer = child(
        """
        acl = Acl(); acl.aclInit(None)
        count = c_uint32()
        acl.aclrtGetDeviceCount(ctypes.byref(count))
        result.update(count=count.value, last=acl.aclrtSetDevice(count.value))
        """,
        ASCEND_RT_VISIBLE_DEVICES=visible,
    )
    assert (answer["count"], answer["last"]) == (count, 107001)


def test_call_without_device_in_this_thread(child: Child) -> None:
    answer = child("""
        import threading
        acl = Acl(); acl.start()
        codes = []
        pointer = c_void_p()
        worker = threading.Thread(target=lambda: codes.append(acl.aclrtMalloc(ctypes.byref(pointer), 64, 0)))
        worker.start(); worker.join()
        result["codes"] = codes
    """)
    assert answer["codes"] == [107002]


def test_copies_are_checked(child: Child) -> None:
    answer = child("""
        acl = Acl(); acl.start()
        host = np.arange(16, dtype=np.float32)
        pointer = host.ctypes.data_as(c_void_p)
        device = acl.upload(host)
        def copy(*arguments):
            return acl.aclrtMemcpy(*arguments), acl.message()
        other = (c_uint32 * 16)()
        result["host_as_device"] = copy(ctypes.addressof(other), 64, pointer, 64, H2D)
        result["device_as_host"] = copy(pointer, 64, device, 64, 0)
        result["past_the_end"] = copy(device + 32, 64, pointer, 64, H2D)
        result["too_small"] = copy(device, 32, pointer, 64, H2D)
        result["kind"] = copy(device, 64, pointer, 64, 9)
        result["default_kind"] = copy(device, 64, pointer, 64, 4)
        result["set_host"] = acl.aclrtMemset(pointer, 64, 0, 64)
        result["round_trip"] = bool((acl.download(device, host) == host).all())
        result["free_inside"] = acl.aclrtFree(device + 16)
        result["free"] = [acl.aclrtFree(device), acl.aclrtFree(device)]
        result["use_after_free"] = copy(pointer, 64, device, 64, D2H)
    """)
    assert answer["host_as_device"][0] == 107000
    assert "not device memory" in answer["host_as_device"][1]
    assert answer["device_as_host"][0] == 107000
    assert answer["past_the_end"][0] == 107000
    assert "runs past the end of a 64 byte allocation" in answer["past_the_end"][1]
    assert (answer["too_small"][0], answer["kind"][0], answer["default_kind"][0]) == (100000, 100000, 0)
    assert (answer["set_host"], answer["free_inside"], answer["free"]) == (107000, 107000, [0, 107000])
    assert answer["round_trip"]
    assert answer["use_after_free"][0] == 107000


def test_message_is_returned_once_and_per_thread(child: Child) -> None:
    answer = child("""
        import threading
        acl = Acl(); acl.start()
        acl.aclrtFree(None)
        seen = []
        worker = threading.Thread(target=lambda: seen.append(acl.message()))
        worker.start(); worker.join()
        result.update(other=seen[0], first=acl.message(), second=acl.message())
    """)
    assert answer["other"] == "" and answer["second"] == ""
    assert "aclrtFree: null pointer" in answer["first"]


def test_memory_limit_of_the_device(child: Child) -> None:
    answer = child("""
        acl = Acl(); acl.start()
        pointer = c_void_p()
        result["codes"] = [acl.aclrtMalloc(ctypes.byref(pointer), size, 0) for size in (0, 2**36, 2**36 + 1)]
        result["message"] = acl.message()
    """)
    assert answer["codes"] == [100000, 0, 207018]
    assert "out of memory" in answer["message"]


def test_stream_keeps_order_and_reports_a_failed_task(child: Child) -> None:
    answer = child("""
        acl = Acl(); acl.start()
        host = [np.full(1024, value, np.float32) for value in range(50)]
        device = acl.malloc(4096)
        stream = acl.stream()
        for values in host:
            acl.aclrtMemcpyAsync(device, 4096, values.ctypes.data_as(c_void_p), 4096, H2D, stream)
        result["sync"] = acl.aclrtSynchronizeStreamWithTimeout(stream, 10000)
        result["last"] = float(acl.download(device, host[0])[0])
        acl.aclrtMemcpyAsync(device + 8, 4096, host[0].ctypes.data_as(c_void_p), 4096, H2D, stream)
        result["failed"] = [acl.aclrtSynchronizeStream(stream), acl.aclrtSynchronizeStream(stream)]
        result["message"] = acl.message()
        result["destroy"] = [acl.aclrtDestroyStream(stream), acl.aclrtSynchronizeStream(stream)]
        acl.aclrtSetDevice(1)
        other = acl.stream()
        acl.aclrtSetDevice(0)
        result["other_device"] = acl.aclrtSynchronizeStream(other)
    """)
    assert (answer["sync"], answer["last"]) == (0, 49.0)
    assert answer["failed"] == [107000, 107000]
    assert "runs past the end" in answer["message"]
    assert answer["destroy"] == [0, 107000]
    assert answer["other_device"] == 107003


@pytest.mark.parametrize("library", ["libascendcl.so", "libacl_rt.so"])
def test_both_names_give_one_runtime(child: Child, library: str) -> None:
    answer = child(
        """
        old, new = ctypes.CDLL(arguments[0]), ctypes.CDLL("libacl_rt.so")
        result["codes"] = [old.aclInit(None), new.aclInit(None), old.aclFinalize()]
    """,
        library,
    )
    assert answer["codes"] == [0, 100002, 0]


@pytest.mark.parametrize("name", ["ascendcl", "acl_rt"])
def test_programs_link_with_both_names(toolkit: Toolkit, tmp_path: Path, name: str) -> None:
    source = tmp_path / "program.cpp"
    source.write_text(
        '#include "acl/acl.h"\n#include "aclnn/aclnn_base.h"\nint main() {\n'
        "    int64_t dim = 2;\n    void* memory = nullptr;\n    aclrtStream stream = nullptr;\n"
        "    aclTensor* t = aclCreateTensor(&dim, 1, ACL_FLOAT16, nullptr, 0, ACL_FORMAT_ND, &dim, 1, nullptr);\n"
        "    return aclInit(nullptr) + aclrtSetDevice(3) + aclrtCreateStream(&stream) +\n"
        "           aclrtMalloc(&memory, 64, ACL_MEM_MALLOC_HUGE_FIRST) + aclDestroyTensor(t);\n}\n"
    )
    libraries = toolkit.libraries
    command = ["g++", source, "-I", NATIVE / "include", f"-L{libraries}", f"-l{name}", "-lnnopbase"]
    built = run_tool(*command, f"-Wl,-rpath-link,{libraries}", "-o", tmp_path / "program")
    assert built.returncode == 0, built.stderr
    assert run_tool(tmp_path / "program", env=toolkit.env()).returncode == 0


def test_before_85_the_old_name_is_the_runtime(toolkit: Toolkit, child: Child) -> None:
    pre85 = toolkit.libraries / "pre85"
    assert not (pre85 / "libacl_rt.so").exists()
    answer = child(
        "acl = Acl('libascendcl.so'); acl.start(); result['tensor'] = acl.tensor(None, (2,), 'float16') != 0",
        LD_LIBRARY_PATH=str(pre85),
    )
    assert answer["tensor"] is True


@pytest.mark.parametrize(
    ("version", "number"),
    [("8.5.0", 80500000), ("9.0.0-beta.2", 89999802), ("8.5.1-rc1", 80500901), ("8.1.RC1", None)],
)
def test_version_number(toolkit: Toolkit, child: Child, version: str, number: int | None) -> None:
    info = toolkit.home / "share" / "info" / "ops_base"
    info.mkdir(parents=True)
    (info / "version.info").write_text(f"Version={version}\nversion_dir=cann\n")
    answer = child("""
        acl = Acl()
        number = c_int32()
        result.update(code=acl.aclsysGetVersionNum(b"ops-base", ctypes.byref(number)), number=number.value)
    """)
    if number is None:
        assert answer["code"] == 100000
    else:
        assert (answer["code"], answer["number"]) == (0, number)


CANN_VERSION = """
acl = Acl()
class Version(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 128), *((n, ctypes.c_char * 64) for n in ("a", "b", "c", "d"))]
    _fields_ += [("reserved", ctypes.c_char * 128)]
def ask(package):
    version = Version()
    code = acl.rt.aclsysGetCANNVersion(package, ctypes.byref(version))
    return code, [getattr(version, name).decode() for name in ("text", "a", "b", "c", "d")]
result.update(toolkit=ask(0), runtime=ask(1), opp=ask(5), unknown=ask(8), size=ctypes.sizeof(Version))
"""


def test_cann_version_of_both_layouts(toolkit: Toolkit, child: Child) -> None:
    home = toolkit.home
    info = home / f"{ARCH}-linux" / "ascend_toolkit_install.info"
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.1.RC1\n")
    (home / "runtime").mkdir()
    (home / "runtime" / "version.info").write_text("Version=7.7.0.1.238\nversion_dir=8.1.RC1\n")
    answer = child(CANN_VERSION)
    assert answer["size"] == 512
    assert answer["toolkit"] == [0, ["8.1.RC1", "8", "1", "RC1", ""]]
    assert answer["runtime"] == answer["toolkit"]
    assert answer["opp"][0] == 100003 and answer["unknown"][0] == 100000
    info.write_text("version=9.0.0-beta.2\n")
    (home / "share" / "info" / "runtime").mkdir(parents=True)
    (home / "share" / "info" / "runtime" / "version.info").write_text("Version=9.0.0-beta.2\nversion_dir=cann\n")
    (home / "opp" / "version.info").write_text("Version=9.0.0\nversion_dir=cann\n")
    answer = child(CANN_VERSION)
    assert answer["toolkit"] == [0, ["9.0.0.beta2", "9", "0", "0", "beta2"]]
    assert answer["runtime"] == answer["toolkit"]
    assert answer["opp"] == [0, ["9.0.0", "9", "0", "0", ""]]


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("set_device_fails", 507033, "cannot be opened"),
        ("no_device", 207004, "no NPU is present"),
        ("no_permission", 207006, "HwHiAiUser"),
        ("driver_old", 507899, "driver is too old"),
    ],
)
def test_device_faults(child: Child, fault: str, code: int, text: str) -> None:
    answer = child(
        "acl = Acl(); acl.aclInit(None); result.update(code=acl.aclrtSetDevice(0), message=acl.message())",
        SMALLQ_SIM_FAULT=f"unknown,{fault}",
    )
    assert answer["code"] == code
    assert text in answer["message"]


def test_out_of_memory_fault(child: Child) -> None:
    answer = child(
        "acl = Acl(); acl.start(); p = c_void_p(); result['code'] = acl.aclrtMalloc(ctypes.byref(p), 64, 0)",
        SMALLQ_SIM_FAULT="oom",
    )
    assert answer["code"] == 207018


def test_hanging_device_does_not_return(child: Child) -> None:
    started = time.monotonic()
    answer = child(
        """
        import os, threading
        acl = Acl(); acl.aclInit(None)
        worker = threading.Thread(target=lambda: acl.aclrtSetDevice(0), daemon=True)
        worker.start(); worker.join(1.5)
        print("RESULT " + json.dumps({"hangs": worker.is_alive()}), flush=True)
        os._exit(0)
        """,
        SMALLQ_SIM_FAULT="device_hangs",
    )
    assert answer["hangs"] is True
    assert time.monotonic() - started < 20


def test_logs_only_where_asked(child: Child, tmp_path: Path) -> None:
    scenario = "acl = Acl(); acl.start(); acl.aclrtFree(None)"
    home = tmp_path / "home"
    home.mkdir()
    quiet = child(scenario, HOME=str(home))
    assert "aclrtFree" not in quiet["stdout"] and list(home.iterdir()) == []
    loud = child(scenario, ASCEND_SLOG_PRINT_TO_STDOUT="1", ASCEND_GLOBAL_LOG_LEVEL="1")
    assert "[ERROR] ACL(" in loud["stdout"] and "[INFO] ACL(" in loud["stdout"]
    child(scenario, ASCEND_PROCESS_LOG_PATH=str(tmp_path / "log"))
    logs = list((tmp_path / "log" / "run" / "plog").glob("plog-*.log"))
    assert len(logs) == 1 and "aclrtFree: null pointer" in logs[0].read_text()
