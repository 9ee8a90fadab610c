"""The split, the largeD path and the masks with one line changed; as test_broken_kernels.py, with the same meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.operator.test_paths import call_of
from tests.support import emulator
from tests.support.attention_cases import AttentionCase, compare, reference_of
from tests.support.operator_kernel import FAST_COMPILE, UB_LIMIT, Force, Operator, Planner, build_operator

NUMBERS = "numbers"

SPLIT = Force(3)
LARGE = Force(1, large=True)
LARGE_SPLIT = Force(2, large=True)

PLAIN = AttentionCase(3, 2, 300, 64, 64)
GAP = AttentionCase(2, 4, 300, 72, 40)  # rows of a partial result have a gap in UB
TILES = AttentionCase(2, 13, 200, 33, 33)  # tiles of 7 and 6 rows
STEPS = AttentionCase(1, 4, 1100, 40, 40)  # three steps of the largeD path, the output in one chunk
CHUNKS = AttentionCase(1, 2, 600, 40, 600)  # two steps, two chunks
TAIL = AttentionCase(4, 70, 300, 32, 24, kv_heads=2, causal=True)
ROOM = AttentionCase(4, 3, 300, 40, 24, lengths=(1000,))


@dataclass(frozen=True)
class Fault:
    """Texts replaced once each in one file ("" is the entry), and what must notice."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    found_by: str
    case: AttentionCase = PLAIN
    force: Force = SPLIT

    @property
    def key(self) -> int:
        """The tiling key of the launch."""
        return 1 + 2 * self.force.large + (self.force.parts > 1)


