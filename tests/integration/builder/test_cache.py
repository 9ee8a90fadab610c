"""The build cache around a build.sh that counts its runs: what is built again, what is taken, and what never is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from smallq_deploy.base.errors import BuildError, SmallqError
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import sha256_file, tree_digest
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.machine.environment import Environment, detect_environment
from smallq_deploy.operate.buildcache import BuildCache
from smallq_deploy.operate.builder import BuildResult, build
from smallq_deploy.operate.built import data_home, package_key
from smallq_deploy.package.releases import Release, default_release
from smallq_deploy.package.vendortree import API_LIBRARY
from tests.cli.support import Ran, checked, smallq
from tests.conftest import CHECKOUT
from tests.support.packages import OPERATOR as OPERATOR_TYPE
from tests.support.packages import make_run, pack, package_members, vendor_files, write_run
from tests.support.toolkits import make_new, write

ARCH = os.uname().machine
UNIT = "ascend910b"
OPERATOR = "smallq_flash_attention"


class Project:
    """A toolkit, a checkout whose build.sh counts its runs, operator sources, and a cache of their own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.cann = base / "Ascend"
        make_new(self.cann, remark="made-up toolkit")
        self.recipes = base / "recipes"
        self.project = self.recipes / "ops/ascendc"
        write(self.project / "CMakeLists.txt", 'set(VENDOR_NAME "customize" CACHE STRING "vendor name")\n')
        (self.project / "src").mkdir()
        self.sources = base / OPERATOR
        write(self.sources / f"op_host/{OPERATOR}_def.cpp", "// definition\n")
        write(self.sources / f"op_kernel/{OPERATOR}.cpp", "// kernel\n")
        self.package = make_run(base / "good.run")
        self.counter = base / "runs"
        self.script()

    def script(self, extra: str = "") -> None:
        lines = f"set -e\necho run >> {self.counter}\n{extra}\nmkdir -p output\n"
        write(self.project / "build.sh", lines + f"cp {self.package} output/CANN-custom_ops--linux.{ARCH}.run\n")

    @property
    def runs(self) -> int:
        return len(self.counter.read_text().splitlines()) if self.counter.exists() else 0

    def environment(self) -> Environment:
        return detect_environment(cann=self.cann, environ={}, root=self.base / "root")

    def build(self, **options: object) -> BuildResult:
        settings: dict[str, object] = {"recipes": self.recipes, "unit": UNIT, "sources": self.sources, **options}
        environment = settings.pop("environment", None) or self.environment()
        return build(environment.discovery, RELEASE, **settings)  # type: ignore[arg-type]

    def command(self, *more: str) -> list[str]:
        paths = ("--cann", str(self.cann), "--recipes", str(self.recipes), "--sources", str(self.sources))
        return ["build", *paths, "--soc", UNIT, *more]

    @property
    def entries(self) -> list[Path]:
        root = BuildCache().root
        return sorted(path for path in root.glob("*") if path.name != "locks") if root.exists() else []


RELEASE: Release = default_release()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Project(tmp_path)


def test_the_second_build_is_the_first_one(project: Project, tmp_path: Path) -> None:
    first = project.build()
    untouched = tree_digest(project.recipes)
    second = project.build(output=tmp_path / "out")
    assert (first.cached, second.cached, project.runs) == (False, True, 1)
    assert second.run.file_sha256 == first.run.file_sha256 == sha256_file(project.package)
    assert second.provenance == json.loads(json.dumps(dict(first.provenance)))
    assert second.log.read_text() == first.log.read_text()
    assert tree_digest(project.recipes) == untouched
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    package = f"CANN-custom_ops--linux.{ARCH}.run"
    assert names == [package, f"{package}.cdx.json", f"{package}.provenance.json"]
    beside = json.loads((tmp_path / "out" / f"{package}.provenance.json").read_text())
    assert beside["package"]["sha256"] == sha256_file(tmp_path / "out" / package)
    # Another user of this machine, or the same after the kept packages were removed: the cache alone is enough.
    assert list((data_home() / "packages").iterdir()) == [first.package.parent]


def test_what_asks_for_a_new_build(project: Project) -> None:
    project.build()
    again = project.build(rebuild=True)
    assert (again.cached, project.runs) == (False, 2)
    kept = project.build(keep_workspace=True)
    assert (kept.cached, project.runs) == (False, 3)
    assert kept.workspace is not None and kept.workspace.is_dir()
    assert project.build().cached
    assert len(project.entries) == 1


def change_sources(project: Project) -> None:
    write(project.sources / f"op_kernel/{OPERATOR}.cpp", "// other kernel\n")


def add_source(project: Project) -> None:
    write(project.sources / "op_kernel/more.h", "")


def change_project(project: Project) -> None:
    write(project.project / "cmake/more.cmake", "# more\n")


