"""A kernel whose launches are traced by the emulator's cost model; every figure in a report is modelled."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

from tests.support.emulator import Kernel, SimLaunch

CAPACITY = 1 << 16


class SimReport(ctypes.Structure):
    """SimReport of sim_launch.h."""

    _fields_ = [("capacity", ctypes.c_uint32), ("length", ctypes.c_uint32), ("text", ctypes.c_char_p)]


class ReportingKernel(Kernel):
    """As Kernel; ``report`` holds the report of the last launch, None if it failed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.report: dict[str, Any] | None = None
        plain = self._launch

        def traced(reference: Any) -> int:
            launch: SimLaunch = reference._obj
            text = ctypes.create_string_buffer(CAPACITY)
            report = SimReport(CAPACITY, 0, ctypes.cast(text, ctypes.c_char_p))
            launch.report = ctypes.addressof(report)
            status: int = plain(reference)
            assert report.length == len(text.value)
            self.report = json.loads(text.value) if text.value else None
            return status

        self._launch = traced
