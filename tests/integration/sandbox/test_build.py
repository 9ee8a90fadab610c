"""build.sh of the sandbox's project, from source to a package whose operator computes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from smallq_deploy.base.proc import sourced_environment
from smallq_deploy.sandbox.create import SandboxInfo, create

from .conftest import MACHINE, Ended, call

PACKAGE = f"CANN-custom_ops-none-linux.{MACHINE}.run"


def environment(home: Path) -> dict[str, str]:
    """What a user has after sourcing set_env.sh of the toolkit below the root ``home``."""
    (script,) = home.glob("*/set_env.sh") if not (home / "cann").exists() else [home / "cann/set_env.sh"]
    return sourced_environment(script, base={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})


def build(project: Path, env: Mapping[str, str], *options: str) -> Ended:
    return call(["bash", project / "build.sh", *options], env={**env, "OPS_CPU_NUMBER": "2"}, timeout=200)


@pytest.fixture
def project(simulated_toolkit: Path, tmp_path: Path) -> Path:
    """A private copy of the build project; the toolkit itself is shared and not changed."""
    target = tmp_path / "ascendc"
    shutil.copytree(simulated_toolkit / "cann-recipes-infer/ops/ascendc", target)
    return target


@pytest.fixture(scope="session")
def sample_package(simulated_toolkit: Path, shared_directory: Path) -> Path:
    """vec_add_sample, built once a run for all workers."""
    target = shared_directory / "sample"
    with open(shared_directory / "sample.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "output" / PACKAGE).exists():
            shutil.copytree(simulated_toolkit / "cann-recipes-infer/ops/ascendc", target, dirs_exist_ok=True)
            done = build(target, environment(simulated_toolkit), "-n", "vec_add_sample", "-c", "ascend910b")
            assert done.code == 0, done.all
            assert f'Self-extractable archive "{PACKAGE}" successfully created.' in done.out
            assert "[ascend910b] Generating VecAddSample_" in done.out
    return target / "output" / PACKAGE


@pytest.fixture
def unpacked(sample_package: Path, tmp_path: Path) -> Path:
    done = call([sample_package, "--quiet", "--noexec", f"--extract={tmp_path}/x"])
    assert done.code == 0, done.all
    return tmp_path / "x/packages/vendors/customize"


@pytest.mark.xdist_group("sample-package")
def test_the_package_has_the_tree_of_a_vendor_directory(unpacked: Path) -> None:
    impl = "op_impl/ai_core/tbe"
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if not path.is_dir()}
    kernels = {name for name in files if name.startswith(f"{impl}/kernel/ascend910b/")}
    assert files - kernels == {
        "version.info",
        "op_api/include/aclnn_vec_add_sample.h",
        "op_api/lib/libcust_opapi.so",
        "op_proto/inc/vec_add_sample_proto.h",
        f"op_proto/lib/linux/{MACHINE}/libcust_opsproto_rt2.0.so",
        f"{impl}/config/ascend910b/aic-ascend910b-ops-info.json",
        f"{impl}/kernel/config/ascend910b/vec_add_sample.json",
        f"{impl}/kernel/config/ascend910b/binary_info_config.json",
        f"{impl}/op_tiling/lib/linux/{MACHINE}/libcust_opmaster_rt2.0.so",
        f"{impl}/op_tiling/liboptiling.so",
        f"{impl}/customize_impl/dynamic/vec_add_sample.py",
        f"{impl}/customize_impl/ascendc/vec_add_sample/vec_add_sample.cpp",
        f"{impl}/customize_impl/ascendc/vec_add_sample/op_kernel/vec_add_sample.cpp",
    }
    assert (unpacked / "version.info").read_text() == "custom_opp_compiler_version=8.5.0\n"
    objects = sorted(name for name in kernels if name.endswith(".o"))
    assert len(objects) == 1 and len(kernels) == 2
    record = json.loads((unpacked / objects[0]).with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256((unpacked / objects[0]).read_bytes()).hexdigest()
    assert os.readlink(unpacked / impl / "op_tiling/liboptiling.so") == (
        f"lib/linux/{MACHINE}/libcust_opmaster_rt2.0.so"
    )


_ADD = """
import ctypes, struct, sys
acl = ctypes.CDLL("libascendcl.so")
base = ctypes.CDLL("libnnopbase.so", mode=ctypes.RTLD_GLOBAL)
op = ctypes.CDLL(sys.argv[1])
base.aclCreateTensor.restype = ctypes.c_void_p
P, U, I = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64
def ok(code, what):
    if code:
        acl.aclGetRecentErrMsg.restype = ctypes.c_char_p
        sys.exit(f"{what}: {code} {acl.aclGetRecentErrMsg()}")