def change_toolkit(project: Project) -> None:
    (info,) = project.cann.glob(f"cann-8.5.0/{ARCH}-linux/ascend_toolkit_install.info")
    info.write_text(info.read_text().replace("B212", "B232"))


def change_compiler(project: Project) -> None:
    home = project.cann / "cann-8.5.0"
    write(home / "bin/bisheng", "#!/bin/bash\necho bisheng 15\n").chmod(0o755)


@pytest.mark.parametrize(
    "change", [change_sources, add_source, change_project, change_toolkit, change_compiler], ids=lambda f: f.__name__
)
def test_what_makes_another_package(project: Project, change: Callable[[Project], None]) -> None:
    first = project.build()
    change(project)
    second = project.build()
    assert (second.cached, project.runs) == (False, 2)
    assert first.package.parent != second.package.parent
    assert project.build().cached


def test_every_fact_of_the_key_counts(project: Project) -> None:
    provenance = dict(project.build().provenance)
    key, identity = package_key(provenance)
    assert {"source_digest", "toolkit", "unit", "arch", "flags", "compiler", "host_compiler"} <= set(identity)
    assert {"version", "inner_version"} <= set(identity["toolkit"])
    for name in identity:
        assert package_key({**provenance, name: "other"})[0] != key, name
    assert package_key({**provenance, "created": "later", "seconds": 0})[0] == key


def test_what_makes_no_other_package(project: Project) -> None:
    project.build()
    write(project.project / "build/left", "over")
    write(project.project / "output/old.run", "old")
    write(project.project / f"src/{OPERATOR}/stale.cpp", "replaced by our sources")
    write(project.recipes / ".git/HEAD", "ref: x")
    (project.sources / f"op_kernel/{OPERATOR}.cpp").chmod(0o600)
    os.utime(project.sources / f"op_kernel/{OPERATOR}.cpp", (1, 1))
    assert project.build().cached
    assert project.runs == 1


def flip_package(entry: Path) -> None:
    (package,) = entry.glob("*.run")
    content = bytearray(package.read_bytes())
    content[-20] ^= 1
    package.write_bytes(content)


def cut_package(entry: Path) -> None:
    (package,) = entry.glob("*.run")
    os.truncate(package, 100)


def remove_package(entry: Path) -> None:
    next(entry.glob("*.run")).unlink()


def edit_provenance(entry: Path) -> None:
    (entry / "provenance.json").write_text("{}")


def edit_sbom(entry: Path) -> None:
    (entry / "sbom.cdx.json").write_text("{}")


def cut_record(entry: Path) -> None:
    os.truncate(entry / "entry.json", 10)


def remove_record(entry: Path) -> None:
    (entry / "entry.json").unlink()


def deep_record(entry: Path) -> None:
    (entry / "entry.json").write_text("[" * 100_000)


def binary_record(entry: Path) -> None:
    (entry / "entry.json").write_bytes(b"\xff\xfe\0")


def other_build(entry: Path) -> None:
    """A record of another build: as if two builds had the same key."""
    record = json.loads((entry / "entry.json").read_text())
    record["identity"]["unit"] = "ascend310p"
    (entry / "entry.json").write_text(json.dumps(record))


def empty_record(entry: Path) -> None:
    record = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps({**record, "files": {}}))


def link_package(entry: Path) -> None:
    """The same content, but the file leads elsewhere."""
    (package,) = entry.glob("*.run")
    package.rename(entry.parent / "elsewhere")
    package.symlink_to(entry.parent / "elsewhere")


DAMAGES = (
    *(flip_package, cut_package, remove_package, edit_provenance, edit_sbom, cut_record, remove_record),
    *(deep_record, binary_record, other_build, empty_record, link_package),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda function: function.__name__)
def test_a_damaged_entry_is_built_again(project: Project, damage: Callable[[Path], None]) -> None:
    project.build()
    (entry,) = project.entries
    damage(entry)
    events = Events()
    second = project.build(events=events)
    assert (second.cached, project.runs) == (False, 2)
    (warning,) = events.warnings
    assert str(entry) in warning and "damaged" in warning
    third = Events()
    assert project.build(events=third).cached
    assert third.warnings == []


def test_a_failed_build_is_not_kept(project: Project) -> None:
    project.script("exit 3")
    for _ in range(2):
        with pytest.raises(BuildError):
            project.build()
    assert project.runs == 2
    assert project.entries == []


def test_links_out_of_the_sources_are_never_taken_from_the_cache(project: Project, tmp_path: Path) -> None:
    """What such a link leads to is not in the digest, so a change of it would not be seen."""
    outside = write(tmp_path / "outside.h", "#define A 1\n")
    (project.sources / "op_kernel/outside.h").symlink_to(outside)
    assert not project.build().cached
    outside.write_text("#define A 2\n")
    assert not project.build().cached
    assert project.runs == 2
    assert project.entries == []


