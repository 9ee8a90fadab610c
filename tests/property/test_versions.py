"""Laws of versions and specifiers: total order, round trip, and what becomes of a pre-release."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.versions import (
    CannSpecifier,
    CannVersion,
    ComponentVersion,
    DriverSpecifier,
    DriverVersion,
    FirmwareVersion,
    Version,
)

MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- texts of every form that CANN, its components, drivers and firmware are known to use ---

small = st.integers(0, 12)
suffixes = st.one_of(
    st.just(""),
    st.builds("{}{}{:03}".format, st.sampled_from([".", "-"]), st.sampled_from(["alpha", "ALPHA", "alpha."]), small),
    st.builds("{}{}{}".format, st.sampled_from([".", "-"]), st.sampled_from(["beta.", "beta", "Beta"]), small),
    st.builds("{}{}{}".format, st.sampled_from([".", "-"]), st.sampled_from(["rc.", "rc"]), small),
)
tails = st.builds(
    "{}{}{}".format, suffixes, st.sampled_from(["", "", "", ".B057", ".b1"]), st.sampled_from(["", ".pre"])
)
releases = st.one_of(
    st.builds("{}.{}.{}".format, small, small, small),
    st.builds("{}.{}.{}{}".format, small, small, st.sampled_from(["RC", "rc"]), small),
)
tests = st.one_of(
    st.builds("{}.{}.T{}".format, small, small, small),
    st.builds("{}.{}.T{}.{}".format, small, small, small, small),
    st.builds("{}.{}.T{}.{}.B{:03}".format, small, small, small, small, small),
)
cann_texts = st.one_of(
    releases,
    st.builds("{}{}".format, releases, tails),
    st.builds("{}.{}.RC{}.{}".format, small, small, small, small),
    tests,
)
cann_versions = cann_texts.map(CannVersion.parse)
dotted = st.one_of(
    st.lists(small, min_size=2, max_size=5).map(lambda parts: ".".join(map(str, parts))),
    st.builds("{}.{}.rc{}.{}".format, small, small, small, small),
    cann_texts,
)
kinds = st.sampled_from([CannVersion, DriverVersion, FirmwareVersion, ComponentVersion])


@st.composite
def alike(draw: st.DrawFn, count: int) -> tuple[Version, ...]:
    """Several versions of one kind."""
    kind = draw(kinds)
    return tuple(kind.parse(draw(cann_texts if kind is CannVersion else dotted)) for _ in range(count))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(
            (CannVersion, text)
            for text in ["8.0.RC1", "8.0.RC2", "8.0.RC3", "8.0.RC3.alpha001", "8.0.0", "8.0.0.alpha002"]
        ),
        *(
            (CannVersion, text)
            for text in ["8.1.RC1", "8.1.RC1.alpha001", "8.2.RC1.alpha003", "8.2.RC2", "8.3.RC1", "8.3.RC2"]
        ),
        *(
            (CannVersion, text)
            for text in ["8.5.0.alpha001", "8.5.0.alpha002", "8.5.0-beta.1", "8.5.0", "8.5.1", "8.5.2"]
        ),
        *(
            (CannVersion, text)
            for text in ["9.0.0-beta.1", "9.0.0-beta.2", "9.0.0-rc.1", "9.0.0", "9.0.1", "9.1.0-beta.3"]
        ),
        *(
            (CannVersion, text)
            for text in ["9.1.0", "9.2.0-beta.2", "9.1.0-beta.2.pre", "8.0.T6", "8.5.T4.0", "7.6.T9.0.B057"]
        ),
        *(
            (CannVersion, text)
            for text in ["9.0.0.beta2", "8.0.rc2.beta1", "8.0.0-beta1", "8.2.RC1.B020", "8.0.RC3.10"]
        ),
        *(
            (DriverVersion, text)
            for text in ["25.5.0", "24.1.rc1", "25.0.RC1", "25.0.rc1.1", "25.3.RC1", "26.0.RC1", "23.0.7"]
        ),
        *((FirmwareVersion, text) for text in ["7.1.0.11.220", "7.0.0", "7.2.99"]),
        *((ComponentVersion, text) for text in ["7.7.0.1.238", "7.6.0.1.220", "8.3.0.1.200", "7.7.T20.0.B210", "7.7"]),
        *((ComponentVersion, text) for text in ["7.6.T9.0.B057", "8.5.0", "9.2.0-beta.1", "8.5.0-beta.1"]),
    ],
)
def test_every_form_that_was_seen(kind: type[Version], text: str) -> None:
    version = kind.parse(text)
    assert str(version) == text
    assert version == kind.parse(text.upper()) == kind.parse(f" {text.lower()}\n")
    assert hash(version) == hash(kind.parse(text.lower()))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "8",
            "8.5",
            "8.5.",
            "8.5.0.1",
            "8..5.0",
            "v8.5.0",
            "8.5.0-",
            "8.5.0-gamma.1",
            "8.5.0-beta",
            "8.5.RC",
        ),
        *(
            "8.5.0-beta.1-beta.2",
            "8.5.T",
            "8.-1.0",
            "8.5.0 9",
            "８.5.0",
            "8.5.٣",
            "8.5.0000000000",
            "V100R001C21SPC001B238",
        ),
        *("7.7.0.1.238", "none", "cann", "8.5.0\n8.5.1", "8.5.0+local", "9" * 5000 + ".0.0"),
    ],
)
def test_what_is_no_cann_version(text: str) -> None:
    with pytest.raises(SmallqError) as caught:
        CannVersion.parse(text)
    assert caught.value.code == "BAD_VERSION"
    assert len(caught.value.message) < 200


@given(alike(1))
@MANY
def test_a_version_prints_as_it_was_read(versions: tuple[Version]) -> None:
    (version,) = versions
    again = type(version).parse(str(version))
    assert again == version
    assert str(again) == str(version)


@given(alike(3))
@MANY
def test_versions_are_totally_ordered(versions: tuple[Version, Version, Version]) -> None:
    for a, b in itertools.product(versions, repeat=2):
        assert (a < b) + (a == b) + (b < a) == 1
        assert (a <= b) == (not b < a)
        assert (hash(a) == hash(b)) or a != b
    a, b, c = sorted(versions)
    assert a <= b <= c
    assert a <= c


@given(st.permutations([CannVersion, DriverVersion, FirmwareVersion, ComponentVersion]), releases)
def test_kinds_of_versions_do_not_mix(order: list[type[Version]], text: str) -> None:
    one, other = order[0].parse(text), order[1].parse(text)
    assert one != other
    with pytest.raises(TypeError):
        assert one < other


@given(small, small, small, st.integers(1, 12))
def test_the_order_of_one_release_line(major: int, minor: int, n: int, k: int) -> None:
    base = f"{major}.{minor}."
    order = [
        f"{base}T{n}",
        f"{base}RC{k}.alpha{n:03}",
        f"{base}RC{k}.B{n:03}",
        f"{base}RC{k}",
        f"{base}RC{k}.{k}",
        f"{base}RC{k + 1}",
        f"{base}0.alpha{n:03}",
        f"{base}0-beta.{n}.pre",
        f"{base}0-beta.{n}",
        f"{base}0-rc.{n}",
        f"{base}0",
        f"{base}{k}",
    ]
    parsed = [CannVersion.parse(text) for text in order]
    assert parsed == sorted(parsed)
    assert len(set(parsed)) == len(parsed)


def test_the_order_of_drivers_and_components() -> None:
    drivers = [
        "23.0.7",
        "24.1.rc1",
        "24.1.rc3",
        "24.1.0",
        "25.0.rc1",
        "25.0.rc1.1",
        "25.0.rc2",
        "25.2.0",
        "25.3.RC1",
        "25.5.0",
        "26.0.RC1",
    ]
    assert [str(item) for item in sorted(map(DriverVersion.parse, reversed(drivers)))] == drivers
    components = [
        "7.6.T9.0.B057",
        "7.6.0.1.220",
        "7.7.T20.0.B210",
        "7.7",
        "7.7.0.1.238",
        "8.3.0.1.200",
        "8.5.0-beta.1",
        "8.5.0",
    ]
    assert [str(item) for item in sorted(map(ComponentVersion.parse, reversed(components)))] == components
    assert DriverVersion.parse("25.5") == DriverVersion.parse("25.5.0")


@given(cann_versions)
@MANY
def test_a_pre_release_comes_before_the_release_it_leads_to(version: CannVersion) -> None:
    assert not version.final.is_prerelease
    assert version.final.release == version.release
    if version.is_prerelease:
        assert version < version.final
    else:
        assert version.final == version


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("8.2.RC1.alpha003", "8.2.RC1"),
        ("8.5.0-beta.1", "8.5.0"),
        ("9.1.0-beta.2.pre", "9.1.0"),
        ("8.5.T4.0", "8.5.0"),
        ("8.2.RC1.B020", "8.2.RC1"),
        ("8.1.RC1", "8.1.RC1"),
        ("8.0.RC3.10", "8.0.RC3.10"),
    ],
)
def test_what_is_a_pre_release(text: str, final: str) -> None:
    version = CannVersion.parse(text)
    assert str(version.final) == final
    assert version.is_prerelease == (text != final)


# --- specifiers ---

finals = releases.map(CannVersion.parse)


@given(finals, finals)
@MANY
def test_specifiers_mean_the_order_of_releases(bound: CannVersion, version: CannVersion) -> None:
    assert (not CannSpecifier.parse(f">={bound}").rejects(version)) == (version >= bound)
    assert (not CannSpecifier.parse(f"<{bound}").rejects(version)) == (version < bound)
    assert (not CannSpecifier.parse(f">={bound},!={bound}").rejects(version)) == (version > bound)
    assert (not CannSpecifier.parse(f"=={bound}").rejects(version)) == (version == bound)


@given(finals, finals, cann_versions)
@MANY
def test_a_pre_release_is_never_taken_silently(low: CannVersion, high: CannVersion, version: CannVersion) -> None:
    assume(version.is_prerelease)
    specifier = CannSpecifier.parse(f">={low},<={high}")
    judgement = specifier.judge(version)
    # It is judged as the release it leads to, and the answer is never an unconditional yes.
    assert judgement.fit == ("prerelease" if low <= version.final <= high else "no")
    assert str(version) in judgement.reason
    assert str(version.final) in judgement.reason
    assert specifier.rejects(version)
    assert bool(specifier.rejects(version, allow_prerelease=True)) == (judgement.fit == "no")


@given(releases, tails, tails)
@MANY
def test_a_specifier_that_names_a_pre_release_means_its_order(base: str, one: str, other: str) -> None:
    bound, version = CannVersion.parse(base + one), CannVersion.parse(base + other)
    assume(bound.is_prerelease)
    assert (not CannSpecifier.parse(f">={bound}").rejects(version)) == (version >= bound)
    assert (not CannSpecifier.parse(f"=={bound}").rejects(version)) == (version == bound)


@pytest.mark.parametrize(
    ("specifier", "version", "fit"),
    [
        (">=8.5.0", "8.5.0-beta.1", "prerelease"),
        (">=8.5.0", "9.1.0-beta.1", "prerelease"),
        (">=8.5.0", "8.3.RC2", "no"),
        (">=8.1.RC1", "8.3.RC2", "yes"),
        (">=8.1.RC1", "8.2.RC1.alpha003", "prerelease"),
        (">=8.5.0,<9.0.0", "9.0.0-beta.1", "no"),
        (">=8.5.0,<9.0.0", "9.0.0", "no"),
        (">=9.0.0-beta.1,<9.0.0", "9.0.0-beta.2", "yes"),
        (">=9.0.0-beta.2", "9.0.0-beta.1", "no"),
        (">=9.0.0-beta.2", "9.1.0-beta.1", "prerelease"),
        (">=8.5.0,!=9.1.0-beta.2", "9.1.0-beta.2", "no"),
        (">=8.5.0,!=9.1.0-beta.2", "9.1.0-beta.3", "prerelease"),
        ("==8.5.0", "8.5.0-beta.1", "prerelease"),
        (">8.5.0", "8.5.0-beta.1", "no"),
        (">=8.5.0", "8.5.T4.0", "prerelease"),
    ],
)
def test_the_policy_by_example(specifier: str, version: str, fit: str) -> None:
    assert CannSpecifier.parse(specifier).judge(CannVersion.parse(version)).fit == fit


@given(st.text(max_size=30))
@MANY
def test_no_text_crashes_the_parsers(text: str) -> None:
    for parse, codes in (
        (CannVersion.parse, {"BAD_VERSION"}),
        (DriverVersion.parse, {"BAD_VERSION"}),
        (ComponentVersion.parse, {"BAD_VERSION"}),
        (CannSpecifier.parse, {"BAD_VERSION", "BAD_SPECIFIER"}),
        (DriverSpecifier.parse, {"BAD_VERSION", "BAD_SPECIFIER"}),
    ):
        try:
            parse(text)
        except SmallqError as error:
            assert error.code in codes


def test_driver_specifiers() -> None:
    newer = DriverSpecifier.parse(">=25.0.rc1, <26.0.0")
    assert [newer.matches(DriverVersion.parse(text)) for text in ("24.1.0", "25.0.RC1.1", "26.0.RC1", "26.0.0")] == [
        False,
        True,
        True,
        False,
    ]
