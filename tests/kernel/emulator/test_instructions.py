"""Every vector instruction of the emulator against numpy: masks, strides, repeats, tails, rounding."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.emulator import SIM_OK, Gm, Kernel

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("instructions")

Array = npt.NDArray[Any]
LoadKernel = Callable[[str], Kernel]
IMAGE = 16384  # bytes of each UB image
BLOCK = 32
BITS, COUNT, ELEMENTS = 0, 1, 2


@dataclass(frozen=True)
class Call:
    """Parameters of one instruction, as the kernel's tiling carries them. Strides: dst, src0, src1."""

    form: int = COUNT
    mask: int = 64
    repeats: int = 1
    blk: tuple[int, int, int] = (1, 1, 1)
    rep: tuple[int, int, int] = (8, 8, 8)
    scalar: float = 0.0
    mode: int = 0

    def tiling(self) -> bytes:
        bits = self.mask if self.form == BITS else 0
        low, high = bits & (2**64 - 1), bits >> 64
        count = self.mask if self.form == COUNT else 0
        elements = self.mask if self.form == ELEMENTS else 0
        return struct.pack(
            "<QQQIiI3I3IfI4x", low, high, count, self.form, elements, self.repeats, *self.blk, *self.rep,
            self.scalar, self.mode,
        )  # fmt: skip

    def repeats_of(self, lanes: int) -> list[Array]:
        """Active lanes of each repeat."""
        if self.form == ELEMENTS:
            return [np.arange(min(lanes, self.mask - start)) for start in range(0, self.mask, lanes)]
        if self.form == COUNT:
            return [np.arange(self.mask)] * self.repeats
        return [np.array([lane for lane in range(lanes) if self.mask >> lane & 1], dtype=int)] * self.repeats


def positions(lanes: Array, repeat: int, size: int, blk: int, rep: int) -> Array:
    """Element indices of ``lanes`` in an operand of elements of ``size`` bytes."""
    per_block = BLOCK // size
    return repeat * rep * per_block + lanes // per_block * blk * per_block + lanes % per_block


def launch(kernel: Kernel, key: int, call: Call, dst: Array, src0: Array, src1: Array) -> Array:
    """The destination's image after the instruction; strict mode must have nothing to say."""
    images = [Gm(np.ascontiguousarray(image).copy()) for image in (dst, src0, src1)]
    result = kernel.run(images, tiling=call.tiling(), tiling_key=key)
    assert result.status == SIM_OK, (call, result.message)
    return images[0].array


def image(dtype: npt.DTypeLike, seed: int, low: float = -4, high: float = 4) -> Array:
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, IMAGE // np.dtype(dtype).itemsize).astype(dtype)


def calls(lanes: int) -> list[Call]:
    """Iteration shapes every elementwise instruction must get right."""
    some_bits = 0x8421F00D_0BADCAFE_13579BDF_2468ACE0 & (2**lanes - 1)
    return [
        Call(mask=lanes, repeats=3),
        Call(mask=37, repeats=2, blk=(2, 1, 0), rep=(16, 8, 0)),
        Call(form=BITS, mask=some_bits, repeats=5, blk=(1, 2, 1), rep=(8, 16, 4)),
        Call(mask=lanes, repeats=9, blk=(1, 0, 1), rep=(8, 1, 8)),
        Call(form=ELEMENTS, mask=777),
        Call(form=ELEMENTS, mask=5),
        Call(mask=lanes, repeats=0),
    ]


Function = Callable[..., Array]
BINARY: dict[int, Function] = {
    0: np.add,
    1: np.subtract,
    2: np.multiply,
    3: np.divide,
    4: np.maximum,
    5: np.minimum,
}
SCALAR: dict[int, Function] = {10: np.add, 11: np.multiply, 12: np.maximum, 13: np.minimum}
DTYPES = {1000: np.float32, 2000: np.float16}


