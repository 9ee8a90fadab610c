"""Synthetic but structurally faithful packages and vendor trees (cann.md 4 and 5), whole or damaged on purpose.

``make_vendor_tree(root)`` writes what a package leaves in ``vendors/<vendor>``; ``make_run(path)`` packs the same tree
into a self-extracting ``.run`` whose script really installs. The libraries are real ELF files without code.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.elf import tiny_elf

OPERATOR = "SmallqFlashAttention"
UNIT = "ascend910b"
ARCH = platform.machine()


class Link(str):
    """A symlink's target, as a value of a file mapping."""


Files = dict[str, bytes | Link]


def snake(operator: str) -> str:
    """SmallqFlashAttention -> smallq_flash_attention."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operator).lower()


def vendor_files(
    *,
    ops: Sequence[str] = (OPERATOR,),
    unit: str = UNIT,
    arch: str = ARCH,
    content: str = "1",
    compiler_version: str = "8.5.0",
) -> Files:
    """The files of one vendor directory. Another ``content`` gives another build of the same operators."""
    tail = content.encode()
    tbe = "op_impl/ai_core/tbe"
    symbols = [name for op in ops for name in (f"aclnn{op}GetWorkspaceSize", f"aclnn{op}")]
    info: dict[str, object] = {}
    index: dict[str, object] = {}
    files: Files = {
        "version.info": f"custom_opp_compiler_version={compiler_version}\n".encode(),
        "op_api/lib/libcust_opapi.so": tiny_elf(symbols, arch=arch, needed=["libnnopbase.so"], tail=tail),
        f"op_proto/lib/linux/{arch}/libcust_opsproto_rt2.0.so": tiny_elf(arch=arch, tail=tail),
        f"{tbe}/op_tiling/lib/linux/{arch}/libcust_opmaster_rt2.0.so": tiny_elf(arch=arch, tail=tail),
        f"{tbe}/op_tiling/liboptiling.so": Link(f"lib/linux/{arch}/libcust_opmaster_rt2.0.so"),
    }
    for op in ops:
        name = snake(op)
        kernel = f"{op}_{hashlib.md5(op.encode()).hexdigest()}"
        binary = b"kernel of " + op.encode() + b" build " + tail
        declared = "".join(f"aclnnStatus {symbol}(void *);\n" for symbol in symbols if symbol.startswith(f"aclnn{op}"))
        files[f"op_api/include/aclnn_{name}.h"] = declared.encode()
        files[f"op_proto/inc/{name}_proto.h"] = f"// prototype of {op}\n".encode()
        files[f"{tbe}/customize_impl/dynamic/{name}.py"] = f"# entry of {op}\n".encode()
        files[f"{tbe}/customize_impl/ascendc/{name}/{name}.cpp"] = f"// kernel of {op}\n".encode()
        files[f"{tbe}/kernel/{unit}/{name}/{kernel}.o"] = binary
        files[f"{tbe}/kernel/{unit}/{name}/{kernel}.json"] = json.dumps(
            {"binFileName": kernel, "binFileSuffix": ".o", "sha256": hashlib.sha256(binary).hexdigest()}
        ).encode()
        entry = {"coreType": 5, "binPath": f"{unit}/{name}/{kernel}.o", "jsonPath": f"{unit}/{name}/{kernel}.json"}
        files[f"{tbe}/kernel/config/{unit}/{name}.json"] = json.dumps({"binList": [entry]}).encode()
        index[op] = {"dynamicRankSupport": True, "simplifiedKeyMode": 0, "binaryList": [entry]}
        info[op] = {"opFile": {"value": name}, "opInterface": {"value": name}}
    files[f"{tbe}/kernel/config/{unit}/binary_info_config.json"] = json.dumps(index).encode()
    files[f"{tbe}/config/{unit}/aic-{unit}-ops-info.json"] = json.dumps(info).encode()
    return files


def write_files(root: Path, files: Mapping[str, bytes | Link]) -> Path:
    """Write a file mapping below ``root`` (directories 755, files 644)."""
    root.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, Link):
            os.symlink(value, path)
        else:
            path.write_bytes(value)
            path.chmod(0o644)
    return root


def make_vendor_tree(
    root: Path,
    *,
    layout: str = "flat",
    vendor: str = "customize",
    set_env: str | None = None,
    ops: Sequence[str] = (OPERATOR,),
    unit: str = UNIT,
    arch: str = ARCH,
    content: str = "1",
) -> Path:
    """A vendor directory at ``root``; ``layout``: flat, nested, double, both (the same build twice), empty.

    ``set_env`` is the vendor path that ``bin/set_env.bash`` names (the file is left out when it is None).
    """
    files = vendor_files(ops=ops, unit=unit, arch=arch, content=content)
    if set_env is not None:
        files["bin/set_env.bash"] = (
            f"#!/bin/bash\nexport ASCEND_CUSTOM_OPP_PATH={set_env}:${{ASCEND_CUSTOM_OPP_PATH}}\n"
            f"export LD_LIBRARY_PATH={set_env}/op_api/lib/:${{LD_LIBRARY_PATH}}\n"
        ).encode()
    root.mkdir(parents=True, exist_ok=True)
    inner = root / "vendors" / vendor
    if layout in ("flat", "both"):
        write_files(root, files)
    if layout in ("nested", "both"):
        write_files(inner, files)
    if layout == "double":
        write_files(inner / "vendors" / vendor, files)
    return root


# --- the .run file ---

_HEADER = r"""#!/bin/bash
# A synthetic custom-operator package for tests.
CRCsum="1234567890"
MD5="00000000000000000000000000000000"
SHA="@SHA@"
label="version:1.0"
script="./install.sh"
scriptargs=""
targetdir="makeself"
filesizes="@SIZE@"
totalsize="@SIZE@"
skip="@SKIP@"
TMPDIR="${TMPDIR:-$HOME}"
here=$(mktemp -d "$TMPDIR/selfgz.XXXXXX") || exit 1
tail -n +$((skip + 1)) "$0" | gzip -dc | tar -xf - -C "$here" || exit 15
run="--$0"
from="--$PWD"
cd "$here" || exit 1
"$script" "$run" "$from" "$@"
status=$?
cd / && rm -rf "$here"
exit $status
"""

_INSTALL = r"""#!/bin/bash
# variant marker of the second template: --install-for-all
vendor=@VENDOR@
target=
for word in "$@"; do
    case "$word" in --install-path=*) target="${word#*=}" ;; --*) ;; *) break ;; esac
