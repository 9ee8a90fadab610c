"""Make an offline bundle: one file with the tool, packages, manifest and digests, for machines without a network.

The file is a zip application: ``python3 FILE install`` runs on a bare Python. The same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import smallq_deploy
from smallq_deploy.base.errors import IncompatibleError, PackageError, SmallqError, UsageError, access_error
from smallq_deploy.base.fsops import fsync_dir, sha256_file
from smallq_deploy.base.proc import run
from smallq_deploy.base.versions import CannSpecifier, CannVersion
from smallq_deploy.operate.built import PROVENANCE, SBOM, kept_records
from smallq_deploy.operate.bundlefile import HEAD, INDEX, MAX_MEMBERS, MAX_SIZE, SUMS, Index, PackageEntry, open_bundle
from smallq_deploy.operate.bundletool import PYTHONS, Item, main_module, prove, runtime_record, tool_items
from smallq_deploy.package.releases import Release
from smallq_deploy.package.runfile import RunFile, read_run
from smallq_deploy.package.signature import NAMESPACE, signature_of

_EPOCH = (1980, 1, 1, 0, 0, 0)
# What belongs to a package: ending in the bundle -> its name where this tool keeps packages that it built.
_BESIDE = {".provenance.json": PROVENANCE, ".cdx.json": SBOM, ".sig": ""}


@dataclass(frozen=True)
class Wanted:
    """What ``bundle create`` is asked for. Empty tuples mean: all. ``packages`` are files; empty: those built here;
    with ``tool_only`` none."""

    packages: tuple[Path, ...] = ()
    arches: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    cann: CannSpecifier | None = None
    runtimes: tuple[Path, ...] = ()
    tool_only: bool = False


@dataclass(frozen=True)
class Created:
    """A bundle that was made, and that ran once on a bare interpreter."""

    path: Path
    sha256: str
    size: int
    index: Index
    left_out: tuple[tuple[str, str], ...]  # (package, reason)
    signature: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "bundle": str(self.path),
            "sha256": self.sha256,
            "size": self.size,
            **self.index.to_dict(),
            "signature": str(self.signature) if self.signature else None,
            "left_out": [{"package": name, "reason": reason} for name, reason in self.left_out],
        }


def create(output: Path, release: Release, wanted: Wanted, *, key: Path | None = None) -> Created:
    """Write the bundle ``output``, run it once, put it in place, and sign it with ``key``.

    Raises UsageError OUTPUT_EXISTS, NO_PACKAGE; PackageError BUNDLE_TOO_BIG, BUNDLE_INCOMPLETE,
    BAD_RUNTIME and what reading a package raises; access errors.
    """
    _check_output(output)
    chosen, left_out = ([], []) if wanted.tool_only else _choose(release, wanted)
    items = [Item("__main__.py", main_module())]
    entries = []
    for package, read, cann in chosen:
        entry, members = _package_items(package, read, cann)
        entries.append(entry)
        items += members
    manifest = f"manifests/{release.id}.yaml"
    items.append(Item(manifest, release.source.read_bytes()))
    distributions, tool = tool_items()
    items += tool
    runtimes = []
    for path in wanted.runtimes:
        record = runtime_record(path)
        runtimes.append(record)
        items.append(Item(record["path"], path, packed=False))
    index = Index(
        smallq_deploy.__version__,
        f">={PYTHONS[0]}",
        release.id,
        manifest,
        tuple(sorted(entries, key=lambda entry: entry.path)),
        tuple(distributions),
        tuple(sorted(runtimes, key=lambda record: record["arch"])),
    )
    items.append(Item(INDEX, (json.dumps(index.to_dict(), indent=2, sort_keys=True) + "\n").encode()))
    try:
        old = sha256_file(output) if output.is_file() else ""
        digest, size = _write(output, items)
        if old not in ("", digest):
            signature_of(output).unlink(missing_ok=True)  # it is of the bundle that was there before
    except OSError as error:
        raise access_error(error, f"write the bundle {output}") from error
    signature = _sign(output, key) if key is not None else None
    return Created(output, digest, size, index, tuple(left_out), signature)


def _sign(output: Path, key: Path) -> Path:
    """The detached signature of the bundle. Raises UsageError SIGN_FAILED; the bundle is there then, unsigned."""
    signature = signature_of(output)
    signature.unlink(missing_ok=True)  # ssh-keygen asks before it overwrites
    done = run(["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", NAMESPACE, output], timeout=300.0)
    if not done.ok or not signature.is_file():
        raise UsageError(
            "SIGN_FAILED",
            f"{output} is written, but not signed: ssh-keygen {done.describe()}",
            hint=done.tail(2).replace("\n", "; ") or "a key with a passphrase must be in the ssh agent",
        )
    return signature


def _check_output(output: Path) -> None:
    """Only another bundle is overwritten: a package named by mistake stays what it is."""
    if not os.path.lexists(output):
        return
    head = b""
    if output.is_file():
        try:
            with open(output, "rb") as stream:
                head = stream.read(len(HEAD))
        except OSError as error:
            raise access_error(error, f"look at {output}") from error
    if head != HEAD:
        raise UsageError(
            "OUTPUT_EXISTS", f"{output} is there already and is no bundle", hint="name another file with -o"
        )


def _choose(release: Release, wanted: Wanted) -> tuple[list[tuple[Path, RunFile, str]], list[tuple[str, str]]]:
    """(packages to take with the CANN version each was built with, packages left out with the reason)."""
    named = [(path, "") for path in wanted.packages]
    candidates = named or list(_kept(release.operator))
    taken: dict[str, tuple[Path, RunFile, str]] = {}
    same: set[tuple[str, ...]] = set()
    left_out: list[tuple[str, str]] = []
    for path, told in candidates:
        read = read_run(path)
        cann = told or _built_with(path, read)
        reason = _not_wanted(read, cann, release, wanted)
        kind = (read.vendor, read.arch, ",".join(read.units), cann)
        if not reason and not named and kind in same:
            reason = "a newer build for the same machines is taken"
        if reason:
            left_out.append((str(path), reason))
            continue
        same.add(kind)
        taken.setdefault(read.file_sha256, (path, read, cann))
    if not taken:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out)
        raise UsageError(
            "NO_PACKAGE",
            "no package for the bundle" + (f" ({why})" if why else ": none was named, and none was built here"),
            hint="name .run files, or make one with `smallq-deploy build`",
            details={"left_out": [{"package": name, "reason": reason} for name, reason in left_out]},
        )
    return list(taken.values()), left_out


def _kept(operator: str) -> Iterator[tuple[Path, str]]:
    """(package, CANN version) of every package built here, the newest first."""
    records = [(folder, record) for folder, record in kept_records() if record.get("operator") == operator]
    for folder, record in sorted(records, key=lambda item: str(item[1].get("created")), reverse=True):
        package = folder / str(record["package"]["name"])
        if package.is_file():
            yield package, str(record["toolkit"]["version"])


def _not_wanted(read: RunFile, cann: str, release: Release, wanted: Wanted) -> str:
    if release.operator not in read.ops:
        return f"it does not contain {release.operator}"
    if wanted.arches and read.arch not in wanted.arches:
        return f"it is for {read.arch or 'no architecture'}"
    if wanted.units and not set(wanted.units) & set(read.units):
        return f"it is for {', '.join(read.units) or 'no compute unit'}"
    if wanted.cann is not None:
        if not cann:
            return "it does not tell with which CANN it was built"
        return wanted.cann.rejects(CannVersion.parse(cann))
    return ""


def _built_with(path: Path, read: RunFile) -> str:
    """The CANN version of a package: from the provenance beside it, else from its version.info when it is one."""
    for place in (path.with_name(path.name + ".provenance.json"), path.with_name(PROVENANCE)):
        record = _is_about(place, read)
        try:
            if record:
                return str(CannVersion.parse(str(record["toolkit"]["version"])))
        except (KeyError, TypeError, SmallqError):
            continue
    try:
        version = CannVersion.parse(read.compiler_version)
    except SmallqError:
        return ""
    # Up to 8.3 it is a component version such as 7.7.0.1.238, which is no CANN version.
    return str(version) if version >= CannVersion.parse("8.0.0") else ""


def _is_about(place: Path, read: RunFile) -> dict[str, Any]:
    """The provenance in ``place`` when it is that of this package, else {}."""
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        return record if record["package"]["sha256"] == read.file_sha256 else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _package_items(path: Path, read: RunFile, cann: str) -> tuple[PackageEntry, list[Item]]:
    folder = f"packages/{read.file_sha256[:12]}"
    items = [Item(f"{folder}/{path.name}", path, packed=False)]
    own = _is_about(path.with_name(PROVENANCE), read)
    for suffix, kept_name in _BESIDE.items():
        places = [path.with_name(path.name + suffix), *([path.with_name(kept_name)] if own and kept_name else ())]
        place = next((place for place in places if place.is_file()), None)
        if place is not None:
            items.append(Item(f"{folder}/{path.name}{suffix}", place))
    entry = PackageEntry(
        items[0].name,
        read.file_sha256,
        items[0].size,
        read.vendor,
        read.arch,
        read.units,
        read.ops,
        cann,
        tuple(item.name for item in items[1:]),
    )
    return entry, items


def choose_package(
    index: Index, *, arch: str, cann: CannVersion, unit: str, vendor: str, allow_untested: bool = False
) -> tuple[PackageEntry, list[tuple[str, str]]]:
    """The package of a bundle for this machine, and why not each of the others.

    Built with exactly this CANN is best, else the newest that is not newer: a library that was built with a newer CANN
    may need symbols that an older one lacks (cann.md 7.1). Raises IncompatibleError NOT_IN_BUNDLE with every reason.
    """
    rejected: list[tuple[str, str]] = []
    fits: list[tuple[tuple[bool, bool, bool, tuple[Any, ...]], PackageEntry]] = []
    for entry in index.packages:
        reason = ""
        built = CannVersion.parse(entry.cann) if entry.cann else None
        if entry.arch != arch:
            reason = f"for {entry.arch}, the toolkit is for {arch}"
        elif unit and unit not in entry.units:
            reason = f"for {', '.join(entry.units)}, the devices are {unit}"
        elif entry.vendor != vendor:
            reason = f"for vendor {entry.vendor}, not {vendor}"
        elif built is not None and built > cann and not allow_untested:
            reason = f"built with CANN {built}, which is newer than {cann} here"
        if reason:
            rejected.append((entry.path, reason))
        else:
            older = built is not None and built <= cann
            fits.append(((built == cann, older, built is not None, built.key if built else ()), entry))
    if not fits:
        raise IncompatibleError(
            "NOT_IN_BUNDLE",
            "the bundle has no package for this machine: "
            + ("; ".join(f"{name}: {why}" for name, why in rejected) or "it holds the tool alone"),
            hint="make a bundle with a package for it, or choose the toolkit with --cann",
            details={"rejected": [{"package": name, "reason": why} for name, why in rejected]},
        )
    fits.sort(key=lambda item: item[0], reverse=True)
    best = fits[0][1]
    rejected += [(entry.path, f"built with CANN {entry.cann or '?'}; {best.name} fits better") for _, entry in fits[1:]]
    return best, rejected


def _write(output: Path, items: Sequence[Item]) -> tuple[str, int]:
    """Write, prove and rename; returns (sha256, size)."""
    if sum(item.size for item in items) >= MAX_SIZE or len(items) >= MAX_MEMBERS:
        raise PackageError(
            "BUNDLE_TOO_BIG",
            "the bundle would be larger than 4 GiB",
            hint="make one bundle for each architecture or CANN version",
        )
    sums = "".join(f"{_digest(item)}  {item.name}\n" for item in sorted(items, key=lambda item: item.name))
    folder = output.absolute().parent
    with tempfile.TemporaryDirectory(prefix=".smallq-bundle-", dir=folder) as name:
        draft = Path(name, output.name)
        with open(draft, "wb") as stream:
            stream.write(HEAD)
            with zipfile.ZipFile(stream, "w") as archive:
                for item in [*sorted(items, key=lambda item: item.name), Item(SUMS, sums.encode())]:
                    _add(archive, item)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o755)
        with open_bundle(draft):
            pass
        prove(draft, Path(name))
        digest, size = sha256_file(draft), draft.stat().st_size
        draft.rename(output)
    fsync_dir(folder)
    return digest, size


def _digest(item: Item) -> str:
    digest = hashlib.sha256()
    with item.open() as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _add(archive: zipfile.ZipFile, item: Item) -> None:
    info = zipfile.ZipInfo(item.name, _EPOCH)
    info.create_system = 3
    info.external_attr = (0o100755 if item.executable else 0o100644) << 16
    info.compress_type = zipfile.ZIP_DEFLATED if item.packed else zipfile.ZIP_STORED
    info.file_size = item.size
    with item.open() as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)