def elementwise(
    call: Call, function: Function, dst: Array, sources: list[Array], lanes: int, accumulate: bool = False
) -> Array:
    """What the instruction leaves in ``dst``: fp32 arithmetic lane by lane, repeat after repeat."""
    result = dst.copy()
    for repeat, active in enumerate(call.repeats_of(lanes)):
        blk, rep = (call.blk, call.rep) if call.form != ELEMENTS else ((1, 1, 1), None)
        strides = rep or tuple(lanes * array.itemsize // BLOCK for array in (dst, *sources, dst))
        values = [
            source[positions(active, repeat, source.itemsize, blk[i + 1], strides[i + 1])].astype(np.float32)
            for i, source in enumerate(sources)
        ]
        to = positions(active, repeat, dst.itemsize, blk[0], strides[0])
        value = function(*values)
        result[to] = (value + result[to].astype(np.float32) if accumulate else value).astype(dst.dtype)
    return result


@pytest.mark.parametrize("base", DTYPES)
@pytest.mark.parametrize("op", BINARY)
def test_binary(kernel: LoadKernel, base: int, op: int) -> None:
    dtype = np.dtype(DTYPES[base])
    lanes = 256 // dtype.itemsize
    dst, src0, src1 = image(dtype, 1), image(dtype, 2), image(dtype, 3, 0.5, 4)
    for call in calls(lanes):
        got = launch(kernel("instructions"), base + op, call, dst, src0, src1)
        np.testing.assert_array_equal(got, elementwise(call, BINARY[op], dst, [src0, src1], lanes), str(call))


@pytest.mark.parametrize("base", DTYPES)
@pytest.mark.parametrize("op", SCALAR)
def test_scalar(kernel: LoadKernel, base: int, op: int) -> None:
    dtype = np.dtype(DTYPES[base])
    lanes = 256 // dtype.itemsize
    dst, src = image(dtype, 1), image(dtype, 2)
    scalar = np.float32(dtype.type(0.7))
    for call in calls(lanes):
        got = launch(kernel("instructions"), base + op, replace(call, scalar=0.7), dst, src, src)
        expected = elementwise(call, lambda a: SCALAR[op](a, scalar), dst, [src], lanes)
        np.testing.assert_array_equal(got, expected, str(call))


@pytest.mark.parametrize("base", DTYPES)
@pytest.mark.parametrize(("op", "function"), [(20, np.exp), (21, np.log), (22, np.abs)])
def test_unary(kernel: LoadKernel, base: int, op: int, function: Function) -> None:
    dtype = np.dtype(DTYPES[base])
    lanes = 256 // dtype.itemsize
    dst = image(dtype, 1)
    src = image(dtype, 2, 0.1, 8) if op == 21 else image(dtype, 2)
    for call in calls(lanes):
        got = launch(kernel("instructions"), base + op, call, dst, src, src)
        expected = elementwise(call, function, dst, [src], lanes)
        np.testing.assert_allclose(got, expected, rtol=2e-7 if base == 1000 else 1e-3, err_msg=str(call))


def test_exp_of_large_negative_numbers_is_zero(kernel: LoadKernel) -> None:
    src = np.full(IMAGE // 4, -1e30, np.float32)
    got = launch(kernel("instructions"), 1020, Call(), image(np.float32, 1), src, src)
    assert not got[:64].any()


@pytest.mark.parametrize(
    ("key", "to", "source", "lanes"),
    [
        (1006, np.float32, np.float32, 64),
        (2006, np.float16, np.float16, 128),
        (3000, np.float32, np.float16, 64),
    ],
)
def test_multiply_add(kernel: LoadKernel, key: int, to: type, source: type, lanes: int) -> None:
    dst, src0, src1 = image(to, 1), image(source, 2), image(source, 3)
    for call in calls(lanes):
        if call.blk[0] == 2 and key == 3000:
            call = replace(call, rep=(16, 4, 0))
        got = launch(kernel("instructions"), key, call, dst, src0, src1)
        expected = elementwise(call, np.multiply, dst, [src0, src1], lanes, accumulate=True)
        np.testing.assert_array_equal(got, expected, str(call))


def test_qk_form_of_multiply_add(kernel: LoadKernel) -> None:
    """The attention kernel's dot products: 4 rows x 16 columns a repeat, q broadcast, K rows at pitch 144."""
    q, k = image(np.float16, 1), image(np.float16, 2)
    pitch, rows = 144, 16
    call = Call(mask=64, repeats=rows // 4, blk=(1, 0, pitch // 16), rep=(8, 0, pitch // 4))
    got = launch(kernel("instructions"), 3000, call, np.zeros(IMAGE // 4, np.float32), q, k)
    products = k[: rows * pitch].reshape(rows, pitch)[:, :16].astype(np.float32) * q[:16].astype(np.float32)
    np.testing.assert_array_equal(got[: rows * 16].reshape(rows, 16), products)


def test_repeat_that_reads_what_the_last_one_wrote_accumulates(kernel: LoadKernel) -> None:
    """dst, src1 repeat stride 0 walks one row over many: documented for dst == src1, here with a MulAddDst row."""
    ones = np.ones(IMAGE // 4, np.float32)
    src = image(np.float32, 2)
    call = Call(mask=64, repeats=20, rep=(0, 8, 8))
    got = launch(kernel("instructions"), 1006, call, np.zeros_like(ones), src, ones)
    expected = np.zeros(64, np.float32)
    for row in src[: 20 * 64].reshape(20, 64):
        expected = (expected + row).astype(np.float32)
    np.testing.assert_array_equal(got[:64], expected)


def tree(values: Array, dtype: np.dtype[Any]) -> Array:
    while values.shape[-1] > 1:
        values = (values[..., 0::2] + values[..., 1::2]).astype(dtype).astype(np.float32)
    return values[..., 0]


@pytest.mark.parametrize("base", DTYPES)
@pytest.mark.parametrize("op", [30, 31, 32])
def test_block_reductions(kernel: LoadKernel, base: int, op: int) -> None:
    """repeat before mask; 8 results a repeat; sums as a tree of neighbours."""
    dtype = np.dtype(DTYPES[base])
    lanes, per_block = 256 // dtype.itemsize, BLOCK // dtype.itemsize
    dst, src = image(dtype, 1), image(dtype, 2)
    every_other = sum(1 << lane for lane in range(0, lanes, 2))
    for call in [
        Call(mask=lanes, repeats=4),
        Call(mask=lanes, repeats=3, blk=(1, 2, 1), rep=(2, 16, 0)),
        Call(form=BITS, mask=every_other, repeats=2),
    ]:
        call = replace(call, rep=(1 if call.rep[0] == 8 else call.rep[0], call.rep[1], 0))
        got = launch(kernel("instructions"), base + op, call, dst, src, src)
        expected = dst.copy()
        for repeat, active in enumerate(call.repeats_of(lanes)):
            every = positions(np.arange(lanes), repeat, dtype.itemsize, call.blk[1], call.rep[1])
            values = src[every].astype(np.float32)
            dead = np.setdiff1d(np.arange(lanes), active)
            values[dead] = {30: 0, 31: -np.inf, 32: np.inf}[op]
            rows = values.reshape(8, per_block)
            results = {30: tree(rows, dtype), 31: rows.max(1), 32: rows.min(1)}[op]
            expected[repeat * call.rep[0] * 8 :][:8] = results.astype(dtype)
        np.testing.assert_array_equal(got, expected, str(call))


@pytest.mark.parametrize("base", DTYPES)
@pytest.mark.parametrize("mask", [1, 8, 37, 64])
def test_whole_sum(kernel: LoadKernel, base: int, mask: int) -> None:
    """mask before repeat; one result a repeat, dstRepStride in elements."""
    dtype = np.dtype(DTYPES[base])
    lanes = 256 // dtype.itemsize
    dst, src = image(dtype, 1), image(dtype, 2)
    call = Call(mask=mask, repeats=5, rep=(3, 8, 0))
    got = launch(kernel("instructions"), base + 33, call, dst, src, src)
    expected = dst.copy()
    for repeat in range(5):
        values = np.zeros(lanes, np.float32)
        values[:mask] = src[repeat * lanes :][:mask]
        expected[repeat * 3] = tree(values, dtype)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("op", [34, 35])
def test_whole_extreme_orders(kernel: LoadKernel, op: int) -> None:
    """Value and index, index and value, only the value, only the index; the first of equals counts."""
    src = np.random.default_rng(5).integers(-20, 20, IMAGE // 4).astype(np.float32)
    zeros = np.zeros(IMAGE // 4, np.float32)
    rows = src[: 4 * 64].reshape(4, 64)[:, :50]
    value = rows.max(1) if op == 34 else rows.min(1)
    index = (rows.argmax(1) if op == 34 else rows.argmin(1)).astype(np.uint32).view(np.float32)
    for mode, columns in enumerate([(value, index), (index, value), (value,), (index,)]):
        call = Call(mask=50, repeats=4, rep=(1, 8, 0), mode=mode)
        got = launch(kernel("instructions"), 1000 + op, call, zeros, src, src)
        expected = np.stack(columns, 1).reshape(-1)
        np.testing.assert_array_equal(got[: len(expected)].view(np.uint32), expected.view(np.uint32))
        assert not got[len(expected) :].view(np.uint32).any()


def test_whole_maximum_of_half_keeps_index_in_16_bits(kernel: LoadKernel) -> None:
    src = np.zeros(IMAGE // 2, np.float16)
    src[100] = 7
    got = launch(kernel("instructions"), 2034, Call(mask=128, rep=(1, 8, 0)), image(np.float16, 1), src, src)
    assert (got[0], got.view(np.uint16)[1]) == (7, 100)


@pytest.mark.parametrize("base", DTYPES)
def test_duplicate(kernel: LoadKernel, base: int) -> None:
    dtype = np.dtype(DTYPES[base])
    lanes = 256 // dtype.itemsize
    dst = image(dtype, 1)
    for call in calls(lanes):
        call = replace(call, scalar=2.5)
        got = launch(kernel("instructions"), base + 40, call, dst, dst, dst)
        expected = elementwise(call, lambda: np.float32(2.5), dst, [], lanes)
        np.testing.assert_array_equal(got, expected, str(call))


@pytest.mark.parametrize("base", DTYPES)
def test_brcb(kernel: LoadKernel, base: int) -> None:
    dtype = np.dtype(DTYPES[base])
    per_block = BLOCK // dtype.itemsize
    dst, src = image(dtype, 1), image(dtype, 2)
    for blk, rep in [(1, 8), (2, 24)]:
        got = launch(
            kernel("instructions"), base + 41, Call(repeats=3, blk=(blk, 1, 1), rep=(rep, 0, 0)), dst, src, src
        )
        expected = dst.copy()
        for repeat in range(3):
            for block in range(8):
                start = (repeat * rep + block * blk) * per_block
                expected[start : start + per_block] = src[repeat * 8 + block]
        np.testing.assert_array_equal(got, expected)


def test_cast_up_is_exact_for_every_half(kernel: LoadKernel) -> None:
    every = np.arange(0x10000, dtype=np.uint16)
    finite = every[np.isfinite(every.view(np.float16))]
    for start in range(0, len(finite), 4096):
        src = np.resize(finite[start : start + 4096], IMAGE // 2)
        got = launch(kernel("instructions"), 3001, Call(ELEMENTS, 4096), np.zeros(IMAGE // 4, np.float32), src, src)
        np.testing.assert_array_equal(got, src[:4096].view(np.float16).astype(np.float32))
        assert np.array_equal(np.signbit(got), np.signbit(src[:4096].view(np.float16)))


def hard_floats() -> Array:
    """fp32 numbers at, and one ulp around, fp16 values and the middles between them; subnormals; overflow."""
    halves = np.arange(0, 0x7C00, 7, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.int32)
    around = (halves[:, None] + np.array([-1, 0, 1, 4095, 4096, 4097])).clip(0).astype(np.int32).reshape(-1)
    values = np.concatenate(
        [around.view(np.float32), np.array([65504, 65519.99, 65520, 65536, 1e30, 2**-25, 1e-30], np.float32)]
    )
    return np.concatenate([values, -values]).astype(np.float32)


def round_reference(values: Array, mode: int) -> Array:
    """fp16 by definition: the nearest representable number in the direction the mode asks for."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float16)
    if mode in (0, 1):
        return nearest
    wide, back = values.astype(np.float64), nearest.astype(np.float64)
    with np.errstate(over="ignore"):
        down = np.where(back > wide, np.nextafter(nearest, np.float16(-np.inf)), nearest)
        up = np.where(down.astype(np.float64) < wide, np.nextafter(down, np.float16(np.inf)), down)
    zero = np.where(values < 0, up, down)
    away = np.where(values < 0, down, up)
    if mode == 4:
        middle = (down.astype(np.float64) + up.astype(np.float64)) / 2
        return np.where(wide == middle, away, nearest)
    if mode == 6:
        return np.where(zero.view(np.uint16) & 1 == 1, zero, away)
    return {2: down, 3: up, 5: zero}[mode]


@pytest.mark.parametrize("mode", range(7))
def test_cast_down_rounds_as_asked(kernel: LoadKernel, mode: int) -> None:
    values = hard_floats()
    for start in range(0, len(values), 4096):
        part = values[start : start + 4096]
        src = np.resize(part, IMAGE // 4)
        got = launch(
            kernel("instructions"),
            3002,
            Call(ELEMENTS, len(part), mode=mode),
            np.zeros(IMAGE // 2, np.float16),
            src,
            src,
        )
        np.testing.assert_array_equal(got[: len(part)].view(np.uint16), round_reference(part, mode).view(np.uint16))


def test_cast_with_masks_and_strides(kernel: LoadKernel) -> None:
    dst, src = image(np.float16, 1), image(np.float32, 2)
    for call in [
        Call(mask=64, repeats=3, rep=(4, 8, 0), mode=1),
        Call(mask=21, repeats=2, blk=(2, 1, 0), rep=(8, 16, 0), mode=1),
        Call(form=BITS, mask=0x00FF_F0F0_1234_5678, repeats=2, rep=(4, 8, 0), mode=1),
    ]:
        got = launch(kernel("instructions"), 3002, call, dst, src, src)
        np.testing.assert_array_equal(got, elementwise(call, lambda a: a, dst, [src], 64), str(call))


def test_mask_register_is_used_when_the_call_does_not_set_it(kernel: LoadKernel) -> None:
    mask = 0x0F0F_0000_FFFF_0001
    dst, src = image(np.float32, 1), image(np.float32, 2)
    got = launch(kernel("instructions"), 3003, Call(BITS, mask, 2, scalar=1.5), dst, src, src)
    expected = elementwise(Call(BITS, mask, 2), lambda a: a + np.float32(1.5), dst, [src], 64)
    np.testing.assert_array_equal(got, expected)
