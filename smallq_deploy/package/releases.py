"""Releases and shape matrices: the manifests that say what is installed and what it must compute.

Formats: docs/reference/manifests.md; JSON Schemas: manifests/schema/. Every problem of a file is reported at once, each
with its line (PackageError BAD_MANIFEST, several of them as base.errors.Problems).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.versions import CannSpecifier
from smallq_deploy.package.data import data_root
from smallq_deploy.package.vendortree import VENDOR_PATTERN
from smallq_deploy.package.yamlfile import Reader, Value

SCHEMA_VERSION = 1
SMOKE_MULTIPLY_ADDS = 2_000_000  # the smoke test's reference is plain Python
MAX_CASES = 50_000  # of a shape matrix
# Input distributions the smoke test can draw.
SMOKE_DISTRIBUTIONS = ("normal", "uniform", "peaky", "offset")
# Those of the sweeps; large_all (q, k and v up to 100) has a tolerance of its own, which the sweep computes.
DISTRIBUTIONS = (*SMOKE_DISTRIBUTIONS, "large_q", "large_v", "large_all", "constant_rows")
DTYPES = ("float16", "bfloat16")
NAME_PATTERN = r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?"
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
UNIT_PATTERN = r"ascend[a-z0-9_]{1,40}"
_RELATIVE = r"(?!/)(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9_.{}/-]{1,255}"
_DIMENSIONS = ("num_heads", "q_len", "kv_len", "head_dim", "v_head_dim")


@dataclass(frozen=True)
class SmokeCase:
    """One shape: q [num_heads, q_len, head_dim], k [num_heads, kv_len, head_dim], v [num_heads, kv_len, v_head_dim]."""

    name: str
    num_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    v_head_dim: int
    seed: int
    distribution: str

    @property
    def multiply_adds(self) -> int:
        """Of both matrix products."""
        return self.num_heads * self.q_len * self.kv_len * (self.head_dim + self.v_head_dim)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Tolerance:
    """``|e| <= abs + rel * |reference|`` for every element, and ``||e|| / ||reference|| <= rel_l2``."""

    abs: float
    rel: float
    rel_l2: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Artifact:
    """A prebuilt package of a release; size in bytes.

    ``location`` is a URL or a path relative to the manifest; so is ``signature``, '' when the package is not signed.
    """

    location: str
    arch: str
    unit: str
    cann: CannSpecifier
    sha256: str
    size: int
    signature: str = ""


@dataclass(frozen=True)
class Release:
    """One release of one operator. ``required_files`` may contain ``{unit}`` and ``{arch}``."""

    name: str
    version: str
    operator: str
    vendor: str
    cann: CannSpecifier
    units: tuple[str, ...]
    required_symbols: tuple[str, ...]
    required_files: tuple[str, ...]
    smoke_cases: tuple[SmokeCase, ...]
    tolerance: Tolerance
    artifacts: tuple[Artifact, ...]
    source: Path

    @property
    def id(self) -> str:
        """``name-version``, as generations record it."""
        return f"{self.name}-{self.version}"

    def files_for(self, *, unit: str, arch: str) -> tuple[str, ...]:
        """``required_files`` for one unit and architecture, relative to the vendor directory."""
        return tuple(name.replace("{unit}", unit).replace("{arch}", arch) for name in self.required_files)


@dataclass(frozen=True)
class SweepCase(SmokeCase):
    """A shape of a sweep: k and v may have fewer heads than q, and with ``causal`` the last query row sees every key.

    ``model`` is what the case is counted under: the name of its grid, or ``cases``.
    """

    model: str
    kv_heads: int
    dtype: str
    causal: bool


@dataclass(frozen=True)
class ShapeMatrix:
    """A list of shapes for a sweep."""

    name: str
    description: str
    tolerance: Tolerance
    cases: tuple[SweepCase, ...]
    source: Path

    @property
    def multiply_adds(self) -> int:
        return sum(case.multiply_adds for case in self.cases)


def default_release(known: Iterable[Release] = ()) -> Release:
    """The newest release that comes with the tool, whatever the machine is; ``known`` ones are not read again."""
    from packaging.version import Version

    directory = data_root() / "manifests" / "releases"
    read = {release.source: release for release in known}
    releases = [read.get(path) or load_release(path) for path in sorted(directory.glob("*.yaml"))]
    return max(releases, key=lambda release: Version(release.version))


def matrix_path(name: str) -> Path:
    """The file of a matrix that comes with the tool (``acceptance``, ``models``)."""
    return data_root() / "manifests" / "matrices" / f"{name}.yaml"


def header(root: Value, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Value]:
    """The members of a manifest's root; its ``schema`` must be one we know."""
    members = root.mapping(("schema", *keys), optional)
    if "schema" in members:
        schema = members["schema"].as_type(int)
        if schema is not None and schema != SCHEMA_VERSION:
            members["schema"].problem(f"schema {schema} is not known to this version; known: {SCHEMA_VERSION}")
    return members


