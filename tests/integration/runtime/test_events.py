"""Events: times between points of a stream, and what waits for a stream that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.acl_toolkit import Child, Toolkit

SETUP = """
acl = Acl(); acl.start()
rt = acl.rt
rt.aclrtRecordEvent.argtypes = [c_void_p, c_void_p]
rt.aclrtSynchronizeEvent.argtypes = rt.aclrtDestroyEvent.argtypes = [c_void_p]
rt.aclrtEventElapsedTime.argtypes = [POINTER(ctypes.c_float), c_void_p, c_void_p]
def event():
    made = c_void_p()
    acl.check(rt.aclrtCreateEvent(ctypes.byref(made)))
    return made
def elapsed(start, end):
    ms = ctypes.c_float(-1)
    return rt.aclrtEventElapsedTime(ctypes.byref(ms), start, end), ms.value
start, end = event(), event()
stream = acl.stream()
"""


@pytest.fixture
def target(toolkit: Toolkit, vendor: Path) -> Path:
    return toolkit.install(vendor)


def test_time_between_two_points_of_a_stream(target: Path, child: Child) -> None:
    scenario = """
op = TinyAdd(acl, arguments[0])
x = np.ones(100000, np.float32)
dx, dz = acl.upload(x), acl.malloc(x.nbytes)
t = lambda at: acl.tensor(at, x.shape, "float32")
result["early"] = elapsed(start, end)[0]
acl.check(rt.aclrtRecordEvent(start, stream))
acl.check(op.first(t(dx), t(dx), t(dz)) or op.second(stream))
acl.check(rt.aclrtRecordEvent(end, stream))
acl.check(rt.aclrtSynchronizeEvent(end))
result["code"], result["ms"] = elapsed(start, end)
result["backwards"] = elapsed(end, start)[1]
acl.check(rt.aclrtDestroyEvent(end))
result["destroyed"] = [rt.aclrtRecordEvent(end, stream), rt.aclrtDestroyEvent(end), elapsed(start, end)[0]]
"""
    answer = child(SETUP + scenario, target)
    assert answer["early"] != 0 and answer["code"] == 0
    assert answer["ms"] > 0 and answer["backwards"] == -answer["ms"]
    assert all(code != 0 for code in answer["destroyed"])


def test_an_event_behind_a_failed_task_does_not_wait_for_ever(target: Path, child: Child) -> None:
    scenario = """
op = TinyAdd(acl, arguments[0])
x = np.ones(1000, np.float32)
host = acl.tensor(x.ctypes.data, x.shape, "float32")  # not device memory: the launch fails on the stream
dz = acl.tensor(acl.malloc(x.nbytes), x.shape, "float32")
acl.check(rt.aclrtRecordEvent(start, stream))
acl.check(op.first(host, host, dz) or op.second(stream))
acl.check(rt.aclrtRecordEvent(end, stream))
acl.check(rt.aclrtSynchronizeEvent(end))
result["stream"] = acl.aclrtSynchronizeStream(stream)
result["elapsed"] = elapsed(start, end)[0]
"""
    answer = child(SETUP + scenario, target)
    assert answer["stream"] == 507035 and answer["elapsed"] != 0
