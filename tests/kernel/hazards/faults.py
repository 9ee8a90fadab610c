"""The real kernel with an error of order in it, and what must notice: the rows of the design's list of broken variants
that concern pipes, flags, barriers and cores. (Faults of memory, queues and arithmetic: tests/kernel/operator.)

Where a kernel with the change is still right on the hardware, because something else happens to order it, the row says
LEGAL: the emulator must stay silent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import emulator
from tests.support.attention_cases import AttentionCase, compare, make_inputs, reference
from tests.support.operator_kernel import FAST_COMPILE, Force, Outcome, Planner, build_operator

LEGAL = "legal"

BARRIER = "AscendC::PipeBarrier<PIPE_V>();"
WAIT = "AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);"
SET = "AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);"

PLAIN = AttentionCase(3, 2, 130, 64, 64)
LONG = AttentionCase(4, 2, 300, 64, 64)
SHORT = AttentionCase(2, 2, 40, 64, 64)  # one block of keys
STEPS = AttentionCase(2, 2, 1100, 64, 40)  # largeD: three steps, the output in one chunk of columns
CHUNKS = AttentionCase(2, 2, 1100, 64, 600)  # and in two
ONE_CORE: dict[str, Any] = {"cores": 1}
SPLIT: dict[str, Any] = {"cores": 6, "force": Force(parts=2)}
LARGE: dict[str, Any] = {"force": Force(large=True)}
LARGE_ONE_CORE: dict[str, Any] = {**LARGE, **ONE_CORE}

Change = tuple[str, str, str]  # file (short name), text that occurs once, what it becomes


@dataclass(frozen=True)
class Fault:
    """``row`` is that of kernel-validation (d); ``codes`` must all be found, none for LEGAL."""

    row: str
    name: str
    changes: tuple[Change, ...]
    codes: tuple[str, ...] | str
    case: AttentionCase = PLAIN
    key: int = 1
    options: dict[str, Any] = field(default_factory=dict)


def dropped(file: str, before: str, what: str = BARRIER) -> tuple[Change, ...]:
    """``what`` taken out where it follows ``before``."""
    return ((file, before + what, before.rstrip() + "\n"),)


V_V = ("SAME_PIPE_V_V",)
RUN_V = "PvAccumulate::Run(shape_, ub_, v, KeysOf(first + b), b * shape_.columns, tiling_->hdVPad);"
STORE = "StoreRows::Run(oGm_[item.row * tiling_->hdV], stored, item.rows, tiling_->hdV, tiling_->hdVPad, tiling_->hdV);"
SCORE = "Score(q, k, KeysOf(first + b), b * shape_.columns);"
PREPARE = "const auto operand = QkScores<T>::Prepare(ub_, q, item.rows * tiling_->hdKPad);"
SPACE = "\n            "
MIXED = "KERNEL_TYPE_MIX_AIV_1_0"
Q_BARE = (("impl.h", "qQue_.EnQue(qLoad);", ""),
          ("impl.h", "LocalTensor<T> q = qQue_.template DeQue<T>();", "LocalTensor<T> q = qLoad;"))  # fmt: skip

FAULTS = (
    Fault("1", "no barrier between the products of QK",
          dropped("qk.h", "QkProduct(shape.plan.kPitch));\n                }\n                "), V_V),
    Fault("1", "no barrier after the fold", dropped("qk.h", "FoldHalves());\n            "), V_V),
    Fault("1", "no barrier after Exp", dropped("softmax.h", "ForScores(shape, ub, used, Op::Exponential);\n        "),
          V_V),
    Fault("1", "no barrier after a group of PV products",
          dropped("pv.h", "castNow - part), width);\n                "), V_V),
    Fault("2", "no barrier at the start of an item",
          dropped("finish.h", "ResetStats(const TileShape& shape, const Scratch& ub) {\n        "), V_V, LONG,
          options=ONE_CORE),
    Fault("2", "no barrier between the two masks of blocks of four keys",
          dropped("mask.h", "static_cast<uint8_t>(shape.scorePitch / kBlockFloats));\n            "), V_V,
          AttentionCase(2, 4, 77, 64, 64), options={"limit": 12 * 1024}),
    Fault("3", "K freed, and loaded again, before its products",
          (("impl.h", f"{SCORE}{SPACE}kQue_.FreeTensor(k);{SPACE}--loadingK_;",
            f"kQue_.FreeTensor(k); --loadingK_; Pump(); {SCORE}"),), ("MISSING_SYNC_MTE2_V",), LONG),
    Fault("3", "V freed, and loaded again, before its Cast",
          (("impl.h", f"{RUN_V}{SPACE}vQue_.FreeTensor(v);{SPACE}--loadingV_;",
            f"vQue_.FreeTensor(v); --loadingV_; Pump(); {RUN_V}"),), ("MISSING_SYNC_MTE2_V",), LONG),
    Fault("4", "q freed before QK, two items of one block each",
          (("impl.h", PREPARE, PREPARE + " qQue_.FreeTensor(q);"),
           ("impl.h", "qQue_.FreeTensor(q);\n\n", "\n")), ("MISSING_SYNC_V_MTE2",), SHORT, options=ONE_CORE),
    Fault("4", "q freed before QK, more blocks: the loads ahead of the next item order it",
          (("impl.h", PREPARE, PREPARE + " qQue_.FreeTensor(q);"),
           ("impl.h", "qQue_.FreeTensor(q);\n\n", "\n")), LEGAL, PLAIN, options=ONE_CORE),
    Fault("9", "no SyncAll", (("cpp", "    AscendC::SyncAll();\n", ""),),
          ("CROSS_CORE_READ_WRITE", "MISSING_SYNC_MTE3_MTE2"), LONG, 2, SPLIT),
    Fault("10", "SyncAll skipped by one block",
          (("cpp", "    AscendC::SyncAll();",
            "    if (AscendC::GetBlockIdx() != 3) AscendC::SyncAll(); else AscendC::PipeBarrier<PIPE_ALL>();"),),
          ("SYNC_DEADLOCK", "CROSS_CORE_READ_WRITE"), LONG, 2, SPLIT),
    Fault("-", "SyncAll without the mixed launch it needs", (("cpp", f"KERNEL_TASK_TYPE(2, {MIXED});\n", ""),),
          ("SYNC_KERNEL_TYPE",), LONG, 2, SPLIT),
    Fault("-", "no kernel type at all: the compiler chooses the mixed launch",
          (("cpp", "KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);\n", ""),
           ("cpp", f"KERNEL_TASK_TYPE(2, {MIXED});\n", "")), LEGAL, LONG, 2, SPLIT),
    Fault("11", "largeD: steps not ordered by a flag, one chunk of output",
          (("large.h", WAIT, ""), ("large.h", SET, "")), ("MISSING_SYNC_MTE3_MTE2",), STEPS, 3, LARGE),
    Fault("11", "largeD: no flag, two chunks: the output queue orders it",
          (("large.h", WAIT, ""), ("large.h", SET, "")), LEGAL, CHUNKS, 3, LARGE),
    Fault("12", "largeD: flag waited for twice",
          (("large.h", "AddRunning(chunk, width);\n", f"{WAIT} AddRunning(chunk, width);\n"),),
          ("FLAG_WAIT_UNSET",), STEPS, 3, LARGE),
    Fault("12", "largeD: flag set on the last step, too", (("large.h", "if (!last) {", "if (last || true) {"),),
          ("FLAG_LEFT_SET",), STEPS, 3, LARGE),
    Fault("12", "largeD: flag set on the last step, another item follows",
          (("large.h", "if (!last) {", "if (last || true) {"),), ("FLAG_SET_TWICE",), STEPS, 3, LARGE_ONE_CORE),
    Fault("12", "largeD: two cores share one running output",
          (("large.h", "run + AscendC::GetBlockIdx() * floats", "run + 0 * AscendC::GetBlockIdx() * floats"),),
          ("CROSS_CORE_WRITE", "CROSS_CORE_READ_WRITE"), STEPS, 3, LARGE),
    Fault("13", "output not passed through its queue",
          (("impl.h", "outQue_.EnQue(out);\n        LocalTensor<T> stored = outQue_.template DeQue<T>();",
            "LocalTensor<T> stored = out;"),), ("MISSING_SYNC_V_MTE3",)),
    Fault("13", "output freed before its store",
          (("impl.h", f"{STORE}\n        outQue_.FreeTensor(stored);", f"outQue_.FreeTensor(stored); {STORE}"),),
          ("MISSING_SYNC_MTE3_V",), LONG, options=ONE_CORE),
    Fault("14", "K not passed through its queue",
          (("impl.h", "queue.EnQue(block);",
            "if (&src == &kGm_) held_[begun_++ % 2] = block; else queue.EnQue(block);"),
           ("impl.h", "LocalTensor<T> k = kQue_.template DeQue<T>();", "LocalTensor<T> k = held_[used_++ % 2];"),
           ("impl.h", "uint32_t pitch) const {", "uint32_t pitch) {"),
           ("impl.h", "    uint32_t keys_ = 0;",
            "    LocalTensor<T> held_[2];\n    uint32_t begun_ = 0, used_ = 0;\n    uint32_t keys_ = 0;")),
          ("MISSING_SYNC_MTE2_V",)),
    Fault("14", "q not passed through its queue, one item: K's copies come later on the same pipe", Q_BARE, LEGAL),
    Fault("14", "q not passed through its queue, a second item: its first K blocks were loaded before",
          Q_BARE, ("MISSING_SYNC_MTE2_V",), options=ONE_CORE),
    Fault("23", "mask of one lane a row taken from the register after Brcb",
          (("softmax.h", "AscendC::Exp<float>(ub.alpha", "AscendC::Exp<float, false>(ub.alpha"),), ("MASK_STALE",)),
    Fault("-", "one barrier less in the combination of parts",
          dropped("split.h", "BinaryRepeatParams(1, 1, 1, 1, 2, 0));\n        "), V_V, LONG, 2, SPLIT),
    Fault("-", "largeD: no barrier before the sums of the next chunk are cleared",
          (("large.h", f"{BARRIER}  // the chunk before may still read the sums", ""),), V_V, CHUNKS, 3, LARGE),
)  # fmt: skip


def run(planner: Planner, directory: Path, fault: Fault, *, broken: bool = True) -> Outcome:
    """Build the changed (or the unchanged) kernel below ``directory`` and launch the row's case in strict mode."""
    prefix = "smallq_flash_attention"
    changes = [
        (f"{prefix}.{file}" if file == "cpp" else f"{prefix}_{file}", old, new) for file, old, new in fault.changes
    ]
    built = build_operator(planner, directory, changes if broken else [], extra=FAST_COMPILE, only_key=fault.key)
    q, k, v = make_inputs(fault.case)
    return built.run(q, k, v, **fault.options)


def verdict(fault: Fault, outcome: Outcome) -> str:
    """Empty if the emulator said what the row demands, else what is wrong."""
    if fault.codes != LEGAL:
        missing = [code for code in fault.codes if code not in outcome.codes]
        if outcome.status not in (emulator.SIM_FINDING, emulator.SIM_HANG) or missing:
            return f"not caught: {', '.join(missing)}; {outcome.message or 'no finding'}"
        return ""
    if outcome.status != emulator.SIM_OK:
        return f"legal, but: {outcome.message}"
    return "" if compare(outcome.output, reference(*make_inputs(fault.case))).passed else "wrong numbers"