def _tolerance(value: Value | None) -> Tolerance:
    parts = value.mapping(("abs", "rel", "rel_l2")) if value is not None else {}
    figures = {key: part.number(0.0, 1.0) for key, part in parts.items()}
    return Tolerance(figures.get("abs", 0.0), figures.get("rel", 0.0), figures.get("rel_l2", 0.0))


def _case(value: Value, distributions: tuple[str, ...], limit: int | None) -> SmokeCase | None:
    before = len(value.reader.problems)
    parts = value.mapping(("name", *_DIMENSIONS, "seed", "distribution"))
    if len(value.reader.problems) > before:
        return None
    sizes = {key: parts[key].integer(1, 1 << 20) for key in _DIMENSIONS}
    name = parts["name"].text(NAME_PATTERN, "a lower-case name")
    seed = parts["seed"].integer(0, 2**31 - 1)
    drawn = parts["distribution"].as_type(str)
    if drawn is not None and drawn not in distributions:
        parts["distribution"].problem(f"{drawn!r:.40} is not one of {', '.join(distributions)}")
    case = SmokeCase(name=name, **sizes, seed=seed, distribution=drawn or "")
    if limit is not None and case.multiply_adds > limit:
        value.problem(f"needs {case.multiply_adds:,} multiply-adds; a smoke case may have {limit:,}")
    return case


def _unique(values: list[Value], names: list[str], what: str) -> None:
    seen: set[str] = set()
    for value, name in zip(values, names, strict=True):
        if name and name in seen:
            value.problem(f"the {what} {name!r} is given twice")
        seen.add(name)


def texts(value: Value | None, pattern: str, what: str, *, at_least: int = 1) -> tuple[str, ...]:
    """A list of different texts that match ``pattern``."""
    if value is None:
        return ()
    items = value.items(at_least=at_least, at_most=1000)
    found = [item.text(pattern, what) for item in items]
    _unique(items, found, "entry")
    return tuple(found)


ANY_CANN = CannSpecifier.parse(">=0.0.0")


