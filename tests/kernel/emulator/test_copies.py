"""DataCopy and DataCopyPad byte by byte: units, gaps, padding, no-ops, and a queue that alternates its buffers."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.emulator import SIM_OK, Gm, Kernel, Result, unwritten

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("copies")

LoadKernel = Callable[[str], Kernel]
IMAGE = 2048  # halfs
PAD_IN, PAD_OUT, BLOCKS_IN, BLOCKS_OUT, RING = 1, 2, 3, 4, 5


def copy(
    kernel: Kernel,
    key: int,
    *,
    count: int,
    length: int = 0,
    src: int = 0,
    dst: int = 0,
    pad: tuple[bool, int, int, float] = (False, 0, 0, 0.0),
    offset: int = 0,
    strict: bool = True,
) -> tuple[Result, npt.NDArray[np.float16], Gm]:
    """Run one copy on 1, 2, 3 ...; returns result, input and output."""
    source = np.arange(1, IMAGE + 1, dtype=np.float16)
    out = unwritten(IMAGE, np.float16)
    tiling = struct.pack("<7IfI", count, length, src, dst, *(int(value) for value in pad[:3]), pad[3], offset)
    return kernel.run([Gm(source), out], tiling=tiling, tiling_key=key, strict=strict), source, out


@pytest.mark.parametrize("columns", [1, 3, 15, 16, 17, 100])
@pytest.mark.parametrize("gap", [0, 1])
def test_padded_load_puts_each_row_on_a_block(kernel: LoadKernel, columns: int, gap: int) -> None:
    """Rows dense in GM, padded with a value to whole blocks in UB, a gap of blocks between them."""
    rows, offset = 5, 7
    right = -columns % 16
    result, source, out = copy(
        kernel("copies"), PAD_IN, count=rows, length=columns * 2, dst=gap, pad=(right > 0, 0, right, 2.5), offset=offset
    )
    assert result.status == SIM_OK, result.message
    pitch = columns + right + gap * 16
    expected = np.full(IMAGE, -1, np.float16)
    for row in range(rows):
        expected[row * pitch :][:columns] = source[offset + row * columns :][:columns]
        expected[row * pitch + columns :][:right] = 2.5
    np.testing.assert_array_equal(out.array, expected)


def test_padded_load_skips_bytes_in_gm_and_pads_on_the_left(kernel: LoadKernel) -> None:
    result, source, out = copy(kernel("copies"), PAD_IN, count=3, length=10, src=6, pad=(True, 4, 7, 9.0))
    assert result.status == SIM_OK, result.message
    expected = np.full(IMAGE, -1, np.float16)
    for row in range(3):
        values = [9] * 4 + list(source[row * 8 : row * 8 + 5]) + [9] * 7
        expected[row * 16 : row * 16 + 16] = values
    np.testing.assert_array_equal(out.array, expected)


@pytest.mark.parametrize("pad", [(False, 0, 0, 0.0), (False, 0, 13, 0.0), (True, 0, 5, 0.0)])
def test_what_no_padding_covers_is_undefined(kernel: LoadKernel, pad: tuple[bool, int, int, float]) -> None:
    """isPad = false writes no padding whatever the counts say; padding need not fill the block."""
    result, _, _ = copy(kernel("copies"), PAD_IN, count=2, length=6, pad=pad)
    assert result.codes == ["UNWRITTEN_TO_GM"]
    result, source, out = copy(kernel("copies"), PAD_IN, count=2, length=6, pad=pad, strict=False)
    assert result.status == SIM_OK
    known = 3 + (pad[2] if pad[0] else 0)
    rows = out.array[:32].reshape(2, 16)
    np.testing.assert_array_equal(rows[:, :3], source[:6].reshape(2, 3))
    assert np.isfinite(rows[:, :known]).all() and np.isnan(rows[:, known:]).all()


@pytest.mark.parametrize("columns", [1, 3, 16, 17, 100])
def test_padded_store_is_exact_to_the_byte(kernel: LoadKernel, columns: int) -> None:
    rows, offset, gap = 4, 5, 6
    result, source, out = copy(
        kernel("copies"), PAD_OUT, count=rows, length=columns * 2, src=1, dst=gap * 2, offset=offset
    )
    assert result.status == SIM_OK, result.message
    expected = unwritten(IMAGE, np.float16).array
    written = np.zeros(IMAGE, bool)
    pitch = -(-columns // 16) * 16 + 16
    for row in range(rows):
        start = offset + row * (columns + gap)
        expected[start : start + columns] = source[row * pitch :][:columns]
        written[start : start + columns] = True
    np.testing.assert_array_equal(out.array.view(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal(out.shadow, np.repeat(written, 2))


@pytest.mark.parametrize("key", [BLOCKS_IN, BLOCKS_OUT])
def test_block_copy_counts_everything_in_blocks(kernel: LoadKernel, key: int) -> None:
    result, source, out = copy(kernel("copies"), key, count=3, length=2, src=1, dst=4, offset=9)
    assert result.status == SIM_OK, result.message
    background = np.float16(-1) if key == BLOCKS_IN else unwritten(1, np.float16).array[0]
    expected = np.full(IMAGE, background)
    from_offset, to_offset = (9, 0) if key == BLOCKS_IN else (0, 9)
    for row in range(3):
        expected[to_offset + row * 96 :][:32] = source[from_offset + row * 48 :][:32]
    np.testing.assert_array_equal(out.array.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize(("count", "length"), [(0, 32), (4, 0)])
def test_empty_copies_do_nothing(kernel: LoadKernel, count: int, length: int) -> None:
    for key in (PAD_IN, BLOCKS_IN):
        result, _, out = copy(kernel("copies"), key, count=count, length=length)
        assert result.status == SIM_OK, result.message
        assert (out.array == -1).all()
    result, _, out = copy(kernel("copies"), PAD_OUT, count=count, length=length)
    assert result.status == SIM_OK and not out.shadow.any()


def test_queue_of_two_buffers(kernel: LoadKernel) -> None:
    result, source, out = copy(kernel("copies"), RING, count=32)
    assert result.status == SIM_OK, result.message
    np.testing.assert_array_equal(out.array, source)
