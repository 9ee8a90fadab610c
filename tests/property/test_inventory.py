"""Laws of host ranges, limits and inventories, against models that are too simple to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.inventory.ansible import expand_ansible
from smallq_deploy.fleet.inventory.limits import limited
from smallq_deploy.fleet.inventory.load import inventory_digest, load_inventory
from smallq_deploy.fleet.inventory.ranges import compress, expand, expand_list, natural, split_list

MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

# --- ranges ---

stems = st.sampled_from(["npu", "r", "a-", "x.", "login", ""])
numbers = st.one_of(
    st.integers(0, 1200).map(str), st.integers(0, 120).map("{:03}".format), st.integers(0, 9).map("0{}".format)
)
names = st.builds(
    "{}{}{}{}".format, stems, numbers, st.sampled_from(["", "-b", ".c", "x"]), st.one_of(st.just(""), numbers)
)


@given(st.lists(names, max_size=60))
@MANY
def test_expanding_what_was_compressed_gives_the_same_hosts(hosts: list[str]) -> None:
    text = compress(hosts)
    found = expand_list(text)
    assert len(found) == len(set(found))
    assert set(found) == set(hosts)
    assert compress(found) == text
    assert compress(reversed(hosts)) == text
    assert len(split_list(text)) <= len(set(hosts))


@given(st.text(max_size=30))
@MANY
def test_compress_keeps_any_names_without_brackets_and_commas(text: str) -> None:
    assume(text.strip() == text and not set(text) & set("[],"))
    assert expand_list(compress([text])) == ([text] if text else [])


@given(st.integers(0, 300), st.integers(0, 40), st.integers(1, 5))
@MANY
def test_a_range_is_what_counting_gives(low: int, count: int, width: int) -> None:
    first, last = str(low).zfill(width), str(low + count).zfill(width)
    expected = [f"n{str(n).zfill(width)}x" for n in range(low, low + count + 1)]
    if len(first) == len(last) or not (first.startswith("0") and len(first) > 1):
        assert expand(f"n[{first}-{last}]x") == expected
        assert expand_ansible(f"n[{first}:{last}]x") == expected
    assert expand_list(compress(expected)) == sorted(expected, key=natural)


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
@MANY
def test_brackets_multiply(columns: list[list[int]]) -> None:
    text = "n" + "-".join(f"[{','.join(map(str, column))}]" for column in columns)
    expected = ["n"]
    for at, column in enumerate(columns):
        expected = [f"{name}{'-' if at else ''}{n}" for name in expected for n in column]
    assert expand(text) == expected
    assert set(expand_list(compress(expected))) == set(expected)


@given(st.text(alphabet="[]-,:/019az!& \n\x00é", max_size=25))
@MANY
def test_no_text_crashes_the_readers_of_ranges(text: str) -> None:
    for read in (expand, expand_list, expand_ansible):
        try:
            assert len(read(text)) <= 20_000
        except ValueError as error:
            assert len(str(error)) < 300


# --- limits ---

HOSTS = [f"npu{n:02}" for n in range(1, 13)]
GROUPS = {"a": HOSTS[:6], "b": HOSTS[3:9], "c": HOSTS[8:]}
LAB = Inventory("lab", "lab.yaml", tuple(map(Host, HOSTS)), {name: tuple(hosts) for name, hosts in GROUPS.items()})
ATOMS: dict[str, set[str]] = {
    **{name: set(hosts) for name, hosts in GROUPS.items()},
    **{name: {name} for name in HOSTS},
    "all": set(HOSTS),
    "*": set(HOSTS),
    "npu0*": set(HOSTS[:9]),
    "npu?1": {"npu01", "npu11"},
    "npu[02-05,12]": {*HOSTS[1:5], "npu12"},
}
atoms = st.sampled_from(sorted(ATOMS))
terms = st.lists(st.tuples(st.sampled_from(["", "", "!", "&"]), atoms), min_size=1, max_size=5)


def model(chosen: list[tuple[str, str]]) -> set[str]:
    plain = [ATOMS[atom] for sign, atom in chosen if not sign]
    left = set().union(*plain) if plain else set(HOSTS)
    for sign, atom in chosen:
        if sign == "&":
            left &= ATOMS[atom]
    for sign, atom in chosen:
        if sign == "!":
            left -= ATOMS[atom]
    return left


def select(limit: list[str]) -> list[str]:
    try:
        return [host.name for host in limited(LAB, limit)]
    except SmallqError as error:
        assert error.code == "NO_SUCH_HOST"
        assert "leaves no host" in error.message
        return []


@given(terms, st.sampled_from([",", ":", " , "]), st.randoms(use_true_random=False))
@MANY
def test_limits_are_sets(chosen: list[tuple[str, str]], separator: str, chance: Any) -> None:
    written = [sign + atom for sign, atom in chosen]
    expected = [name for name in HOSTS if name in model(chosen)]
    assert select([separator.join(written)]) == expected
    assert select(written) == expected  # several options
    chance.shuffle(written)
    assert select([separator.join(written)]) == expected  # their order means nothing


@given(atoms, atoms)
@MANY
def test_limits_obey_the_laws_of_sets(a: str, b: str) -> None:
    assert set(select([f"{a},!{b}"])) == set(select([a])) - set(select([b]))
    assert set(select([f"{a},&{b}"])) == set(select([a])) & set(select([b]))
    assert set(select([f"{a},{b}"])) == set(select([a])) | set(select([b]))
    assert select([f"{a},{a}"]) == select([a])


@given(st.text(max_size=30))
@MANY
def test_no_limit_crashes(text: str) -> None:
    try:
        found = limited(LAB, [text])
    except SmallqError as error:
        assert error.code in ("NO_SUCH_HOST", "BAD_LIMIT")
        assert error.hint
        assert len(error.message) < 1000
        return
    assert 0 < len(found) <= len(LAB)


# --- whole inventories ---

SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "port": st.integers(1, 65535),
    "user": st.sampled_from(["root", "ascend"]),
    "sudo": st.booleans(),
    "timeout": st.integers(1, 1000).map(float),
    "cann": st.sampled_from(["/opt/a", "/opt/b"]),
    "shared_opp": st.one_of(st.booleans(), st.sampled_from(["x", "y"])),
}
said = st.fixed_dictionaries({}, optional=SETTINGS)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """An inventory whose groups are a forest, so that every setting has one innermost place."""
    hosts = {f"npu{n}": draw(said) for n in range(draw(st.integers(1, 8)))}
    for settings_ in hosts.values():
        if settings_.get("shared_opp") is True:
            settings_["shared_opp"] = "z"
    parents: list[int] = [draw(st.integers(-1, n - 1)) for n in range(draw(st.integers(0, 5)))]
    groups: dict[str, Any] = {f"g{n}": {"members": [], "vars": draw(said)} for n in range(len(parents))}
    for n, parent in enumerate(parents):
        if parent >= 0:
            groups[f"g{parent}"]["members"].append(f"g{n}")
    for name in hosts:
        if groups:
            place = draw(st.integers(-1, len(groups) - 1))
            if place >= 0:
                groups[f"g{place}"]["members"].append(name)
    return {"schema": 1, "hosts": hosts, "groups": groups, "defaults": draw(said)}


def expected_hosts(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, own in document["hosts"].items():
        chain = []  # (label, settings) from the inside outwards
        inside = name
        while True:
            outer = [group for group, item in document["groups"].items() if inside in item["members"]]
            if not outer:
                break
            (inside,) = outer
            chain.append((inside, document["groups"][inside]["vars"]))
        chain.append(("all", document["defaults"]))
        merged = dict(own)
        for label, settings_ in chain:
            for key, value in settings_.items():
                if key not in merged:
                    merged[key] = label if key == "shared_opp" and value is True else value
        if not merged.get("shared_opp"):
            merged["shared_opp"] = ""
        found[name] = {**merged, "groups": sorted(label for label, _ in chain[:-1])}
    return found


@given(documents())
@FEW
def test_an_inventory_means_what_its_model_says(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(json.dumps(document))
    inventory = load_inventory(path)
    expected = expected_hosts(document)
    assert [host.name for host in inventory] == list(expected)
    for host in inventory:
        model_ = expected[host.name]
        for key in SETTINGS:
            assert getattr(host, key) == model_.get(key, type(getattr(host, key))()), (host.name, key)
        assert sorted(host.groups) == model_["groups"]
        assert Host.from_dict(json.loads(json.dumps(host.to_dict()))).to_dict() == host.to_dict()
    for group, hosts in inventory.groups.items():
        assert list(hosts) == [host.name for host in inventory if group in host.groups]
    digest = inventory_digest(inventory)
    document["hosts"] = dict(reversed(document["hosts"].items()))
    path.write_text(json.dumps(document, indent=1))
    assert inventory_digest(load_inventory(path)) == digest


@given(documents(), st.data())
@FEW
def test_a_file_with_one_thing_broken_is_refused_with_a_line(
    tmp_path: Path, document: dict[str, Any], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["unknown", "member", "name", "port", "relay"]))
    victim = data.draw(st.sampled_from(sorted(document["hosts"])))
    if kind == "unknown":
        document["hosts"][victim]["prot"] = 22
    elif kind == "member":
        document["groups"]["more"] = {"members": ["nobody"]}
    elif kind == "name":
        document["hosts"]["a b"] = {}
    elif kind == "port":
        document["hosts"][victim]["port"] = 0
    else:
        document["hosts"][victim]["relay"] = "nobody"
    path = tmp_path / "lab.yaml"
    path.write_text(json.dumps(document, indent=1))
    with pytest.raises(SmallqError) as caught:
        load_inventory(path)
    lines = path.read_text().splitlines()
    word = {"unknown": "prot", "member": "nobody", "name": "a b", "port": '"port": 0', "relay": "nobody"}[kind]
    (problem,) = caught.value.problems
    assert word in lines[problem.details["line"] - 1]


@given(st.binary(max_size=200) | st.text(alphabet="[]:=-#{}'\"\n abc109,!&*", max_size=200).map(str.encode))
@FEW
def test_no_file_crashes_the_readers(tmp_path: Path, raw: bytes) -> None:
    for name in ("x", "x.yaml", "x.ini"):
        path = tmp_path / name
        path.write_bytes(raw)
        for source in (str(path), f"ansible:{path}"):
            try:
                found = load_inventory(source)
            except SmallqError as error:
                assert {problem.code for problem in error.problems} == {"BAD_INVENTORY"}
            else:
                assert len(found)
