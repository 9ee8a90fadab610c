"""What acl and aclnn status codes mean for a smoke test. Codes and names: cann.md 7.4.

``fail`` speaks against the operator or its installation; ``inconclusive`` against the device, the driver or the
rights of the user, so that another device or another moment could answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One status code: its name, what it means here, what to do, and its class (``fail`` or ``inconclusive``)."""

    number: int
    name: str
    meaning: str
    hint: str
    verdict: str


_LAYOUT_HINT = "`smallq-deploy verify` names what is wrong in the installed tree, `repair` fixes it"
_LOG_HINT = "the runtime's log says more: $HOME/ascend/log/debug/plog, or set ASCEND_SLOG_PRINT_TO_STDOUT=1"
_DEVICE_HINT = "look at `npu-smi info`; try another one with --device N"
_REPORT_HINT = "a defect of the operator or of the toolkit; report it with the output of `smallq-deploy smoke --json`"

_TABLE: tuple[tuple[int, str, str, str, str], ...] = (
    (100000, "INVALID_PARAM", "the runtime rejected an argument", _REPORT_HINT, "fail"),
    (100001, "UNINITIALIZE", "the runtime was not initialised", _REPORT_HINT, "fail"),
    (
        100039,
        "COMPILING_STUB_MODE",
        "the libraries in use are the toolkit's stubs for compiling, not the real ones",
        "install the NPU driver, and source set_env.sh in a fresh shell",
        "inconclusive",
    ),
    (107000, "RT_PARAM_INVALID", "the runtime rejected an argument", _DEVICE_HINT, "inconclusive"),
    (
        107001,
        "INVALID_DEVICEID",
        "there is no such device",
        "see `smallq-deploy detect` for the devices",
        "inconclusive",
    ),
    (107002, "CONTEXT_NULL", "no device was set in this thread", _REPORT_HINT, "fail"),
    (107003, "STREAM_CONTEXT", "the stream belongs to another device", _REPORT_HINT, "fail"),
    (107019, "WAIT_TIMEOUT", "waiting for the device took too long", _DEVICE_HINT, "inconclusive"),
    (107020, "TASK_TIMEOUT", "the kernel did not finish in time", _REPORT_HINT, "fail"),
    (
        148049,
        "INVALID_OPP_PATH",
        "ASCEND_OPP_PATH is not set or names no opp directory",
        "check the toolkit's set_env.sh",
        "fail",
    ),
    (161001, "ACLNN_PARAM_NULLPTR", "a required tensor is missing", _REPORT_HINT, "fail"),
    (
        161002,
        "ACLNN_PARAM_INVALID",
        "a data type, format or shape is not what the operator supports",
        "the installed package may be another version of the operator than this release",
        "fail",
    ),
    (200000, "BAD_ALLOC", "no host memory", "free memory on this machine", "inconclusive"),
    (207000, "FEATURE_NOT_SUPPORT", "this driver does not support the call", "update the NPU driver", "inconclusive"),
    (207001, "MEMORY_ALLOCATION", "no device memory", "the card is busy: try another with --device N", "inconclusive"),
    (207004, "NO_DEVICE", "no device is visible", "check the driver, or the devices of this container", "inconclusive"),
    (
        207006,
        "NO_PERMISSION",
        "no permission to use the device",
        "add the user to the group HwHiAiUser, or give the container its /dev/davinci* files",
        "inconclusive",
    ),
    (207018, "DEVICE_OOM", "no device memory", "the card is busy: try another with --device N", "inconclusive"),
    (361001, "ACLNN_RUNTIME_ERROR", "a runtime call inside the operator failed", _LOG_HINT, "fail"),
    (
        561001,
        "INFERSHAPE_ERROR",
        "the operator's shape inference is missing or failed",
        "libcust_opsproto_rt2.0.so of the package is missing or damaged; " + _LAYOUT_HINT,
        "fail",
    ),
    (
        561002,
        "TILING_ERROR",
        "the operator's tiling is missing, or refused this shape",
        "libcust_opmaster_rt2.0.so of the package is missing, damaged or of another version; " + _LAYOUT_HINT,
        "fail",
    ),
    (
        561003,
        "FIND_KERNEL_ERROR",
        "no kernel of the operator for this device and these data types was found",
        "built for another compute unit, or not where the runtime looks; " + _LAYOUT_HINT,
        "fail",
    ),
    (
        561107,
        "OPP_PATH_NOT_FOUND",
        "ASCEND_OPP_PATH or ASCEND_HOME_PATH is not set",
        "check the toolkit's set_env.sh",
        "fail",
    ),
    (561108, "LOAD_JSON_FAILED", "a .json file of the kernel cannot be read", _LAYOUT_HINT, "fail"),
    (561109, "JSON_VALUE_NOT_FOUND", "a .json file of the kernel lacks a value", _LAYOUT_HINT, "fail"),
    (561110, "JSON_FORMAT_INVALID", "a .json file of the kernel has a wrong format entry", _LAYOUT_HINT, "fail"),
    (561111, "JSON_DTYPE_INVALID", "a .json file of the kernel has a wrong data type entry", _LAYOUT_HINT, "fail"),
    (
        561112,
        "OPP_KERNEL_PKG_NOT_FOUND",
        "no kernel package for this device was found",
        "no vendor directory that the runtime looks in has a kernel index for this compute unit; " + _LAYOUT_HINT,
        "fail",
    ),
    (
        561113,
        "OP_FILE_INVALID",
        "a kernel file is missing or damaged",
        "install the package again; " + _LAYOUT_HINT,
        "fail",
    ),
    (500000, "INTERNAL_ERROR", "the runtime failed inside", _LOG_HINT, "inconclusive"),
    (500002, "GE_FAILURE", "the runtime failed inside", _LOG_HINT, "inconclusive"),
    (500003, "RT_FAILURE", "the runtime failed inside", _LOG_HINT, "inconclusive"),
    (500004, "DRV_FAILURE", "the driver failed", _LOG_HINT, "inconclusive"),
    (507000, "RT_INTERNAL_ERROR", "the runtime failed inside", _LOG_HINT, "inconclusive"),
    (507001, "TS_ERROR", "the task scheduler of the device failed", _DEVICE_HINT, "inconclusive"),
    (507008, "SOC_VERSION", "the runtime cannot tell the type of the device", _DEVICE_HINT, "inconclusive"),
    (507010, "LOST_HEARTBEAT", "the device does not answer any more", _DEVICE_HINT, "inconclusive"),
    (507014, "AICORE_TIMEOUT", "the kernel hung", _REPORT_HINT, "fail"),
    (507015, "AICORE_EXCEPTION", "the kernel made a fault on the device", _REPORT_HINT, "fail"),
    (507017, "AICPU_TIMEOUT", "a task on the device's CPU hung", _LOG_HINT, "fail"),
    (507018, "AICPU_EXCEPTION", "a task on the device's CPU made a fault", _LOG_HINT, "fail"),
    (
        507033,
        "DEV_SETUP_ERROR",
        "the device cannot be opened",
        "a problem of this node, not of the package: look at `npu-smi info` and the driver",
        "inconclusive",
    ),
    (507034, "VECTOR_CORE_TIMEOUT", "the kernel hung", _REPORT_HINT, "fail"),
    (507035, "VECTOR_CORE_EXCEPTION", "the kernel made a fault on the device", _REPORT_HINT, "fail"),
    (507046, "STREAM_SYNC_TIMEOUT", "the kernel did not finish in time", _REPORT_HINT, "fail"),
    (507053, "DEVICE_MEMORY_ERROR", "the device's memory is faulty", _DEVICE_HINT, "inconclusive"),
    (507054, "HBM_MULTI_BIT_ECC_ERROR", "the device's memory is faulty", _DEVICE_HINT, "inconclusive"),
    (507899, "DRV_INTERNAL_ERROR", "the driver failed", _DEVICE_HINT, "inconclusive"),
)
CODES: dict[int, Code] = {row[0]: Code(*row) for row in _TABLE}

