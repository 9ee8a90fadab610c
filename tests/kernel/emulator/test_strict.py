"""One broken kernel for each thing strict mode promises to find, and the same kernel correct, which must pass."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.emulator import SIM_BAD_LAUNCH, SIM_FINDING, SIM_HANG, SIM_OK, Gm, Kernel, Result, unwritten

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("strict")

LoadKernel = Callable[[str], Kernel]
COUNT = 256

# kernel -> (finding, where strict mode is needed to find it)
ONE_BLOCK = {
    "UbTooLarge": ("UB_OVERFLOW", False),
    "SecondPipe": ("UB_OVERFLOW", False),
    "BufferCutTooLong": ("UB_BOUNDS", False),
    "RepeatsPastTheEnd": ("UB_BOUNDS", False),
    "TensorTooShort": ("UB_BOUNDS", False),
    "CopyPastTheUbTensor": ("UB_BOUNDS", False),
    "LoadPastTheTensor": ("GM_BOUNDS", False),
    "LoadPastTheAllocation": ("GM_BOUNDS", False),
    "StorePastTheEnd": ("GM_BOUNDS", False),
    "ScalarStorePastTheEnd": ("GM_BOUNDS", False),
    "MisalignedSource": ("MISALIGNED", True),
    "CopyToMisalignedUb": ("MISALIGNED", True),
    "MaskTooLong": ("MASK_RANGE", False),
    "MaskEmpty": ("MASK_RANGE", True),
    "TooManyRepeats": ("REPEAT_RANGE", False),
    "StrideTooLong": ("STRIDE_RANGE", False),
    "BlockStrideOfDestinationZero": ("STRIDE_RANGE", True),
    "OverlapByOneBlock": ("OPERAND_OVERLAP", True),
    "MultiplyAddOntoItsSource": ("OPERAND_OVERLAP", True),
    "TooManyRows": ("COPY_RANGE", False),
    "PaddingTooLong": ("COPY_RANGE", False),
    "CopyOfPartOfABlock": ("COPY_RANGE", False),
    "PaddedCopyIntoVeccalc": ("COPY_POSITION", True),
    "DeadLanesReachTheSum": ("UNWRITTEN_TO_GM", True),
    "PaddingNotWritten": ("UNWRITTEN_TO_GM", True),
    "WorkspaceNotWritten": ("UNWRITTEN_TO_GM", True),
    "RecycledBufferNotRefilled": ("UNWRITTEN_TO_GM", True),
    "BlockWithoutActiveLanes": ("UNWRITTEN_TO_GM", True),
    "RepeatWrapsToZero": ("UNWRITTEN_TO_GM", True),
    "BranchOnUnwrittenUb": ("UNWRITTEN_TO_SCALAR", True),
    "BranchOnUnwrittenGm": ("UNWRITTEN_TO_SCALAR", True),
    "ZeroByZero": ("NAN_FROM_FINITE", True),
    "TwoEnqueuesIntoDepthOne": ("QUEUE_MISUSE", False),
    "NeverFreed": ("QUEUE_MISUSE", False),
    "FreedTwice": ("QUEUE_MISUSE", False),
    "FreedWhileQueued": ("QUEUE_MISUSE", False),
    "TensorOfAnotherQueue": ("QUEUE_MISUSE", False),
    "EnqueuedTwice": ("QUEUE_MISUSE", False),
    "NeverDequeued": ("FLAG_LEFT_SET", False),
    "FlagSetTwice": ("FLAG_SET_TWICE", False),
    "FlagLeftSet": ("FLAG_LEFT_SET", False),
    "FlagOutOfRange": ("FLAG_MISUSE", False),
    "EventIdsExhausted": ("EVENT_ID_EXHAUSTED", False),
    "EventReleasedTwice": ("FLAG_MISUSE", False),
    "ScalarReadsTooEarly": ("MISSING_SYNC_V_S", True),
    "VectorReadsAScalarStoreTooEarly": ("MISSING_SYNC_S_V", True),
    "StoresWhatIsStillLoading": ("MISSING_SYNC_MTE2_MTE3", True),
    "LoadsWhatIsStillStored": ("MISSING_SYNC_MTE3_MTE2", True),
    "ReadsTwoHalvesOfABlock": ("SAME_PIPE_V_V", True),
    "OwnMaskNotSet": ("MASK_STALE", True),
}
HANGS = {"DequeueOfAnEmptyQueue": "QUEUE_MISUSE", "FlagNeverSet": "FLAG_WAIT_UNSET"}


def run(
    kernel: Kernel,
    name: str,
    *,
    broken: bool,
    part: int = 17,
    values: np.ndarray | None = None,
    **options: Any,
) -> tuple[Result, Gm]:
    """Launch one kernel of kernels/broken.cpp; returns the result and the output."""
    source = np.random.default_rng(1).uniform(-1, 1, COUNT).astype(np.float16) if values is None else values
    out = unwritten(COUNT, np.float16)
    tiling = struct.pack("<32sII", name.encode(), int(broken), part)
    workspace = unwritten(1024, np.float32)
    return kernel.run([Gm(source), out], tiling=tiling, workspace=workspace, **options), out


@pytest.mark.parametrize("name", ONE_BLOCK)
def test_finds_the_mistake_and_only_the_mistake(kernel: LoadKernel, name: str) -> None:
    code, needs_strict = ONE_BLOCK[name]
    broken, _ = run(kernel("broken"), name, broken=True)
    assert (broken.status, broken.codes) == (SIM_FINDING, [code]), broken.message
    assert re.fullmatch(rf"{code}: [\w.]+ on core 0: .+ \[broken_\w+\.cpp:\d+\]\n", broken.message), broken.message
    correct, _ = run(kernel("broken"), name, broken=False)
    assert (correct.status, correct.message) == (SIM_OK, "")
    fast, _ = run(kernel("broken"), name, broken=True, strict=False)
    assert (fast.status == SIM_OK) == needs_strict, fast.message


@pytest.mark.parametrize("name", HANGS)
def test_what_would_wait_for_ever_is_a_hang(kernel: LoadKernel, name: str) -> None:
    for strict in (True, False):
        broken, _ = run(kernel("broken"), name, broken=True, strict=strict)
        assert (broken.status, broken.codes) == (SIM_HANG, [HANGS[name]])
    assert run(kernel("broken"), name, broken=False)[0].status == SIM_OK


def test_the_line_named_is_the_caller_s(kernel: LoadKernel) -> None:
    broken, _ = run(kernel("broken"), "MisalignedSource", broken=True)
    found = re.search(r"\[(\S+\.cpp):(\d+)\]", broken.message)
    assert found
    source = kernel("broken").path.with_suffix(".cpp").read_text().splitlines()
    assert "a[bad ? 4 : 8]" in source[int(found[2]) - 1]
    assert "src starts at UB byte 16, not a multiple of 32" in broken.message


def test_findings_name_operand_and_bytes(kernel: LoadKernel) -> None:
    assert "operand dst walks UB bytes [4096, 8448) but its tensor ends at 8192" in (
        run(kernel("broken"), "RepeatsPastTheEnd", broken=True)[0].message
    )
    assert "operand src walks bytes [32, 544) of a GlobalTensor of 512 bytes" in (
        run(kernel("broken"), "LoadPastTheTensor", broken=True)[0].message
    )
    # the four rows are stored as one: the first row's padding is the first thing wrong
    assert "bytes [34, 64) of row 0 (UB [34, 64))" in run(kernel("broken"), "PaddingNotWritten", broken=True)[0].message


def test_a_nan_of_the_caller_is_no_finding(kernel: LoadKernel) -> None:
    """inf - inf is the kernel's NaN only where the kernel made the infinity."""
    values = np.ones(COUNT, np.float16)
    values[3], values[77] = np.inf, np.nan
    result, out = run(kernel("broken"), "PassThrough", broken=False, values=values)
    assert result.status == SIM_OK, result.message
    assert list(np.flatnonzero(np.isnan(out.array))) == [3, 77]