def test_sources_that_change_during_the_build(project: Project) -> None:
    project.script(f"echo '// later' >> {project.sources}/op_kernel/{OPERATOR}.cpp")
    events = Events()
    project.build(events=events)
    assert any("changed while they were built" in text for text in events.warnings)
    assert project.entries == []


def test_a_cache_that_cannot_take_it_is_a_warning(project: Project) -> None:
    """Something else stands where the cache was when the build ends; the package is there all the same."""
    root = BuildCache().root
    project.script(f"rm -rf {root}; touch {root}")
    events = Events()
    result = project.build(events=events)
    assert result.package.is_file()
    assert any("not put into the build cache" in text for text in events.warnings)
    root.unlink()


def test_bounded_size(project: Project) -> None:
    def fill(number: int) -> BuildResult:
        write(project.sources / "op_kernel/number.h", f"// {number}\n")
        return project.build()

    for number in range(3):
        fill(number)
        time.sleep(0.02)
    fill(0)  # used again: now 1 is the one that was not used for longest
    cache = BuildCache()
    one = max(entry.size for entry in cache.entries())
    gone = cache.prune(2 * one)
    assert len(gone) == 1 and len(project.entries) == 2
    assert fill(0).cached and fill(2).cached
    assert not fill(1).cached
    assert len(cache.prune(0)) == 3
    assert project.entries == [] and list((cache.root / "locks").iterdir()) == []


def test_storing_keeps_the_bound(project: Project) -> None:
    project.build()
    cache = BuildCache(limit=1)
    (entry,) = cache.entries()
    with cache.slot("another", {"a": 1}) as slot:
        assert slot.folder is None
        slot.fill(entry.folder)
    assert [path.name for path in project.entries] == ["another"]


def test_an_entry_in_use_is_not_pruned(project: Project) -> None:
    result = project.build()
    key, identity = package_key(result.provenance)
    cache = BuildCache()
    with cache.slot(key, identity) as slot:
        assert slot.folder is not None
        assert cache.prune(0) == ()
        assert slot.folder.is_dir()
    assert [entry.key for entry in cache.prune(0)] == [key]


def test_waiting_has_an_end(project: Project) -> None:
    cache = BuildCache()
    with cache.slot("key", {}), pytest.raises(SmallqError) as caught:
        with cache.slot("key", {}, wait_seconds=0.1):
            pass
    assert caught.value.code == "BUILD_BUSY"
    assert str(os.getpid()) in caught.value.message
    with cache.slot("key", {}, wait_seconds=0.0):
        pass