ALREADY_INITIALISED = 100002  # harmless, cann.md 7.3

# Ranges for numbers the table does not have: first digit rule of cann.md 7.4, aclnn numbers judge the operator.
_RANGES: tuple[tuple[range, str, str], ...] = (
    (range(161000, 162000), "ACLNN_PARAMETER", "fail"),
    (range(361000, 362000), "ACLNN_RUNTIME", "fail"),
    (range(561000, 562000), "ACLNN_INNER", "fail"),
    (range(507010, 507020), "KERNEL", "fail"),
    (range(100000, 200000), "CALLER", "fail"),
    (range(200000, 300000), "RESOURCE", "inconclusive"),
    (range(500000, 600000), "INTERNAL", "inconclusive"),
)


def explain(number: int) -> Code:
    """The meaning of a non-zero status; for an unknown number the meaning of its range."""
    if number < 0:
        return Code(number, "NO_RESULT", "the call gave nothing back", _LOG_HINT, "fail")
    known = CODES.get(number)
    if known is not None:
        return known
    for numbers, name, verdict in _RANGES:
        if number in numbers:
            return Code(number, f"{name}_{number}", "a status this tool has no text for", _LOG_HINT, verdict)
    return Code(number, f"STATUS_{number}", "a status this tool has no text for", _LOG_HINT, "fail")