FAULTS = (
    # ---- the keys of a head split over cores
    Fault("no SyncAll", "", (("AscendC::SyncAll();", ""),), "CROSS_CORE_READ_WRITE"),
    Fault("SyncAll left out by one core", "",
          (("AscendC::SyncAll();", "if (AscendC::GetBlockIdx() == 0) { return; }\n    AscendC::SyncAll();"),),
          "SYNC_DEADLOCK"),
    Fault("partial rows stored without their gap", "load",
          (("(pitch - RoundUp(width, perBlock)) / perBlock;", "0 * pitch;"),), NUMBERS, GAP),
    Fault("denominators taken from behind the last valid row", "split",
          (("stats[qTile * kBlockFloats]", "stats[(0 * qTile + item.rows) * kBlockFloats]"),),
          "UNWRITTEN_TO_GM", TILES),
    Fault("every part weighed as the first", "split",
          (("weight_[part * kBlockFloats]", "weight_[0 * part]"),), NUMBERS),
    Fault("partial results one row too far", "split",
          (("(row * numSplit_ + split) * pitch_", "((row + 1) * numSplit_ + split) * pitch_"),), "GM_BOUNDS"),
    Fault("every core combines the first rows", "split",
          (("first = core * each", "first = 0 * each"),), "CROSS_CORE_WRITE",
          AttentionCase(21, 4, 200, 16, 16)),
    Fault("a key in two parts", "items",
          (("item.split * tiling_->splitLen;", "item.split * (tiling_->splitLen - 1);"),), NUMBERS),
    Fault("no barrier after the weights", "split",
          (("numSplit * kBlockFloats));\n        AscendC::PipeBarrier<PIPE_V>();", "numSplit * kBlockFloats));"),),
          "SAME_PIPE_V_V"),
    Fault("partial result given back too early", "split",
          (("LocalTensor<float> acc = accQue_.template DeQue<float>();",
            "LocalTensor<float> acc = accQue_.template DeQue<float>();\n            accQue_.FreeTensor(acc);"),
           ("AscendC::PipeBarrier<PIPE_V>();\n            accQue_.FreeTensor(acc);",
            "AscendC::PipeBarrier<PIPE_V>();")),
          "MISSING_SYNC_V_MTE2", AttentionCase(1, 1, 900, 16, 512)),
    # ---- largeD
    Fault("flag set after the last step, too", "large", (("if (!last) {", "if (true || !last) {"),),
          "FLAG_LEFT_SET", STEPS, LARGE),
    Fault("flag waited for by every chunk", "large",
          (("LocalTensor<float> load = runQue_",
            "AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);\n        LocalTensor<float> load = runQue_"),),
          "FLAG_WAIT_UNSET", STEPS, LARGE),
    Fault("no flag from a step's store to the next load", "large",
          (("            AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);\n", ""),
           ("            AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);\n", "")),
          "MISSING_SYNC_MTE3_MTE2", STEPS, LARGE),
    Fault("no barrier before a chunk's sums are cleared", "large",
          (("            AscendC::PipeBarrier<PIPE_V>();  // the chunk before", "            // the chunk before"),),
          "SAME_PIPE_V_V", CHUNKS, LARGE),
    Fault("every chunk multiplies the first columns of K", "large",
          (("KeyRow(block) * tiling_->hdK + column", "KeyRow(block) * tiling_->hdK + 0 * column"),),
          NUMBERS, AttentionCase(1, 2, 40, 1040, 40), LARGE),
    Fault("one running output for all cores", "large",
          (("run + AscendC::GetBlockIdx() * floats", "run + 0 * floats"),), "CROSS_CORE_WRITE",
          AttentionCase(2, 4, 1100, 40, 40), LARGE),
    Fault("running output scaled by the first row's factor", "large",
          (("ub_.alphaBlocks[t * kBlockFloats]", "ub_.alphaBlocks[0 * t]"),), NUMBERS, STEPS, LARGE),
    Fault("the same with the keys split", "large",
          (("ub_.alphaBlocks[t * kBlockFloats]", "ub_.alphaBlocks[0 * t]"),), NUMBERS,
          AttentionCase(1, 4, 2200, 40, 40), LARGE_SPLIT),
    # ---- masks and lengths
    Fault("causal mask one key short", "mask", (("% shape.tail.queryLen + 1;", "% shape.tail.queryLen;"),), NUMBERS,
          TAIL, Force(1)),
    Fault("causal mask over 64 columns only", "mask", (("if (rest < used) {", "if (rest > used) {"),), NUMBERS,
          AttentionCase(4, 70, 256, 32, 24, kv_heads=2, causal=True), Force(1)),
    Fault("token taken from the row of the group", "mask",
          (("(shape.tail.firstRow + t) % shape.tail.queryLen", "(shape.tail.firstRow + t)"),), NUMBERS, TAIL, Force(1)),
    Fault("actual length beyond the cache", "items", (("(given > most ? most : given)", "given"),), "GM_BOUNDS", ROOM,
          Force(1)),
    # ---- bfloat16
    Fault("one K row cast for all", "qk", (("columns, Repeats(keys), rows);", "columns, Repeats(1), rows);"),),
          "UNWRITTEN_TO_GM", AttentionCase(2, 2, 70, 40, 40, bf16=True), Force(1)),
    Fault("cast K rows without their gap", "common",
          (("BinaryRepeatParams(1, 0, kWidePitch / kBlockFloats,", "BinaryRepeatParams(1, 0, kRepeatBlocks,"),),
          "UNWRITTEN_TO_GM", AttentionCase(2, 2, 70, 64, 40, bf16=True), Force(1)),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_fault_is_noticed(planner: Planner, tmp_path: Path, fault: Fault) -> None:
    file = f"smallq_flash_attention_{fault.file}.h" if fault.file else "smallq_flash_attention.cpp"
    broken = build_operator(
        planner,
        tmp_path,
        [(file, old, new) for old, new in fault.changes],
        dtype="bfloat16_t" if fault.case.bf16 else "half",
        extra=FAST_COMPILE,
        only_key=fault.key,
    )
    call = call_of(fault.case)
    outcome = broken.call(call, force=fault.force)
    if fault.found_by == NUMBERS:
        assert outcome.status == emulator.SIM_OK, outcome.message
        assert not compare(outcome.output, reference_of(fault.case, (call.q, call.k, call.v))).passed
    else:
        assert outcome.status in (emulator.SIM_FINDING, emulator.SIM_HANG)
        assert fault.found_by in outcome.codes, outcome.message


@pytest.mark.parametrize(
    "fault", {(f.case, f.force): f for f in FAULTS}.values(), ids=lambda fault: f"{fault.case.name}-key{fault.key}"
)
def test_the_same_case_passes_unchanged(operator: Operator, bf16_operator: Operator, fault: Fault) -> None:
    call = call_of(fault.case)
    outcome = (bf16_operator if fault.case.bf16 else operator).call(call, force=fault.force, limit=UB_LIMIT)
    assert (outcome.status, outcome.message) == (emulator.SIM_OK, "")
    assert compare(outcome.output, reference_of(fault.case, (call.q, call.k, call.v))).passed
