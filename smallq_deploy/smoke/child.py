"""The process that calls the operator: ``python -m smallq_deploy.smoke.child REQUEST PROGRESS RESULT``.

It may crash or hang with the runtime; the runner watches it. REQUEST is JSON (see :func:`main`); PROGRESS gets a JSON
line at the start of each phase, so that a crash can be placed; RESULT gets one JSON document, only at the end.
Standard library only, and as little of it as possible.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from typing import Any

from smallq_deploy.smoke.aclnn import AclError, LibraryError, MissingSymbolError, OverrunError, Runtime
from smallq_deploy.smoke.cases import Case, from_half
from smallq_deploy.smoke.reference import attention, compare


class _Progress:
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.last: dict[str, Any] = {}

    def __call__(self, phase: str, **facts: Any) -> None:
        self.last = {"phase": phase, **facts}
        os.write(self._fd, (json.dumps(self.last) + "\n").encode())


def mapped_libraries(prefix: str) -> list[dict[str, Any]]:
    """Files of this process' mappings whose name starts with ``prefix``: path, device (hex) and inode, each once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            parts = line.rstrip("\n").split(None, 5)
            if len(parts) == 6 and os.path.basename(parts[5]).startswith(prefix):
                found[parts[3], parts[4]] = {"path": parts[5], "device": parts[3], "inode": int(parts[4])}
    return list(found.values())


def _run_case(runtime: Runtime, case: Case, tolerance: dict[str, float], stream: int, ms: int) -> dict[str, Any]:
    inputs = case.inputs()
    start = time.monotonic()
    raw = runtime.attend(case.shapes, inputs, stream, ms)
    seconds = time.monotonic() - start
    expected = attention(case, inputs["q"], inputs["k"], inputs["v"])
    result = compare(from_half(raw), expected, abs_=tolerance["abs"], rel=tolerance["rel"], rel_l2=tolerance["rel_l2"])
    return {
        "name": case.name,
        "passed": result.passed,
        # JSON has no infinity.
        "max_abs": result.max_abs if result.max_abs != float("inf") else None,
        "bound": result.bound if result.bound != float("inf") else None,
        "rel_l2": result.rel_l2 if result.rel_l2 != float("inf") else None,
        "detail": result.detail,
        "seconds": seconds,
    }


def run_request(request: dict[str, Any], progress: _Progress) -> dict[str, Any]:
    """Load, open the device, run the cases, close. Every failure that can be told is a result, not an exception."""
    cases = [Case.from_dict(record) for record in request["cases"]]
    device = int(request["device"])
    results: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"status": "done", "cases": results}
    try:
        progress("load", library=request["library"])
        runtime = Runtime(request["library"], request["operator"])
        # Opening a sick device can hang for ever: end the process then, so that another device can be asked.
        faulthandler.dump_traceback_later(float(request["open_timeout"]), exit=True)
        progress("init")
        runtime.initialise()
        answer["device_count"] = runtime.device_count()
        progress("device", device=device, device_count=answer["device_count"])
        if device >= answer["device_count"]:
            return {**answer, "status": "no_device"}
        stream = runtime.open(device)
        answer["soc"] = runtime.soc_name()
        faulthandler.cancel_dump_traceback_later()
        for case in cases:
            progress("case", case=case.name)
            results.append(_run_case(runtime, case, request["tolerance"], stream, int(request["kernel_ms"])))
        progress("close")
        runtime.close(device, stream)
    except AclError as error:
        answer.update(status="acl_error", function=error.function, number=error.status, text=error.text)
    except LibraryError as error:
        answer.update(status="library_error", library=error.library, text=error.reason, operator=error.operator)
    except MissingSymbolError as error:
        answer.update(status="missing_symbol", library=error.library, symbol=error.symbol)
    except OverrunError as error:
        answer.update(status="overrun", text=str(error))
    answer["mapped"] = mapped_libraries("libcust_")
    answer["at"] = progress.last
    return answer


def main(argv: list[str]) -> int:
    """REQUEST: {operator, library, device, cases, tolerance {abs, rel, rel_l2}, open_timeout s, kernel_ms}."""
    faulthandler.enable()
    request_path, progress_path, result_path = argv
    with open(request_path, encoding="utf-8") as stream:
        request = json.load(stream)
    answer = run_request(request, _Progress(progress_path))
    temporary = result_path + ".new"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    os.rename(temporary, result_path)
    sys.stdout.flush()
    sys.stderr.flush()
    # Destructors of the runtime's libraries are not what is tested here, and some of them crash.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
