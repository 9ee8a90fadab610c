"""Which package of a bundle a machine gets, and why not the others."""

from __future__ import annotations

import pytest

from smallq_deploy.base.errors import IncompatibleError
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.operate.bundle import choose_package
from smallq_deploy.operate.bundlefile import Index, PackageEntry


def entry(
    name: str, *, cann: str, arch: str = "aarch64", unit: str = "ascend910b", vendor: str = "customize"
) -> PackageEntry:
    return PackageEntry(f"packages/{name}", "0" * 64, 1, vendor, arch, (unit,), ("SmallqFlashAttention",), cann)


ALL = (
    entry("old", cann="8.1.RC1"),
    entry("mid", cann="8.5.0"),
    entry("new", cann="9.0.0"),
    entry("silent", cann=""),
    entry("intel", cann="8.5.0", arch="x86_64"),
    entry("a3", cann="8.5.0", unit="ascend910_93"),
    entry("own", cann="8.5.0", vendor="smallq"),
)


def choose(cann: str, *, entries: tuple[PackageEntry, ...] = ALL, unit: str = "ascend910b", **more: bool) -> str:
    index = Index("0.1.0", ">=3.10", "r-1.0.0", "manifests/r.yaml", entries, (), ())
    chosen, rejected = choose_package(
        index, arch="aarch64", cann=CannVersion.parse(cann), unit=unit, vendor="customize", **more
    )
    # Every other package has a reason.
    assert {chosen.path, *(name for name, _ in rejected)} == {item.path for item in entries}
    assert all(reason for _, reason in rejected)
    return chosen.name


@pytest.mark.parametrize(
    ("cann", "name"),
    [("8.5.0", "mid"), ("8.5.1", "mid"), ("8.3.RC1", "old"), ("9.0.0", "new"), ("9.9.0", "new"), ("8.0.0", "silent")],
)
def test_the_newest_that_is_not_newer_than_the_toolkit(cann: str, name: str) -> None:
    assert choose(cann) == name


def test_a_newer_one_only_where_untested_is_allowed() -> None:
    entries = (entry("new", cann="9.0.0"),)
    with pytest.raises(IncompatibleError) as caught:
        choose("8.5.0", entries=entries)
    assert caught.value.code == "NOT_IN_BUNDLE"
    assert "newer than 8.5.0" in caught.value.message
    assert choose("8.5.0", entries=entries, allow_untested=True) == "new"
    # An older one is still the better choice.
    assert choose("8.5.0", entries=ALL, allow_untested=True) == "mid"


def test_the_unit_decides_where_it_is_known() -> None:
    assert choose("8.5.0", unit="ascend910_93") == "a3"
    with pytest.raises(IncompatibleError) as caught:
        choose("8.5.0", unit="ascend310p")
    assert len(caught.value.details["rejected"]) == len(ALL)