def test_never_written_bytes_are_nan(kernel: LoadKernel) -> None:
    """With checks off the numbers still show it."""
    result, out = run(kernel("broken"), "PaddingNotWritten", broken=True, strict=False)
    assert result.status == SIM_OK
    rows = out.array[:128].reshape(4, 32)
    assert np.isnan(rows[:, 17:]).all() and np.isfinite(rows[:, :17]).all()


CROSS = {
    "WholeBlocksOverNeighbours": ("share a line of 32 bytes", 17, 3),
    "OneElementTooMany": ("overlap", 17, 3),
    "WholeBlockInANeighboursLine": ("share a line of 32 bytes", 17, 2),
    "SameBytesWithoutSyncAll": ("overlap", 32, 2),
    "ScalarStoresToOneLine": ("share a line of 64 bytes", 1, 2),
}


@pytest.mark.parametrize("name", CROSS)
def test_two_cores_on_the_same_bytes(kernel: LoadKernel, name: str) -> None:
    text, part, blocks = CROSS[name]
    messages = set()
    for threads in (1, 2, 5):
        broken, _ = run(kernel("broken"), name, broken=True, part=part, block_dim=blocks, threads=threads)
        assert (broken.status, broken.codes) == (SIM_FINDING, ["CROSS_CORE_WRITE"]), broken.message
        assert text in broken.message
        messages.add(broken.message)
    assert len(messages) == 1
    correct, _ = run(kernel("broken"), name, broken=False, part=part, block_dim=blocks)
    assert (correct.status, correct.message) == (SIM_OK, "")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("ReadsACachedLine", "DCACHE_STALE", "after this core had cached their line"),
        ("ReadsWhatANeighbourWrites", "CROSS_CORE_READ_WRITE", "reads 32 bytes that core 1 writes with DataCopy"),
    ],
)
def test_reads_of_what_another_core_writes(kernel: LoadKernel, name: str, code: str, text: str) -> None:
    messages = set()
    for threads in (1, 2):
        broken, _ = run(kernel("broken"), name, broken=True, block_dim=2, threads=threads)
        assert (broken.status, broken.codes) == (SIM_FINDING, [code]), broken.message
        assert text in broken.message
        messages.add(broken.message)
    assert len(messages) == 1
    correct, _ = run(kernel("broken"), name, broken=False, block_dim=2)
    assert (correct.status, correct.message) == (SIM_OK, "")


