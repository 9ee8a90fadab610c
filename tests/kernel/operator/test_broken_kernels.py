"""The real kernel with one line changed: the emulator names the fault, or the numbers show it.

Each row is a mistake somebody could make. Where a code is given the launch must fail with exactly that strict check;
NUMBERS means that the hardware would run it without complaint, so only the comparison catches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import emulator
from tests.support.attention_cases import AttentionCase, compare, make_inputs, reference
from tests.support.operator_kernel import FAST_COMPILE, UB_LIMIT, Operator, Planner, build_operator

NUMBERS = "numbers"

PLAIN = AttentionCase(3, 2, 130, 64, 64)
ODD = AttentionCase(3, 2, 65, 17, 17)  # rows of 34 bytes, one key in the last block
SKEWED = AttentionCase(2, 2, 70, 128, 128)  # K rows with a gap block in UB
MANY = AttentionCase(5, 4, 300, 64, 64)
OFFSET = AttentionCase(2, 4, 100, 64, 64, "offset")


@dataclass(frozen=True)
class Fault:
    """Text replaced once in one file, and what must notice."""

    name: str
    file: str
    old: str
    new: str
    found_by: str
    case: AttentionCase = PLAIN
    limit: int = UB_LIMIT
    cores: int = emulator.VECTOR_CORES


FAULTS = (
    # ---- unified buffer
    Fault("queue buffer far too large", "impl", "(qQue_, 1, ub.q)", "(qQue_, 1, 150000)", "UB_OVERFLOW"),
    Fault("score row too short", "buffers", "score_, ub.score)", "score_, ub.score - 128)", "UB_BOUNDS"),
    Fault("operand off by half a block", "qk", "ub.dots[kBlockFloats]", "ub.dots[4]", "MISALIGNED"),
    Fault("gap between rows given in bytes", "load", "(pitch - padded) / perBlock", "(pitch - padded) * 2",
          "UB_BOUNDS", SKEWED),
    Fault("more lanes than a repeat has", "softmax", "ub.stepMax, shape.rows, 1", "ub.stepMax, 65, 1", "MASK_RANGE"),
    Fault("q row taken for four rows", "common", "(1, 0, static_cast<uint8_t>(kPitch",
          "(1, 1, static_cast<uint8_t>(kPitch", "UB_BOUNDS", MANY),
    # ---- global memory
    Fault("one key too many in the last block", "impl", "keys_ - block * shape_.plan.blockK)",
          "keys_ + 1 - block * shape_.plan.blockK)", "UNWRITTEN_TO_GM"),
    Fault("one key too many loaded", "impl", "next.keys = item.keys;", "next.keys = item.keys + 1;", "GM_BOUNDS"),
    Fault("K rows copied in whole blocks", "load", "AscendC::DataCopyPad(dst, src, copy, pad);",
          "AscendC::DataCopy(dst, src, rows * pitch);", "GM_BOUNDS", ODD),
    Fault("output rows one too far", "impl", "oGm_[item.row * tiling_->hdV]",
          "oGm_[(item.row + 1) * tiling_->hdV]", "GM_BOUNDS"),
    Fault("output copied in whole blocks", "load", "AscendC::DataCopyPad(dst, src, copy);",
          "AscendC::DataCopy(dst, src, rows * width / perBlock * perBlock);", "CROSS_CORE_WRITE",
          AttentionCase(3, 1, 65, 17, 17)),
    Fault("every core takes the first items", "items", "first_ = core * tiling->itemsPerCore",
          "first_ = 0 * tiling->itemsPerCore", "CROSS_CORE_WRITE"),
    # ---- bytes nobody wrote that reach the output
    Fault("filler of odd rows left as it is", "load", "pad.isPad = filler > 0;", "pad.isPad = false;",
          "UNWRITTEN_TO_GM", ODD),
    Fault("filler shorter than the row's gap", "load", "static_cast<uint8_t>(filler)", "static_cast<uint8_t>(0)",
          "UNWRITTEN_TO_GM", ODD),
    Fault("rows without a key multiplied by V", "impl", "Run(shape_, ub_, v, KeysOf(first + b)",
          "Run(shape_, ub_, v, RoundUp(KeysOf(first + b), 8)", "UNWRITTEN_TO_GM", ODD),
    Fault("columns without a key not masked", "mask", "if (valid < used) {", "if (valid > used) {",
          "UNWRITTEN_TO_GM"),
    Fault("K rows copied without their gap", "load", "dense ? 0 : (pitch - padded) / perBlock", "0",
          "UNWRITTEN_TO_GM", SKEWED),
    Fault("repeat count of 256", "qk", "Repeats(floats / kRepeatFloats)", "Repeats(0 * floats + 256)",
          "UNWRITTEN_TO_GM"),
    # ---- queues
    Fault("K buffers never given back", "impl", "kQue_.FreeTensor(k);", "", "QUEUE_MISUSE", MANY),
    Fault("one K buffer for two in flight", "impl", "(kQue_, kDepth, ub.k)", "(kQue_, 1, ub.k)", "QUEUE_MISUSE"),
    Fault("queue depth of one", "impl", "VECIN, kDepth> kQue_;", "VECIN, 1> kQue_;", "QUEUE_MISUSE"),
    Fault("result never enqueued", "impl",
          "outQue_.EnQue(out);\n        LocalTensor<T> stored", "LocalTensor<T> stored", "QUEUE_MISUSE"),
    Fault("V buffer given back twice", "impl", "vQue_.FreeTensor(v);", "vQue_.FreeTensor(v); vQue_.FreeTensor(v);",
          "QUEUE_MISUSE"),
    # ---- arithmetic
    Fault("rescaling the wrong way round", "softmax", "ub.difference, ub.rowMaxOld, ub.rowMaxNew",
          "ub.difference, ub.rowMaxNew, ub.rowMaxOld", "NAN_FROM_FINITE"),
    Fault("maximum returned with its index", "softmax", "ORDER_ONLY_VALUE", "ORDER_VALUE_INDEX",
          "NAN_FROM_FINITE", OFFSET),
    Fault("scores not scaled", "softmax", "shape.scale, kRepeatFloats", "1.0f, kRepeatFloats", NUMBERS),
    Fault("earlier sums not rescaled", "impl", "if (first > 0) {", "if (first > 1000000) {", NUMBERS,
          AttentionCase(2, 2, 1023, 64, 64)),
    Fault("dead half of a block of four keys not masked", "mask", "if (shape.plan.blockK < kBlockFloats) {",
          "if (shape.plan.blockK < 4) {", NUMBERS, AttentionCase(2, 4, 77, 64, 64), 12 * 1024),
    Fault("probability of the neighbouring key", "pv", "scorePitch + column]", "scorePitch + 0 * column]", NUMBERS),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_fault_is_noticed(planner: Planner, tmp_path: Path, fault: Fault) -> None:
    file = f"smallq_flash_attention_{fault.file}.h"
    broken = build_operator(planner, tmp_path, [(file, fault.old, fault.new)], extra=FAST_COMPILE, only_key=1)
    q, k, v = make_inputs(fault.case)
    outcome = broken.run(q, k, v, limit=fault.limit, cores=fault.cores)
    if fault.found_by == NUMBERS:
        assert outcome.status == emulator.SIM_OK, outcome.message
        assert not compare(outcome.output, reference(q, k, v)).passed
    else:
        assert outcome.status in (emulator.SIM_FINDING, emulator.SIM_HANG)
        assert fault.found_by in outcome.codes, outcome.message


@pytest.mark.parametrize("fault", {(f.case, f.limit): f for f in FAULTS}.values(), ids=lambda fault: fault.case.name)
def test_the_same_case_passes_unchanged(operator: Operator, fault: Fault) -> None:
    q, k, v = make_inputs(fault.case)
    outcome = operator.run(q, k, v, limit=fault.limit, cores=fault.cores)
    assert (outcome.status, outcome.message) == (emulator.SIM_OK, "")
    assert compare(outcome.output, reference(q, k, v)).passed
