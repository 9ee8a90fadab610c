"""Parameters with .Version(n): one aclnn interface for each version, all of them reach the same kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.runtime.test_op_build import definition, signature
from tests.support.acl_toolkit import Child, Toolkit

# Calls one version of the operator; arguments are what that version has between x and the output.
PROBE = """
acl = Acl(); acl.start()
library = ctypes.CDLL(arguments[0] + "/op_api/lib/libcust_opapi.so")
version, dtype, limits = arguments[1], arguments[2], json.loads(arguments[3])
x = acl.tensor(acl.upload(np.array([1234], np.uint16)), (1,), dtype)
given = None
if limits is not None:
    values = np.array(limits, np.int64)
    given = acl.tensor(acl.upload(values), values.shape, "int64")
z = np.zeros(8, np.float32)
dz = acl.malloc(32)
out = acl.tensor(dz, (8,), "float32")
integers = lambda *v: acl.nnop.aclCreateIntArray((c_int64 * len(v))(*v), c_uint64(len(v)))
acl.nnop.aclCreateIntArray.restype = acl.nnop.aclCreateFloatArray.restype = c_void_p
types, more = [c_void_p], [x]
def add(kind, value):
    types.append(kind); more.append(value)
if version == "V3": add(c_void_p, given)
if version in ("V1", "V2", "V3"): add(c_double, 1.5)
if version in ("V2", "V3"):
    add(ctypes.c_bool, False); add(c_int64, -3); add(c_void_p, integers(10, 20, 30))
if version == "V3": add(c_void_p, acl.nnop.aclCreateFloatArray((ctypes.c_float * 2)(1, 2), c_uint64(2)))
size, executor = c_uint64(), c_void_p()
function = getattr(library, f"aclnnTinyProbe{version}GetWorkspaceSize")
function.argtypes = [*types, c_void_p, POINTER(c_uint64), POINTER(c_void_p)]
code = function(*more, out, ctypes.byref(size), ctypes.byref(executor))
if code == 0:
    launch = getattr(library, f"aclnnTinyProbe{version}")
    launch.argtypes = [c_void_p, c_uint64, c_void_p, c_void_p]
    stream = acl.stream()
    code = launch(None, size.value, executor, stream) or acl.aclrtSynchronizeStream(stream)
result["code"], result["message"] = code, acl.message()
result["z"] = acl.download(dz, z).tolist()
"""


@pytest.fixture
def target(toolkit: Toolkit, probe_vendor: Path) -> Path:
    return toolkit.install(probe_vendor)


@pytest.mark.parametrize(
    ("version", "dtype", "limits", "expected"),
    [
        ("", "float16", None, [0.25, 1, 7, 9, -1, 0, 0, 1234]),
        ("", "bfloat16", None, [0.25, 1, 7, 9, -1, 0, 1, 1234]),
        ("V1", "float16", None, [1.5, 1, 7, 9, -1, 0, 0, 1234]),
        ("V2", "bfloat16", None, [1.5, 0, -3, 60, -1, 0, 1, 1234]),
        ("V3", "float16", None, [1.5, 0, -1, 60, -1, 0, 0, 1234]),
        ("V3", "bfloat16", [5, 6, 7], [1.5, 0, -1, 60, 3, 18, 1, 1234]),
    ],
)
def test_every_version_reaches_the_kernel(
    target: Path, child: Child, version: str, dtype: str, limits: list[int] | None, expected: list[float]
) -> None:
    """Older versions pass the defaults of the definition and no tensor for what came later."""
    answer = child(PROBE, target, version, dtype, str(limits).replace("None", "null"))
    assert answer.get("code") == 0, answer
    assert answer["z"] == expected


def test_optional_input_of_another_type_is_refused(target: Path, child: Child) -> None:
    scenario = PROBE.replace('"int64")\nz', '"int32")\nz')
    answer = child(scenario, target, "V3", "float16", "[5]")
    assert answer["code"] == 161002 and "rowLimits INT32" in answer["message"]


def test_generated_interfaces(probe_vendor: Path) -> None:
    include = probe_vendor / "op_api/include"
    assert sorted(path.name for path in include.iterdir()) == [
        "aclnn_tiny_probe.h",
        *(f"aclnn_tiny_probe_v{n}.h" for n in (1, 2, 3)),
    ]
    tail = ["const aclTensor *out", "uint64_t *workspaceSize", "aclOpExecutor **executor"]
    second = ["double rate", "bool flip", "int64_t count", "const aclIntArray *marksOptional"]
    third = ["const aclTensor *rowLimitsOptional", *second, "const aclFloatArray *nothingOptional"]
    middles = {"": [], "V1": ["double rate"], "V2": second, "V3": third}
    for version, middle in middles.items():
        header = (include / f"aclnn_tiny_probe{version.replace('V', '_v')}.h").read_text()
        function = f"aclnnTinyProbe{version}"
        assert signature(header, f"{function}GetWorkspaceSize") == ["const aclTensor *x", *middle, *tail]
        assert f"ACLNN_TINY_PROBE{version and '_' + version}_H_" in header
        assert set(re.findall(r"aclnnTinyProbe\w*(?=\()", header)) == {function, f"{function}GetWorkspaceSize"}


FP16 = ".DataType({ge::DT_FLOAT16}).Format({ge::FORMAT_ND})"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            f'this->Input("a").ParamType(REQUIRED).Version(1){FP16}; this->Output("b").ParamType(REQUIRED){FP16};',
            "input a has a Version: only an OPTIONAL input",
        ),
        (
            f'this->Input("a").ParamType(REQUIRED){FP16}; this->Output("b").ParamType(REQUIRED).Version(1){FP16};',
            "output b has a Version",
        ),
        (
            f'this->Input("a").ParamType(REQUIRED){FP16}; this->Output("b").ParamType(REQUIRED){FP16};'
            'this->Attr("c").AttrType(REQUIRED).Float(1.0).Version(1);',
            "attribute c has a Version: only an OPTIONAL attribute",
        ),
        (
            f'this->Input("a").ParamType(REQUIRED){FP16}; this->Output("b").ParamType(REQUIRED){FP16};'
            'this->Attr("c").AttrType(OPTIONAL).Float().Version(1);',
            "attribute c has a Version: only an OPTIONAL attribute with a default value",
        ),
    ],
)
def test_versions_that_cannot_be(generate, body: str, text: str) -> None:  # type: ignore[no-untyped-def]
    status, stderr, _ = generate(definition("Bad", body))
    assert status == 1 and text in stderr


DEVICES = """
acl = Acl()
acl.aclInit(None)
result["codes"] = [acl.aclrtSetDevice(device) for device in (0, 1, 2)]
"""


def test_fault_of_one_device(child: Child) -> None:
    """The number is the physical one, whatever the process calls the device."""
    assert child(DEVICES, SMALLQ_SIM_FAULT="oom,set_device_fails@1")["codes"] == [0, 507033, 0]
    visible = {"ASCEND_RT_VISIBLE_DEVICES": "1,3,4"}
    assert child(DEVICES, SMALLQ_SIM_FAULT="set_device_fails@1", **visible)["codes"] == [507033, 0, 0]
    assert child(DEVICES, SMALLQ_SIM_FAULT="set_device_fails@4", **visible)["codes"] == [0, 0, 507033]
