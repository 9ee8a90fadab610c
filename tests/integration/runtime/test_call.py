"""The two-phase call of a real operator through libcust_opapi, tiling library and emulated kernel."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.acl_toolkit import ARCH, Child, Toolkit, compile_library

ADD = """
acl = Acl(); acl.start()
op = TinyAdd(acl, arguments[0])
rng = np.random.default_rng(1)
x, y = (rng.standard_normal((7, 333)).astype(arguments[1]) for _ in range(2))
code, z = op.add(x, y, 0.5)
want = (x + y) + np.asarray(0.5, x.dtype)
result.update(code=code, message=acl.message(), wrong=int((z != want).sum()))
"""

SETUP = """
acl = Acl(); acl.start()
op = TinyAdd(acl, arguments[0])
x = np.arange(24, dtype=np.float16).reshape(4, 6)
dx, dy, dz = acl.upload(x), acl.upload(x), acl.malloc(x.nbytes)
stream = acl.stream()
t = lambda at, shape=(4, 6), dtype="float16", strides=None: acl.tensor(at, shape, dtype, strides)
def first(*tensors):
    return op.first(*tensors), acl.message()
def whole(*tensors):
    code = op.first(*tensors) or op.second(stream)
    return code or acl.aclrtSynchronizeStream(stream), acl.message()
"""


@pytest.fixture
def target(toolkit: Toolkit, vendor: Path) -> Path:
    return toolkit.install(vendor)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_add_is_exact(target: Path, child: Child, dtype: str) -> None:
    answer = child(ADD, target, dtype)
    assert (answer["code"], answer["wrong"]) == (0, 0), answer


def test_arguments_are_checked(target: Path, child: Child) -> None:
    answer = child(
        SETUP
        + """
result["null_input"] = first(None, t(dy), t(dz))
result["null_output"] = first(t(dx), t(dy), None)
result["dtype"] = first(t(dx, dtype="int32"), t(dy), t(dz))
result["mixed"] = first(t(dx), t(dy, dtype="float32"), t(dz))
result["tiling"] = first(t(dx), t(dy, shape=(6, 4)), t(dz))
result["out_shape"] = first(t(dx), t(dy), t(dz, shape=(24,)))
result["strided_y"] = first(t(dx), t(dy, strides=(1, 4)), t(dz))
result["strided_out"] = first(t(dx), t(dy), t(dz, strides=(1, 4)))
result["null_size"] = op.workspace_size(t(dx), t(dy), 0.0, t(dz), None, ctypes.byref(op.executor))
""",
        target,
    )
    assert answer["null_input"] == [161001, "EZ1001: TinyAdd: x must not be null"]
    assert answer["null_output"] == [161001, "EZ1001: TinyAdd: out must not be null"]
    assert answer["dtype"][0] == 161002 and "x INT32 ND" in answer["dtype"][1]
    assert "x FLOAT16, y FLOAT16, out FLOAT16" in answer["dtype"][1]
    assert answer["mixed"][0] == 161002
    assert answer["tiling"][0] == 561002 and "TinyAdd: x and y have different shapes" in answer["tiling"][1]
    assert answer["out_shape"][0] == 161002 and "out has shape [24]" in answer["out_shape"][1]
    assert answer["strided_y"][0] == 161002 and "AutoContiguous" in answer["strided_y"][1]
    assert answer["strided_out"][0] == 161002
    assert answer["null_size"] == 161001


def test_strided_input_is_copied(target: Path, child: Child) -> None:
    answer = child(
        SETUP
        + """
code = whole(t(dx, strides=(1, 4)), t(dy), t(dz))
want = x.ravel().reshape(6, 4).T + x
result.update(code=code, size=op.size.value, equal=bool((acl.download(dz, x) == want).all()))
""",
        target,
    )
    assert answer["code"] == [0, ""] and answer["equal"]
    assert answer["size"] == 512


def test_executor_is_single_use_and_workspace_is_checked(target: Path, child: Child) -> None:
    answer = child(
        SETUP
        + """
result["none"] = op.launch(None, 0, None, stream)
result["codes"] = [op.first(t(dx), t(dy), t(dz)), op.second(stream), op.second(stream)]
result["message"] = acl.message()
op.first(t(dx, strides=(1, 4)), t(dy), t(dz))
result["small"] = op.launch(dz, 16, op.executor, stream)
result["null_workspace"] = op.launch(None, 512, op.executor, stream)
result["host_workspace"] = op.launch(x.ctypes.data, 512, op.executor, stream)
result["bad_stream"] = op.launch(acl.malloc(512), 512, op.executor, 12345)
result["repeat"] = [
    op.first(t(dx), t(dy), t(dz)),
    acl.nnop.aclSetAclOpExecutorRepeatable(op.executor), op.second(stream), op.second(stream),
    acl.nnop.aclDestroyAclOpExecutor(op.executor), op.second(stream),
]
""",
        target,
    )
    assert answer["none"] == 161001
    assert answer["codes"] == [0, 0, 561103] and "used up" in answer["message"]
    assert (answer["small"], answer["null_workspace"], answer["host_workspace"]) == (161002, 161001, 161002)
    assert answer["bad_stream"] == 361001
    assert answer["repeat"] == [0, 0, 0, 0, 0, 561103]


def test_host_pointer_as_tensor_fails_on_the_stream(target: Path, child: Child) -> None:
    answer = child(
        SETUP
        + """