def load_release(path: Path) -> Release:
    """Read a release manifest. Raises PackageError BAD_MANIFEST (or Problems) and NO_MANIFEST."""
    reader = Reader(path)
    root = reader.load()
    keys = ("name", "version", "operator", "vendor", "cann", "units", "required", "smoke")
    members = header(root, keys, ("description", "artifacts"))

    def text(key: str, pattern: str, what: str) -> str:
        return members[key].text(pattern, what) if key in members else ""

    if "description" in members:
        members["description"].text(r"[^\x00-\x08\x0b-\x1f\x7f]{1,2000}", "text")
    name = text("name", NAME_PATTERN, "a lower-case name")
    version = text("version", r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?", "a version such as 0.1.0 or 0.2.0rc1")
    operator = text("operator", r"[A-Z][A-Za-z0-9]{0,127}", "an operator type such as SmallqFlashAttention")
    vendor = text("vendor", VENDOR_PATTERN, "a vendor directory name")
    cann = members["cann"].parsed(CannSpecifier.parse, ANY_CANN) if "cann" in members else ANY_CANN
    units = texts(members.get("units"), UNIT_PATTERN, "a compute unit such as ascend910b")
    required = members["required"].mapping(("symbols", "files")) if "required" in members else {}
    symbols = texts(required.get("symbols"), _IDENTIFIER, "a C symbol")
    files = texts(required.get("files"), _RELATIVE, "a path relative to the vendor directory")
    smoke = members["smoke"].mapping(("tolerance", "cases")) if "smoke" in members else {}
    tolerance = _tolerance(smoke.get("tolerance"))
    items = smoke["cases"].items(at_least=1, at_most=100) if "cases" in smoke else []
    cases = [_case(item, SMOKE_DISTRIBUTIONS, SMOKE_MULTIPLY_ADDS) for item in items]
    _unique(items, [case.name if case else "" for case in cases], "case")
    artifacts = tuple(_artifact(item) for item in members["artifacts"].items()) if "artifacts" in members else ()
    reader.finish()
    return Release(
        name,
        version,
        operator,
        vendor,
        cann,
        units,
        symbols,
        files,
        tuple(case for case in cases if case is not None),
        tolerance,
        artifacts,
        path,
    )


def _artifact(value: Value) -> Artifact:
    parts = value.mapping(("location", "arch", "unit", "cann", "sha256", "size"), ("signature",))

    def text(key: str, pattern: str, what: str) -> str:
        return parts[key].text(pattern, what) if key in parts else ""

    return Artifact(
        text("location", r"[^\x00-\x20\x7f]{1,2000}", "a URL or relative path without spaces"),
        text("arch", r"x86_64|aarch64", "x86_64 or aarch64"),
        text("unit", UNIT_PATTERN, "a compute unit such as ascend910b"),
        parts["cann"].parsed(CannSpecifier.parse, ANY_CANN) if "cann" in parts else ANY_CANN,
        text("sha256", r"[0-9a-f]{64}", "64 lower-case hexadecimal digits"),
        parts["size"].integer(1, 1 << 40) if "size" in parts else 0,
        text("signature", r"[^\x00-\x20\x7f]{1,2000}", "a URL or relative path without spaces"),
    )


def load_matrix(path: Path) -> ShapeMatrix:
    """Read a shape matrix: ``cases`` one by one, ``grids`` as products. Raises as :func:`load_release` does."""
    reader = Reader(path)
    members = header(reader.load(), ("name", "description", "tolerance"), ("cases", "grids"))
    name = members["name"].text(NAME_PATTERN, "a lower-case name") if "name" in members else ""
    description = (
        members["description"].text(r"[^\x00-\x08\x0b-\x1f\x7f]{1,2000}", "text") if "description" in members else ""
    )
    tolerance = _tolerance(members.get("tolerance"))
    cases: list[SweepCase] = []
    for index, row in enumerate(members["cases"].items(at_least=1) if "cases" in members else []):
        cases += _row(row, index)
    for grid in members["grids"].items(at_least=1, at_most=200) if "grids" in members else []:
        cases += _grid(grid)
        if len(cases) > MAX_CASES:
            grid.problem(f"the matrix has more than {MAX_CASES:,} cases")
            break
    if not cases and not reader.problems:
        reader.add(0, "", "the matrix has no cases: give cases or grids")
    reader.finish()
    return ShapeMatrix(name, description, tolerance, tuple(cases), path)


def case_name(sizes: Mapping[str, int], distribution: str) -> str:
    """Name of a matrix case: every dimension, and the distribution where it is not the normal one."""
    name = "h{num_heads}-q{q_len}-kv{kv_len}-d{head_dim}-v{v_head_dim}".format(**sizes)
    return name if distribution == "normal" else f"{name}-{distribution.replace('_', '-')}"


def _row(row: Value, index: int) -> list[SweepCase]:
    """``[num_heads, q_len, kv_len, head_dim, v_head_dim]`` with an optional distribution as sixth element."""
    parts = row.items(at_least=5, at_most=6)
    if len(parts) not in (5, 6):
        return []
    sizes = {key: part.integer(1, 1 << 20) for key, part in zip(_DIMENSIONS, parts, strict=False)}
    drawn = parts[5].as_type(str) if len(parts) == 6 else "normal"
    if drawn is not None and drawn not in DISTRIBUTIONS:
        parts[5].problem(f"{drawn!r:.40} is not one of {', '.join(DISTRIBUTIONS)}")
    name = case_name(sizes, drawn or "")
    more = {"seed": index + 1, "kv_heads": sizes["num_heads"]}
    case = SweepCase(name=name, **sizes, **more, distribution=drawn or "", model="cases", dtype=DTYPES[0], causal=False)
    return [case]


def _grid(grid: Value) -> list[SweepCase]:
    keys = ("name", "num_heads", "head_dim", "v_head_dim", "q_len", "kv_len")
    parts = grid.mapping(keys, ("kv_heads", "dtype", "causal", "distribution"))
    name = parts["name"].text(NAME_PATTERN, "a lower-case name") if "name" in parts else ""
    fixed = {key: parts[key].integer(1, 1 << 20) for key in ("num_heads", "head_dim", "v_head_dim") if key in parts}
    axes = {
        key: [item.integer(1, 1 << 20) for item in parts[key].items(at_least=1, at_most=100)]
        for key in ("q_len", "kv_len")
        if key in parts
    }
    drawn = (parts["distribution"].as_type(str) if "distribution" in parts else "normal") or ""
    if drawn not in DISTRIBUTIONS:
        parts["distribution"].problem(f"{drawn!r:.40} is not one of {', '.join(DISTRIBUTIONS)}")
    dtype = (parts["dtype"].as_type(str) if "dtype" in parts else DTYPES[0]) or ""
    if dtype not in DTYPES:
        parts["dtype"].problem(f"{dtype!r:.40} is not one of {', '.join(DTYPES)}")
    causal = bool(parts["causal"].as_type(bool)) if "causal" in parts else False
    if len(fixed) < 3 or len(axes) < 2:
        return []
    kv_heads = parts["kv_heads"].integer(1, 1 << 20) if "kv_heads" in parts else fixed["num_heads"]
    if kv_heads < 1 or fixed["num_heads"] % kv_heads:
        parts["kv_heads"].problem(f"{kv_heads} does not divide num_heads {fixed['num_heads']}")
    return [
        SweepCase(
            name=f"{name}-q{q_len}-kv{kv_len}",
            q_len=q_len,
            kv_len=kv_len,
            **fixed,
            seed=kv_len,
            distribution=drawn,
            model=name,
            kv_heads=kv_heads,
            dtype=dtype,
            causal=causal,
        )
        for kv_len in axes["kv_len"]
        for q_len in axes["q_len"]
        if not causal or kv_len >= q_len  # a row without a key has no result
    ]