def test_a_hazard_names_both_sides(kernel: LoadKernel) -> None:
    message = run(kernel("broken"), "ScalarReadsTooEarly", broken=True)[0].message
    assert re.search(
        r"operand tensor reads UB bytes \[20, 24\), which Duplicate at \S+\.cpp:\d+ writes; no flag", message
    )


def test_byte_exact_neighbours_in_one_line_are_legal(kernel: LoadKernel) -> None:
    result, out = run(kernel("broken"), "OneElementTooMany", broken=False, part=3, block_dim=40)
    assert result.status == SIM_OK, result.message
    np.testing.assert_array_equal(out.array[:120], np.repeat(np.arange(40), 3))
    assert out.shadow.sum() == 240  # bytes written, no more


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_block_that_skips_syncall(kernel: LoadKernel, threads: int) -> None:
    broken, _ = run(kernel("broken"), "OneBlockSkipsSyncAll", broken=True, block_dim=5, threads=threads)
    assert (broken.status, broken.codes) == (SIM_HANG, ["SYNC_DEADLOCK"])
    assert "on core 0 (and 3 more): waits for ever: 1 of 5 blocks ended" in broken.message
    assert run(kernel("broken"), "OneBlockSkipsSyncAll", broken=False, block_dim=5, threads=threads)[0].status == SIM_OK


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_finding_before_syncall_releases_the_others(kernel: LoadKernel, threads: int) -> None:
    broken, _ = run(kernel("broken"), "OneBlockFailsBeforeSyncAll", broken=True, block_dim=5, threads=threads)
    assert (broken.status, broken.codes) == (SIM_FINDING, ["GM_BOUNDS"])
    assert "on core 1:" in broken.message


def test_syncall_needs_all_blocks_resident(kernel: LoadKernel) -> None:
    result, _ = run(kernel("broken"), "OneBlockSkipsSyncAll", broken=False, block_dim=5, cores=4)
    assert (result.status, result.codes) == (SIM_BAD_LAUNCH, ["SYNC_BLOCKS"])
    assert run(kernel("broken"), "FreedTwice", broken=False, block_dim=100, cores=4)[0].status == SIM_OK


def test_syncall_needs_the_mixed_launch(kernel: LoadKernel) -> None:
    subject = kernel("types")
    for key, named in ((1, "at file scope"), (3, "in the entry")):
        result = subject.run([], tiling_key=key, block_dim=3, strict=False)
        assert (result.status, result.codes) == (SIM_HANG, ["SYNC_KERNEL_TYPE"]), named
        assert f"tiling key {key} is KERNEL_TYPE_AIV_ONLY" in result.message
        assert "on core 0 (and 2 more)" in result.message and "[types_" in result.message
    assert subject.run([], tiling_key=2, block_dim=3).status == SIM_OK
    assert subject.run([], tiling_key=4, block_dim=3).status == SIM_OK  # nothing declared: the compiler chooses


def test_exception_in_a_kernel_is_a_finding(kernel: LoadKernel) -> None:
    result, _ = run(kernel("broken"), "ThrowsOnBlockOne", broken=True, block_dim=3)
    assert (result.status, result.codes) == (SIM_FINDING, ["KERNEL_EXCEPTION"])


def test_launches_that_make_no_sense(kernel: LoadKernel) -> None:
    subject = kernel("broken")
    assert run(subject, "FreedTwice", broken=False, abi=2)[0] == Result(SIM_BAD_LAUNCH, "")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"block_dim": 0}, "blockDim is 0"),
        ({"ub_bytes": 0}, "ubSize 0"),
        ({"cores": 0}, "no vector cores"),
    ]
    for options, text in refused:
        result, _ = run(subject, "FreedTwice", broken=False, **options)
        assert result.status == SIM_BAD_LAUNCH and text in result.message
    result = subject.run([Gm(np.zeros(4))], tiling=b"")
    assert result.status == SIM_BAD_LAUNCH and "takes 4 arguments, the launch has 1 tensors" in result.message
    out = unwritten(COUNT, np.float16)
    result = subject.run([Gm(np.zeros(COUNT, np.float16)), out], tiling=b"short")
    assert result.status == SIM_BAD_LAUNCH and "has 40 bytes, the launch carries 5" in result.message