result["host"] = whole(t(x.ctypes.data), t(dy), t(dz))
stream = acl.stream()
result["short"] = whole(t(dx), t(dy), t(acl.malloc(40)))
""",
        target,
    )
    assert answer["host"][0] == 507035 and "tensor x at 0x" in answer["host"][1]
    assert answer["short"][0] == 507035 and "tensor out at 0x" in answer["short"][1]


def test_kernel_finding_reaches_the_caller(target: Path, child: Child) -> None:
    answer = child(SETUP + "result['answer'] = whole(t(dx), t(acl.malloc(48)), t(dz))", target)
    code, message = answer["answer"]
    assert code == 507035
    assert "kernel of TinyAdd failed in the simulated toolkit" in message and "UNWRITTEN" in message
    loose = child(SETUP + "result['answer'] = whole(t(dx), t(acl.malloc(48)), t(dz))", target, SMALLQ_SIM_STRICT="0")
    assert loose["answer"][0] == 0


def test_shape_inference_is_optional_but_used(target: Path, child: Child) -> None:
    (target / f"op_proto/lib/linux/{ARCH}/libcust_opsproto_rt2.0.so").unlink()
    answer = child(SETUP + "result['answer'] = first(t(dx), t(dy), t(dz, shape=(24,)))", target)
    assert answer["answer"] == [0, ""]


def test_first_vendor_decides_the_shape_and_tables_stay_apart(
    toolkit: Toolkit, target: Path, child: Child, tmp_path: Path
) -> None:
    """A second library registers the same operator: neither sees the other's table, the first in the path wins."""
    first = tmp_path / "first"
    (first / f"op_proto/lib/linux/{ARCH}").mkdir(parents=True)
    source = tmp_path / "refuse_proto.cpp"
    source.write_text(
        '#include "register/op_impl_registry.h"\n'
        "static ge::graphStatus Refuse(gert::InferShapeContext*) { return ge::GRAPH_FAILED; }\n"
        "IMPL_OP_INFERSHAPE(TinyAdd).InferShape(Refuse);\n"
    )
    compile_library(first / f"op_proto/lib/linux/{ARCH}/libcust_opsproto_rt2.0.so", [source], "c++11")
    scenario = SETUP + "result['answer'] = first(t(dx), t(dy), t(dz))"
    assert child(scenario, target)["answer"] == [0, ""]
    code, message = child(scenario, target, ASCEND_CUSTOM_OPP_PATH=str(first))["answer"]
    assert code == 561001 and "shape inference of TinyAdd failed" in message


def test_output_of_one_call_is_written_memory_for_the_next(target: Path, child: Child) -> None:
    scenario = """
result["first"] = whole(t(dx), t(dy), t(dz))
dw = acl.malloc(x.nbytes)
result["second"] = whole(t(dz), t(dx), t(dw))
result["equal"] = bool((acl.download(dw, x) == 3 * x).all())
"""
    answer = child(SETUP + scenario, target)
    assert answer["first"] == [0, ""] and answer["second"] == [0, ""] and answer["equal"]


def test_wrong_numbers_and_death_on_demand(target: Path, child: Child) -> None:
    answer = child(ADD, target, "float16", SMALLQ_SIM_FAULT="wrong_numbers")
    assert (answer["code"], answer["wrong"]) == (0, 1)
    died = child(ADD, target, "float16", SMALLQ_SIM_FAULT="dies")
    assert died["returncode"] == -11


def test_kernel_that_hangs(toolkit: Toolkit, vendor: Path, child: Child, tmp_path: Path) -> None:
    """An object that reports SIM_HANG, as the emulator does for a kernel that would never end."""
    target = toolkit.install(vendor)
    source = tmp_path / "hang.c"
    source.write_text("struct SimLaunch;\nint smallq_sim_kernel_launch(struct SimLaunch *l) { (void)l; return 2; }\n")
    for file in (target / "op_impl/ai_core/tbe/kernel/ascend910b/tiny_add").glob("*.o"):
        subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", str(source), "-o", str(file)], check=True)
        description = file.with_suffix(".json")
        content = json.loads(description.read_text())
        content["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        description.write_text(json.dumps(content))
    answer = child(SETUP + "result['answer'] = whole(t(dx), t(dy), t(dz))", target)
    assert answer["answer"][0] == 507034 and "would hang" in answer["answer"][1]