done
[ -n "$target" ] || { echo "[ops_custom] [ERROR] no target"; exit 1; }
mkdir -p "$target/vendors/$vendor"
for part in framework op_proto op_impl op_api; do
    [ -d "packages/vendors/$vendor/$part" ] || continue
    echo "[ops_custom] [INFO] upgrade $part"
    mkdir -p "$target/vendors/$vendor/$part"
    cp -rf "packages/vendors/$vendor/$part/"* "$target/vendors/$vendor/$part/" || exit 1
done
cp "packages/vendors/$vendor/version.info" "$target/vendors/$vendor/"
mkdir -p "$target/vendors/$vendor/bin"
cat >"$target/vendors/$vendor/bin/set_env.bash" <<END
#!/bin/bash
export ASCEND_CUSTOM_OPP_PATH=$target/vendors/$vendor:\${ASCEND_CUSTOM_OPP_PATH}
export LD_LIBRARY_PATH=$target/vendors/$vendor/op_api/lib/:\${LD_LIBRARY_PATH}
END
@LAST@
"""

Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> Member:
    """One tar entry, for hostile archives."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = kind, target, mode, len(data)
    return entry, data


def pack(members: Sequence[Member], *, format: int = tarfile.GNU_FORMAT) -> bytes:
    """A gzip'd tar of ``members``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 4, mtime=0)


def write_run(
    path: Path, payload: bytes, *, sha: str = "", size: int | None = None, header: str = _HEADER, trap: str = ""
) -> Path:
    """Header plus payload; ``sha`` and ``size`` replace the true figures; ``trap`` is a shell line the header runs."""
    if trap:
        header = header.replace("\n", f"\n{trap}\n", 1)
    text = header.replace("@SHA@", sha or hashlib.sha256(payload).hexdigest())
    text = text.replace("@SIZE@", str(len(payload) if size is None else size))
    text = text.replace("@SKIP@", str(text.count("\n")))
    path.write_bytes(text.encode() + payload)
    path.chmod(0o755)
    return path


def package_members(
    vendors: Mapping[str, Files], *, last: str = "echo SUCCESS", install: str = _INSTALL
) -> list[Member]:
    """The tar entries of a package: the script and ``packages/vendors/<vendor>/...``, names beginning with './'."""
    first = next(iter(vendors), "customize")
    script = install.replace("@VENDOR@", first).replace("@LAST@", last).encode()
    members = [
        member("./", kind=tarfile.DIRTYPE, mode=0o755),
        member("./help.info", b"  --install-path <path>\n"),
        member("./install.sh", script, mode=0o755),
        member("./packages", kind=tarfile.DIRTYPE, mode=0o755),
        member("./packages/vendors", kind=tarfile.DIRTYPE, mode=0o755),
    ]
    for vendor, files in vendors.items():
        root = f"./packages/vendors/{vendor}"
        directories = {""}
        for name in files:
            directories.update(str(parent) for parent in Path(name).parents if str(parent) != ".")
        members += [
            member(f"{root}/{name}".rstrip("/"), kind=tarfile.DIRTYPE, mode=0o755) for name in sorted(directories)
        ]
        for name, value in sorted(files.items()):
            if isinstance(value, Link):
                members.append(member(f"{root}/{name}", kind=tarfile.SYMTYPE, target=str(value), mode=0o777))
            else:
                members.append(member(f"{root}/{name}", value))
    return members


def make_run(
    path: Path,
    *,
    vendor: str = "customize",
    ops: Sequence[str] = (OPERATOR,),
    unit: str = UNIT,
    arch: str = ARCH,
    content: str = "1",
    damage: str = "",
    trap: str = "",
) -> Path:
    """A package at ``path``. ``damage`` is a name in DAMAGES (the value there is the code reading it must give).

    ``trap`` is a shell line that runs first when somebody executes the package, or the install script in it.
    """
    files = vendor_files(ops=ops, unit=unit, arch=arch, content=content)
    if damage in _FILE_DAMAGES:
        _FILE_DAMAGES[damage](files)
    vendors = {vendor: files}
    if damage == "several_vendors":
        vendors["other"] = vendor_files(ops=("VecAddSample",), unit=unit, arch=arch)
    if damage == "no_vendor":
        vendors = {}
    members = package_members(vendors, install=_INSTALL.replace("\n", f"\n{trap}\n", 1) if trap else _INSTALL)
    if damage in _MEMBER_DAMAGES:
        members += _MEMBER_DAMAGES[damage](f"./packages/vendors/{vendor}")
    payload = pack(members)
    if damage == "many_entries":
        payload = _many_entries()
    if damage == "bad_gzip":
        payload = payload[: len(payload) // 2]
    if damage == "not_gzip":
        payload = b"BZh9" + payload[4:]
    if damage == "not_tar":
        payload = gzip.compress(b"no tar archive at all, just text\n" * 100, mtime=0)
    if damage == "wrong_sha":
        return write_run(path, payload, sha="ab" * 32, trap=trap)
    if damage == "flipped_byte":
        write_run(path, payload, trap=trap)
        raw = bytearray(path.read_bytes())
        raw[-40] ^= 0x10
        path.write_bytes(raw)
        return path
    if damage == "wrong_size":
        return write_run(path, payload, size=len(payload) - 7, trap=trap)
    if damage == "no_skip":
        return write_run(path, payload, header=_HEADER.replace('skip="@SKIP@"\n', ""), trap=trap)
    if damage == "no_sha":
        return write_run(path, payload, header=_HEADER.replace('SHA="@SHA@"\n', ""), trap=trap)
    write_run(path, payload, trap=trap)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    if damage == "half_header":
        path.write_bytes(path.read_bytes()[:520])
    if damage == "trailing":
        path.write_bytes(path.read_bytes() + b"and more")
    if damage == "not_run":
        path.write_bytes(b"PK\x03\x04" + bytes(5000))
    if damage == "html":
        path.write_bytes(b"<!DOCTYPE html><html><body>404 not found</body></html>\n")
    if damage == "zero_bytes":
        path.write_bytes(b"")
    return path


def _drop_ops(files: Files) -> None:
    for name in list(files):
        if name.endswith(("ops-info.json", "binary_info_config.json")):
            files[name] = b"{}"


def _break_json(files: Files) -> None:
    for name in files:
        if name.endswith("ops-info.json"):
            files[name] = b'{"SmallqFlashAttention": '


def _drop_kernel(files: Files) -> None:
    for name in [name for name in files if name.endswith(".o")]:
        del files[name]


def _change_kernel(files: Files) -> None:
    for name in files:
        if name.endswith(".o"):
            files[name] = b"other bytes"


def _no_symbols(files: Files) -> None:
    files["op_api/lib/libcust_opapi.so"] = tiny_elf(["aclnnSomethingElse"], arch=ARCH)


def _mixed_arch(files: Files) -> None:
    files["op_api/lib/libcust_opapi.so"] = tiny_elf(["aclnnX"], arch="aarch64" if ARCH != "aarch64" else "x86_64")


def _many_entries() -> bytes:
    """One directory entry, 100,001 times."""
    entry = member("./packages", kind=tarfile.DIRTYPE, mode=0o755)[0]
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) * 100_001 + bytes(1024), 1, mtime=0)


_FILE_DAMAGES: dict[str, Callable[[Files], None]] = {
    "no_ops": _drop_ops,
    "bad_json": _break_json,
    "missing_kernel": _drop_kernel,
    "kernel_digest": _change_kernel,
    "no_symbols": _no_symbols,
    "mixed_arch": _mixed_arch,
}

_MEMBER_DAMAGES: dict[str, Callable[[str], list[Member]]] = {
    "traversal": lambda root: [member(f"{root}/../../../../escaped", b"x")],
    "absolute": lambda root: [member("/escaped", b"x")],
    "link_out": lambda root: [member(f"{root}/out", kind=tarfile.SYMTYPE, target="../../../../escaped")],
    "link_absolute": lambda root: [member(f"{root}/out", kind=tarfile.SYMTYPE, target="/etc")],
    "link_hidden_out": lambda root: [
        member(f"{root}/op_api/up", kind=tarfile.SYMTYPE, target=".."),
        member(f"{root}/op_api/out", kind=tarfile.SYMTYPE, target="up/../../.."),
    ],
    "link_then_write": lambda root: [
        member(f"{root}/door", kind=tarfile.SYMTYPE, target="op_api"),
        member(f"{root}/door/escaped", b"x"),
    ],
    "link_loop": lambda root: [member(f"{root}/loop", kind=tarfile.SYMTYPE, target="")],
    "file_then_child": lambda root: [member(f"{root}/version.info/child", b"x")],
    "hardlink": lambda root: [member(f"{root}/hard", kind=tarfile.LNKTYPE, target="/etc/passwd")],
    "device": lambda root: [member(f"{root}/dev", kind=tarfile.CHRTYPE)],
    "fifo": lambda root: [member(f"{root}/pipe", kind=tarfile.FIFOTYPE)],
    "setuid": lambda root: [member(f"{root}/su", b"x", mode=0o4755)],
    "newline_name": lambda root: [member(f"{root}/a\nb", b"x")],
    "ansi_name": lambda root: [member(f"{root}/\x1b[2Jx", b"x")],
    "non_utf8_name": lambda root: [member(f"{root}/\udcff\udcfe", b"x")],
    "case_clash": lambda root: [member(f"{root}/Version.info", b"x")],
    "duplicate": lambda root: [member(f"{root}/version.info", b"custom_opp_compiler_version=9\n")],
    "long_name": lambda root: [member(f"{root}/{'n' * 300}", b"x")],
    "bad_vendor_name": lambda root: [member("./packages/vendors/a b;rm/version.info", b"x")],
    "bomb": lambda root: [member(f"{root}/zeros", bytes(200 << 20))],
}

# Damage -> code that read_run raises; empty where reading succeeds and only validation of the tree finds it.
DAMAGES: Mapping[str, str] = {
    "not_run": "NOT_A_RUN",
    "html": "NOT_A_RUN",
    "zero_bytes": "NOT_A_RUN",
    "no_skip": "NOT_A_RUN",
    "no_sha": "CHECKSUM",
    "half_header": "TRUNCATED",
    "truncated": "TRUNCATED",
    "trailing": "TRAILING_DATA",
    "wrong_size": "TRAILING_DATA",
    "wrong_sha": "CHECKSUM",
    "flipped_byte": "CHECKSUM",
    "bad_gzip": "BAD_ARCHIVE",
    "not_gzip": "BAD_ARCHIVE",
    "not_tar": "BAD_ARCHIVE",
    "no_vendor": "NO_VENDOR",
    "several_vendors": "SEVERAL_VENDORS",
    "no_ops": "EMPTY_PACKAGE",
    "bad_json": "BAD_CONTENT",
    "mixed_arch": "MIXED_ARCH",
    "missing_kernel": "",
    "kernel_digest": "",
    "no_symbols": "",
    "many_entries": "TOO_BIG",
    "bomb": "TOO_BIG",
    "bad_vendor_name": "UNSAFE_MEMBER",
    **{name: "UNSAFE_MEMBER" for name in _MEMBER_DAMAGES if name not in ("bomb", "bad_vendor_name")},
}