def test_two_processes_build_once(project: Project) -> None:
    """One builds, the other waits and takes it; both have the package."""
    project.script("sleep 1.5")
    ran: list[Ran] = []

    def go() -> None:
        ran.append(smallq(*project.command("--json")))

    threads = [Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = [checked(one, "build") for one in ran]
    assert [one.status for one in ran] == [0, 0, 0]
    assert project.runs == 1
    assert sorted(item["cached"] for item in data) == [False, True, True]
    assert {sha256_file(Path(item["package"])) for item in data} == {sha256_file(project.package)}


def test_a_builder_that_is_killed_leaves_its_place(project: Project) -> None:
    project.script('[ -e "$HOME/go" ] || sleep 60')
    started = subprocess.Popen(
        [sys.executable, "-m", "smallq_deploy", *project.command()],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while project.runs == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    Path(os.environ["HOME"], "go").touch()
    second = subprocess.Popen(
        [sys.executable, "-m", "smallq_deploy", *project.command()],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert second.stderr is not None
    for line in second.stderr:
        if f"pid {started.pid}" in line and "waiting" in line:
            break
    started.send_signal(signal.SIGKILL)
    started.wait()
    stdout, stderr = second.communicate(timeout=60)
    assert second.returncode == 0, stderr
    assert "built SmallqFlashAttention" in stdout
    assert project.runs == 2


def test_the_text_says_where_it_comes_from(project: Project) -> None:
    first = smallq(*project.command())
    second = smallq(*project.command())
    assert "built SmallqFlashAttention for ascend910b in" in first.stdout
    assert "taken from the build cache" in second.stdout
    assert project.runs == 1
    assert "built SmallqFlashAttention" in smallq(*project.command("--rebuild")).stdout
    assert project.runs == 2


def test_cache_commands(project: Project) -> None:
    empty = checked(smallq("cache", "info", "--json"), "cache info")
    assert (empty["entries"], empty["size"]) == ([], 0)
    project.build()
    found = checked(smallq("cache", "info", "--json"), "cache info")
    (entry,) = found["entries"]
    assert (entry["operator"], entry["unit"], entry["toolkit"]) == ("SmallqFlashAttention", UNIT, "8.5.0")
    assert (entry["remark"], entry["damage"]) == ("made-up toolkit", "")
    assert found["size"] == entry["size"] > 0
    text = smallq("cache", "info").stdout
    assert "1 package" in text and entry["key"] in text
    assert checked(smallq("cache", "prune", "--json"), "cache prune")["entries"] == []

    flip_package(project.entries[0])
    assert checked(smallq("cache", "info", "--json"), "cache info")["entries"][0]["damage"] == ""
    ran = smallq("cache", "info", "--check", "--json")
    assert "sha256 differs" in checked(ran, "cache info")["entries"][0]["damage"]
    assert ran.document["warnings"]
    pruned = checked(smallq("cache", "prune", "--json"), "cache prune")
    assert [item["key"] for item in pruned["entries"]] == [entry["key"]]
    assert (pruned["left"], project.entries) == (0, [])

    project.build(rebuild=True)
    assert "removed 1 package" in smallq("cache", "prune", "--max-size", "0").stdout
    wrong = smallq("cache", "prune", "--max-size", "lots", "--json")
    assert (wrong.status, wrong.codes) == (2, ["BAD_SIZE"])


def test_the_version_of_the_toolkit_counts(project: Project) -> None:
    """Same files, another version number: as after an upgrade in place."""
    project.build()
    environment = project.environment()
    assert environment.toolkit is not None
    other = replace(environment.toolkit, version=CannVersion.parse("8.5.1"))
    discovery = replace(environment.discovery, chosen=other)
    result = project.build(environment=replace(environment, toolkit=other, discovery=discovery))
    assert (result.cached, project.runs) == (False, 2)


def git(place: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", place, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_provenance_names_commit_and_dirt(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.base.parent))
    assert project.build().provenance["source_git"] is None
    git(project.base, "init", "-q")
    git(project.base, "add", OPERATOR)
    git(project.base, "commit", "-q", "-m", "operator")
    commit = git(project.base, "rev-parse", "HEAD")
    before = tree_digest(project.base / ".git")
    clean = project.build(rebuild=True).provenance
    assert clean["source_git"] == {"commit": commit, "dirty": False}
    assert clean["recipes_git"] is None, "the checkout of the build project is in no commit"
    kernel = project.sources / f"op_kernel/{OPERATOR}.cpp"
    kernel.write_text("// edited\n")
    assert project.build().provenance["source_git"] == {"commit": commit, "dirty": True}
    kernel.write_text("// kernel\n")
    write(project.sources / "op_kernel/unknown.h", "")
    assert project.build().provenance["source_git"] == {"commit": commit, "dirty": True}
    assert tree_digest(project.base / ".git") == before, "the repository was written to"


def test_functions_that_the_toolkit_lacks_are_refused(project: Project) -> None:
    """A library made for another CANN than the one that it was built with: it could not be loaded."""
    libraries = project.cann / "cann-8.5.0/lib64"
    libraries.mkdir()
    code = 'extern "C" int NnopbaseNewer(); extern "C" int aclnn{0}() {{ return NnopbaseNewer(); }}'
    code += ' extern "C" int aclnn{0}GetWorkspaceSize() {{ return 0; }}'
    base = 'extern "C" int NnopbaseOlder() { return 0; }'
    for text, target in ((base, libraries / "libnnopbase.so"), (code.format(OPERATOR_TYPE), project.base / "api.so")):
        command = ["g++", "-shared", "-fPIC", "-nostdlib", "-x", "c++", "-", "-o", str(target)]
        subprocess.run(command, input=text, text=True, check=True)
    files = vendor_files()
    files[API_LIBRARY] = (project.base / "api.so").read_bytes()
    write_run(project.package, pack(package_members({"customize": files})))
    with pytest.raises(BuildError) as caught:
        project.build()
    assert caught.value.code == "UNRESOLVED_SYMBOL"
    assert "NnopbaseNewer" in caught.value.message
    assert project.entries == []
    (libraries / "libnnopbase.so").write_text("no library")
    with pytest.raises(BuildError) as damaged:
        project.build()
    assert damaged.value.code == "BAD_ELF"
    (libraries / "libnnopbase.so").unlink()
    assert not project.build().cached


def test_a_kernel_without_a_stated_digest_is_refused(project: Project) -> None:
    files = vendor_files()
    (name,) = [path for path in files if "/kernel/" in path and "/config/" not in path and path.endswith(".json")]
    files[name] = json.dumps({"binFileName": Path(name).stem, "binFileSuffix": ".o"}).encode()
    write_run(project.package, pack(package_members({"customize": files})))
    with pytest.raises(BuildError) as caught:
        project.build()
    assert caught.value.code == "BAD_KERNEL"
    assert "does not state the sha256" in caught.value.message