n = 1000
ok(acl.aclInit(None), "init"); ok(acl.aclrtSetDevice(0), "device")
stream = P(); ok(acl.aclrtCreateStream(ctypes.byref(stream)), "stream")
def tensor(values):
    raw = struct.pack(f"<{n}e", *values)
    dev = P(); ok(acl.aclrtMalloc(ctypes.byref(dev), U(len(raw)), 0), "malloc")
    ok(acl.aclrtMemcpy(dev, U(len(raw)), raw, U(len(raw)), 1), "copy in")
    shape, one = (I * 1)(n), (I * 1)(1)
    return dev, P(base.aclCreateTensor(shape, U(1), 1, one, I(0), 2, shape, U(1), dev))
x = [i * 0.25 for i in range(n)]; y = [100.0 - i for i in range(n)]
(_, tx), (_, ty), (dz, tz) = tensor(x), tensor(y), tensor([0.0] * n)
size, executor = U(), P()
ok(op.aclnnVecAddSampleGetWorkspaceSize(tx, ty, tz, ctypes.byref(size), ctypes.byref(executor)), "phase one")
work = P()
if size.value:
    ok(acl.aclrtMalloc(ctypes.byref(work), size, 0), "workspace")
ok(op.aclnnVecAddSample(work, size, executor, stream), "phase two")
ok(acl.aclrtSynchronizeStream(stream), "synchronize")
back = ctypes.create_string_buffer(2 * n)
ok(acl.aclrtMemcpy(back, U(2 * n), dz, U(2 * n), 2), "copy out")
got = struct.unpack(f"<{n}e", back.raw)
want = [struct.unpack("<e", struct.pack("<e", a + b))[0] for a, b in zip(x, y)]
print("equal" if list(got) == want else [(i, g, w) for i, (g, w) in enumerate(zip(got, want)) if g != w][:5])
"""


@pytest.mark.xdist_group("sample-package")
def test_the_installed_sample_operator_adds(sample_package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    sandbox = create(root)
    env = environment(root)
    installed = call([sample_package, "--quiet"], env=env)
    assert installed.code == 0 and (sandbox.opp / "vendors/config.ini").is_file(), installed.all
    library = sandbox.opp / "vendors/customize/op_api/lib/libcust_opapi.so"
    done = call(["python3", "-c", _ADD, library], env=env)
    assert (done.code, done.out.strip()) == (0, "equal"), done.all
    for kernel in (sandbox.opp / "vendors/customize").rglob("VecAddSample_*.o"):
        kernel.unlink()
    broken = call(["python3", "-c", _ADD, library], env=env)
    assert broken.code == 1
    assert "561113" in broken.err or "561003" in broken.err, broken.err


def test_an_unknown_operator_is_no_error_and_gives_an_empty_package(simulated_toolkit: Path, project: Path) -> None:
    stale = project / "output" / "CANN-custom_ops-stale-linux.run"
    stale.parent.mkdir()
    stale.write_text("of an earlier build")
    (project / "build").mkdir()
    (project / "build/leftover").write_text("x")
    done = build(project, environment(simulated_toolkit), "-n", "no_such_op", "-c", "ascend910b")
    assert done.code == 0, done.all
    assert stale.exists(), "output/ is not emptied"
    assert not (project / "build/leftover").exists(), "build/ is"
    call([project / "output" / PACKAGE, "--quiet", "--noexec", f"--extract={project}/x"])
    vendor = project / "x/packages/vendors/customize"
    library = vendor / "op_api/lib/libcust_opapi.so"
    assert library.is_file()
    assert not list(vendor.rglob("*.o")) and not list(vendor.rglob("aclnn_*.h"))
    assert b"aclnnVecAddSample" not in library.read_bytes()


def test_a_kernel_that_does_not_compile_still_gives_a_package(simulated_toolkit: Path, project: Path) -> None:
    kernel = project / "src/vec_add_sample/op_kernel/vec_add_sample.cpp"
    kernel.write_text(kernel.read_text().replace("Add(z, x, y", "Addd(z, x, y"))
    done = build(project, environment(simulated_toolkit), "-n", "vec_add_sample", "-c", "ascend910b")
    assert done.code == 0, "as in CANN: only the log and the package's content tell"
    assert "Addd" in done.all, "the compiler's own words are in the log"
    assert "[ERROR] op VecAddSample: not any obj compile success" in done.all
    call([project / "output" / PACKAGE, "--quiet", "--noexec", f"--extract={project}/x"])
    assert not list((project / "x").rglob("*.o"))
    assert list((project / "x").rglob("aclnn_vec_add_sample.h"))


def test_host_code_that_does_not_compile_fails_the_build(simulated_toolkit: Path, project: Path) -> None:
    tiling = project / "src/vec_add_sample/op_host/vec_add_sample_tiling.cpp"
    tiling.write_text(tiling.read_text() + "\nsyntax error here\n")
    done = build(project, environment(simulated_toolkit), "-n", "vec_add_sample", "-c", "ascend910b")
    assert done.code != 0
    assert "vec_add_sample_tiling.cpp" in done.all
    assert not list((project / "output").glob("*.run"))


def test_a_wrong_unit_builds_no_kernel(simulated_toolkit: Path, project: Path) -> None:
    done = build(project, environment(simulated_toolkit), "-n", "vec_add_sample", "-c", "ascend310p")
    assert done.code == 0, done.all
    call([project / "output" / PACKAGE, "--quiet", "--noexec", f"--extract={project}/x"])
    assert not list((project / "x").rglob("*.o"))


def test_options(simulated_toolkit: Path, project: Path) -> None:
    env = environment(simulated_toolkit)
    helped = build(project, env, "--help")
    assert helped.code == 0 and "ascend910_93" in helped.out
    refused = build(project, env, "--no-such-option")
    assert refused.code == 1 and "Usage:" in refused.out
    assert not (project / "build").exists()
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    lost = build(project, bare, "-p", str(project))
    assert lost.code == 1 and "Error: bisheng compilation tool not found" in lost.out
    if not Path("/usr/local/Ascend").exists():
        nowhere = build(project, bare)
        assert nowhere.code == 1 and "-p|--package-path" in nowhere.out


def test_the_package_name_follows_the_version_check(simulated_toolkit: Path, project: Path, tmp_path: Path) -> None:
    env = environment(simulated_toolkit)
    done = build(project, env, "-n", "none", "--disable-check-compatible")
    assert done.code == 0, done.all
    assert [entry.name for entry in (project / "output").iterdir()] == [f"CANN-custom_ops--linux.{MACHINE}.run"]
    old = create(tmp_path / "old", cann_version="8.1.RC1")
    listing = (old.recipes / "ops/ascendc/CMakeLists.txt").read_text()
    vendored = listing.replace('set(VENDOR_NAME "customize"', 'set(VENDOR_NAME "other_vendor"')
    assert vendored != listing
    (old.recipes / "ops/ascendc/CMakeLists.txt").write_text(vendored)
    done = build(old.recipes / "ops/ascendc", environment(old.root), "-n", "none")
    assert done.code == 0, done.all
    package = old.recipes / "ops/ascendc/output" / f"CANN-custom_ops-7.7.0.1-linux.{MACHINE}.run"
    assert package.is_file(), "an old toolkit has a component version that fits its project"
    assert call([package, "--quiet", f"--install-path={tmp_path}/there"]).code == 0
    assert (tmp_path / "there/vendors/other_vendor/version.info").read_text() == (
        "custom_opp_compiler_version=7.7.0.1.238\n"
    )


def test_libraries_of_both_generations(simulated_toolkit: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    old = create(tmp_path / "old", cann_version="8.1.RC1")
    assert time.monotonic() - begin < 3, "the libraries are compiled already"
    assert _libraries(old) == ["libascendcl.so", "libnnopbase.so"]
    assert _libraries(create(tmp_path / "new")) == ["libacl_rt.so", "libascendcl.so", "libnnopbase.so"]
    for sandbox in (tmp_path / "old", tmp_path / "new"):
        program = 'import ctypes; lib = ctypes.CDLL("libascendcl.so"); print(lib.aclInit(None))'
        done = call(["python3", "-c", program], env=environment(sandbox))
        assert (done.code, done.out) == (0, "0\n"), done.all


def _libraries(sandbox: SandboxInfo) -> list[str]:
    return sorted(path.name for path in (sandbox.home / "lib64").glob("*.so"))
