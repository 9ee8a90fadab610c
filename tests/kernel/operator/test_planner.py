"""The tile planner against an independent statement of the layout and of the order of preference."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.operator_kernel import UB_LIMIT, Force, Plan, Planner, TilingData, tiling_fields


def up(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass(frozen=True)
class Tile:
    """A plan in the words of the kernel design: T, BK, G, R, CV, qg."""

    t: int
    bk: int
    g: int
    r: int
    cv: int
    qg: int


def ub_bytes(head_dim: int, head_dim_v: int, tile: Tile, wide: bool = False) -> int:
    """The sum of all UB buffers, written down from the layout table and not from the code."""
    padded, pv = up(head_dim, 16), up(head_dim_v, 16)
    pitch = padded + (16 if padded % 128 == 0 else 0)
    columns = max(tile.bk, 8)
    score = up(tile.g * columns, 64)
    cast = tile.cv * pv * 4
    parts = (
        2 * tile.bk * pitch * 2,
        2 * tile.bk * pv * 2,
        tile.t * padded * 2,
        tile.qg * up(tile.bk, 8) * (32 if wide else 64),
        tile.t * score * 4,
        tile.t * columns * 32,
        up(max(cast - 256, 0), 512) + 256,  # 256 bytes modulo 512, so that the next buffer starts in other banks
        tile.t * tile.r * pv * 4,
        tile.t * (pv * 4 + 64),
        (tile.t * padded * 4 + columns * 288) if wide else 0,  # q as fp32; 64 columns of K at a pitch of 72
        tile.t * 256 + 256,
        7 * max(32, 4 * up(tile.t, 8)),
        3 * 32 * up(tile.t, 8),
    )
    return sum(up(part, 32) for part in parts)


def preferred(head_dim: int, head_dim_v: int, q_len: int, kv_len: int, limit: int, wide: bool = False) -> Tile | None:
    """Walks the candidates in the documented order and takes the first that fits."""
    pv = up(head_dim_v, 16)
    tiles = [-(-q_len // -(-q_len // 8))]
    while tiles[-1] > 1:
        tiles.append(-(-tiles[-1] // 2))
    caps = ((32768, 32768, 512, 256), (16384, 16384, 256, 128), (8192, 8192, 128, 64), (0, 0, 64, 64))
    for blocks in ((64, 32, 16), (64, 32, 16, 8, 4)):
        for t in tiles:
            for accumulator, cast, few, many in caps:
                for bk in blocks:
                    fits = [
                        r for r in (1, 2, 4, 8, 16, 32, 64) if r <= bk and r * t <= 64 and t * r * pv * 4 <= accumulator
                    ]
                    r = max(fits, default=1)
                    cv = next((c for c in (64, 32, 16, 8, 4, 2, 1) if r <= c <= bk and c * pv * 4 <= cast), r)
                    qg = t
                    while qg > 1 and qg * up(bk, 8) * 64 > 16384:
                        qg = -(-qg // 2)
                    columns = max(bk, 8)
                    g = max(1, min((few if t <= 4 else many) // columns, -(-kv_len // columns)))
                    tile = Tile(t, bk, g, r, cv, qg)
                    if ub_bytes(head_dim, head_dim_v, tile, wide) <= limit:
                        return tile
    return None


def as_tile(plan: Plan) -> Tile:
    names = ("qTile", "blockK", "stepBlocks", "partRows", "castRows", "qGroup")
    return Tile(*(plan.tiles[name] for name in names))


# head sizes, q_len -> T, BK, G, R, CV, qg, K pitch, UB bytes for a long kv_len: the worked table of the kernel design.
# Its UB column counts the V cast buffer without the 256 bytes that move the accumulator to other banks; they are added
# here, and they change the plan of 1008/1008 with 4 rows.
WORKED = {
    (64, 64, 1): (1, 64, 8, 64, 64, 1, 64, 75680 + 256),
    (64, 64, 4): (4, 64, 8, 16, 64, 4, 64, 102368 + 256),
    (64, 64, 8): (8, 64, 4, 8, 64, 4, 64, 113376 + 256),
    (128, 128, 1): (1, 64, 8, 64, 64, 1, 144, 145696 + 256),
    (128, 128, 4): (4, 64, 8, 16, 64, 4, 144, 173536 + 256),
    (128, 128, 8): (8, 64, 4, 8, 64, 4, 144, 186080 + 256),
    (192, 128, 1): (1, 64, 8, 64, 64, 1, 192, 158112 + 256),
    (192, 128, 4): (4, 64, 8, 16, 64, 4, 192, 186336 + 256),
    (192, 128, 8): (8, 32, 8, 8, 32, 8, 192, 133856 + 256),
    (192, 192, 1): (1, 64, 8, 32, 32, 1, 192, 158368 + 256),
    (192, 192, 4): (4, 64, 8, 8, 32, 4, 192, 187360 + 256),
    (192, 192, 8): (8, 32, 8, 4, 32, 8, 192, 144096 + 256),
    (256, 256, 1): (1, 32, 16, 32, 32, 1, 272, 141344 + 256),
    (256, 256, 4): (4, 32, 16, 8, 32, 4, 272, 162272 + 256),
    (256, 256, 8): (8, 32, 8, 4, 32, 8, 272, 181984 + 256),
    (512, 512, 1): (1, 16, 32, 16, 16, 1, 528, 140320 + 256),
    (512, 512, 4): (4, 16, 32, 4, 16, 4, 528, 161248 + 256),
    (512, 512, 8): (8, 16, 16, 2, 16, 8, 528, 180960 + 256),
    (576, 512, 1): (1, 16, 32, 16, 16, 1, 576, 143520 + 256),
    (576, 512, 4): (4, 16, 32, 4, 16, 4, 576, 164832 + 256),
    (576, 512, 8): (8, 16, 16, 2, 16, 8, 576, 185056 + 256),
    (1008, 1008, 1): (1, 16, 16, 4, 4, 1, 1008, 171456),
    (1008, 1008, 4): (4, 16, 4, 1, 1, 4, 1008, 183392),
    (1008, 1008, 8): (4, 16, 4, 1, 1, 4, 1008, 183392),
    (1, 1, 1): (1, 64, 8, 64, 64, 1, 16, 26240 + 256),
    (3, 3, 8): (8, 64, 4, 8, 64, 4, 16, 61920 + 256),
    (17, 17, 4): (4, 64, 8, 16, 64, 4, 32, 68832 + 256),
    (100, 100, 8): (8, 64, 4, 8, 64, 4, 112, 164832 + 256),
}


@pytest.mark.parametrize("shape", WORKED, ids=str)
def test_worked_table(planner: Planner, shape: tuple[int, int, int]) -> None:
    head_dim, head_dim_v, q_len = shape
    plan = planner.plan(head_dim, head_dim_v, q_len, 16384)
    assert plan is not None
    tile = as_tile(plan)
    assert (*vars(tile).values(), plan.tiles["kPitch"], plan.ub_bytes) == WORKED[shape]


def test_kv_len_only_lowers_the_step(planner: Planner) -> None:
    totals = {}
    for kv_len in (1, 64, 65, 128, 193, 16384):
        plan = planner.plan(128, 128, 8, kv_len)
        assert plan is not None
        totals[kv_len] = plan.ub_bytes - 256
    assert totals == {1: 179936, 64: 179936, 65: 181984, 128: 181984, 193: 186080, 16384: 186080}


@pytest.mark.parametrize(
    ("head_dim", "q_len", "limit", "block", "rows"),
    [
        (128, 1, 128 * 1024, 32, 1),
        (128, 1, 64 * 1024, 16, 1),
        (128, 1, 16 * 1024, 4, 1),
        (512, 1, 64 * 1024, 4, 1),
        (64, 4, 12 * 1024, 4, 4),  # the second pass starts again with the largest q tile
    ],
)
def test_small_limits_halve_the_block(
    planner: Planner, head_dim: int, q_len: int, limit: int, block: int, rows: int
) -> None:
    plan = planner.plan(head_dim, head_dim, q_len, 16384, limit)
    assert plan is not None
    assert (plan.tiles["blockK"], plan.tiles["qTile"]) == (block, rows)
    assert plan.ub_bytes <= limit


def test_no_plan_where_nothing_fits(planner: Planner) -> None:
    assert planner.plan(512, 512, 1, 16384, 24 * 1024) is None
    assert planner.plan(1009, 64, 1, 64) is None
    assert planner.plan(64, 1025, 1, 64) is None
    assert planner.plan(0, 64, 1, 64) is None


@settings(max_examples=400, deadline=None)
@given(
    head_dim=st.integers(1, 1008),
    head_dim_v=st.integers(1, 1024),
    q_len=st.integers(1, 40),
    kv_len=st.one_of(st.integers(1, 1024), st.integers(1, 2**31 - 1)),
    limit=st.one_of(st.just(UB_LIMIT), st.integers(8 * 1024, UB_LIMIT)),
    wide=st.booleans(),
)
def test_plan_is_the_preferred_one(
    planner: Planner, head_dim: int, head_dim_v: int, q_len: int, kv_len: int, limit: int, wide: bool
) -> None:
    plan = planner.plan(head_dim, head_dim_v, q_len, kv_len, limit, wide=wide)
    expected = preferred(head_dim, head_dim_v, q_len, kv_len, limit, wide)
    assert (as_tile(plan) if plan else None) == expected
    if plan is not None and expected is not None:
        assert plan.ub_bytes == ub_bytes(head_dim, head_dim_v, expected, wide) <= limit


def test_every_supported_head_size_fits_the_device(planner: Planner) -> None:
    for head_dim in (*range(1, 1008, 31), 1008):
        for head_dim_v in (*range(1, 1024, 33), 1024):
            for q_len in (1, 4, 8, 13):
                assert planner.plan(head_dim, head_dim_v, q_len, 16384) is not None


def test_instruction_limits(planner: Planner) -> None:
    """Repeat counts and strides travel in 8 bits: every plan must stay below 256."""
    for head_dim in (1, 16, 100, 128, 192, 256, 512, 896, 1008):
        for head_dim_v in (1, 17, 64, 128, 512, 1024):
            for q_len in range(1, 9):
                for limit in (UB_LIMIT, 64 * 1024, 24 * 1024):
                    plan = planner.plan(head_dim, head_dim_v, q_len, 4096, limit)
                    if plan is None:
                        continue
                    tiles = plan.tiles
                    pitch = up(tiles["stepBlocks"] * max(tiles["blockK"], 8), 64)
                    counts = (
                        tiles["qGroup"] * up(tiles["blockK"], 8) * 16 // 64,  # clearing the dot products
                        tiles["qTile"] * pitch // 64,  # scores of a step
                        -(-tiles["partRows"] * tiles["hdVPad"] // 64),  # rescaling
                        tiles["kPitch"] // 4,  # stride of four K rows
                        tiles["hdVPad"] // 8,  # stride of one V row
                        pitch // 8,  # stride of one score row
                    )
                    assert max(counts) <= 255, (head_dim, head_dim_v, q_len, limit, counts)


@given(items=st.integers(1, 2**37), cores=st.integers(1, 48))
def test_work_is_dealt_evenly(planner: Planner, items: int, cores: int) -> None:
    split = planner.split(items, cores)
    if split is None:
        assert items // cores >= 2**32 - 1
        return
    used, per_core, tail = split
    assert used == min(items, cores)
    assert used * per_core + tail == items
    assert 0 <= tail < used


def test_tiling_struct_has_no_padding() -> None:
    """4-byte fields first, an even number of them: both compilers lay it out without holes."""
    sizes = {"uint32_t": 4, "float": 4, "uint64_t": 8}
    assert sum(sizes[kind] for kind, _ in tiling_fields()) == 128
    names = [kind for kind, _ in tiling_fields()]
    assert names == sorted(names, key=lambda kind: sizes[kind])
    assert ctypes.sizeof(TilingData) == 128


# ---- the largeD path, bfloat16, the split


def large_bytes(head_dim: int, head_dim_v: int, t: int, bk: int, chunk: int, g: int, wide: bool) -> int:
    """The sum of all UB buffers of the largeD path, written down from the layout table."""
    ck, cv = min(up(head_dim, 16), chunk), min(up(head_dim_v, 16), chunk)
    pitch = ck + (16 if ck % 128 == 0 else 0)
    columns = max(bk, 8)
    parts = (
        2 * (bk * pitch + t * ck) * 2,  # K block with the q chunk behind it
        2 * bk * cv * 2,
        t * columns * (32 if wide else 64),
        t * up(g * columns, 64) * 4,
        t * columns * 32,
        up(max(bk * cv * 4 - 256, 0), 512) + 256,
        t * 2 * cv * 4,
        t * (cv * 4 + 64),
        t * cv * 4,
        (t * ck * 4 + columns * 288) if wide else 0,
        t * 256 + 256,
        7 * max(32, 4 * up(t, 8)),
        3 * 32 * up(t, 8),
    )
    return sum(up(part, 32) for part in parts)


def test_large_plan_of_the_design(planner: Planner) -> None:
    """T 4, BK 16, G 32, R 2, CV 16, chunks of 512, K pitch 528; one figure for every head size."""
    for head_dim, head_dim_v in ((1040, 2048), (4096, 1100), (1048575, 1048575)):
        plan = planner.plan(head_dim, head_dim_v, 8, 16384, large=True)
        assert plan is not None
        assert as_tile(plan) == Tile(4, 16, 32, 2, 16, 4)
        assert (plan.tiles["hdKPad"], plan.tiles["hdVPad"], plan.tiles["kPitch"]) == (512, 512, 528)
        assert plan.ub_bytes == 157152 + 256 == large_bytes(head_dim, head_dim_v, 4, 16, 512, 32, False)


@settings(max_examples=200, deadline=None)
@given(
    head_dim=st.integers(1, 5000),
    head_dim_v=st.integers(1, 5000),
    q_len=st.integers(1, 40),
    kv_len=st.integers(1, 20000),
    limit=st.integers(8 * 1024, UB_LIMIT),
    wide=st.booleans(),
)
def test_large_plan_is_the_preferred_one(
    planner: Planner, head_dim: int, head_dim_v: int, q_len: int, kv_len: int, limit: int, wide: bool
) -> None:
    plan = planner.plan(head_dim, head_dim_v, q_len, kv_len, limit, large=True, wide=wide)
    tiles = [-(-q_len // -(-q_len // 4))]
    while tiles[-1] > 1:
        tiles.append(-(-tiles[-1] // 2))
    for bk in (16, 8, 4):
        for t in tiles:
            for chunk in (512, 256, 128, 64):
                g = max(1, min(chunk // max(bk, 8), -(-kv_len // max(bk, 8))))
                size = large_bytes(head_dim, head_dim_v, t, bk, chunk, g, wide)
                if size <= limit:
                    assert plan is not None
                    assert (plan.tiles["blockK"], plan.tiles["qTile"]) == (bk, t)
                    assert plan.tiles["hdKPad"] == min(up(head_dim, 16), chunk)
                    assert plan.tiles["stepBlocks"] == g
                    assert plan.ub_bytes == size
                    return
    assert plan is None


@pytest.mark.parametrize("wide", [False, True])
def test_16_kib_are_enough_for_any_head_size(planner: Planner, wide: bool) -> None:
    for head_dim in (1, 17, 64, 1000, 4096):
        for q_len in (1, 3, 8, 130):
            assert planner.plan(head_dim, head_dim, q_len, 16384, 16 * 1024, large=True, wide=wide) is not None


def test_split_table(planner: Planner) -> None:
    """Parts for head size 128 on 40 cores."""
    kv_lengths = (1, 128, 1024, 4096, 16384)
    table = {
        (32, 1): (1, 1, 1, 1, 5), (64, 1): (1, 1, 1, 3, 3), (128, 1): (1, 1, 1, 4, 3),
        (32, 8): (1, 1, 1, 5, 5), (64, 8): (1, 1, 3, 5, 5), (128, 8): (1, 1, 4, 4, 4),
    }  # fmt: skip
    for (heads, q_len), parts in table.items():
        found = tuple(planner.launch(heads, q_len, kv_len, 128, 128).parts for kv_len in kv_lengths)
        assert found == parts, (heads, q_len)
    assert planner.launch(1, 1, 16384, 128, 128).parts == 32
    assert planner.launch(8, 1, 16384, 128, 128).parts == 5
    assert planner.launch(48, 1, 4096, 128, 128).parts == 4
    assert planner.launch(40, 1, 4096, 128, 128).parts == 1


@settings(max_examples=300, deadline=None)
@given(
    heads=st.integers(1, 300),
    q_rows=st.integers(1, 200),
    kv_len=st.one_of(st.integers(1, 20000), st.integers(1, 2**31 - 1)),
    head_dim=st.integers(1, 3000),
    cores=st.integers(1, 48),
    parts=st.integers(0, 64),
)
def test_launch_is_consistent(
    planner: Planner, heads: int, q_rows: int, kv_len: int, head_dim: int, cores: int, parts: int
) -> None:
    """No empty part, as many items as there are, workspace for every partial row."""
    launch = planner.launch(heads, q_rows, kv_len, head_dim, head_dim, cores=cores, force=Force(parts))
    values = launch.values
    assert 1 <= launch.parts <= 64
    assert values["splitLen"] % 64 == 0
    assert (launch.parts - 1) * values["splitLen"] < kv_len <= launch.parts * values["splitLen"]
    items = heads * -(-q_rows // launch.tiles["qTile"]) * launch.parts
    assert values["usedCores"] == min(items, cores)
    assert values["usedCores"] * values["itemsPerCore"] + values["itemsTail"] == items
    assert launch.key == 1 + 2 * (head_dim > 1008) + (launch.parts > 1)
    pitch = up(head_dim, 8)
    if launch.parts > 1:
        rows = heads * q_rows * launch.parts
        assert values["statOffset"] == rows * pitch * 4
        assert values["workspaceBytes"] == up(rows * (pitch + 16) * 4, 512)
    else:
        needed = values["usedCores"] * launch.tiles["qTile"] * pitch * 4 if launch.key == 3 else 0
        assert values["workspaceBytes"] == up(needed, 512)
