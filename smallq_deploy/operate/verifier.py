"""Is what lies in the vendor directory what was installed, and does it lie where CANN looks?

For a tree we installed, every entry is compared with its generation's manifest, as ``rpm -V`` does. For any tree the
static checks of package/validate.py are made, and config.ini is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import DifferencesError, access_error
from smallq_deploy.base.fsops import FileEntry
from smallq_deploy.operate.readahead import TreeReader
from smallq_deploy.package.validate import Finding, validate_vendor
from smallq_deploy.package.vendortree import ops_of_vendor, other_vendors
from smallq_deploy.store.configini import ConfigIni, read_config
from smallq_deploy.store.generations import Generation, check_manifest, find_generation, read_state
from smallq_deploy.store.live import check_place, live_exists
from smallq_deploy.store.paths import Store
from smallq_deploy.store.recovery import refuse_open, steady

if TYPE_CHECKING:
    from smallq_deploy.package.releases import Release

LETTERS = "SM5LT"
LETTER_MEANINGS = {
    "S": "size differs",
    "M": "mode or kind differs",
    "5": "content differs (sha256)",
    "L": "link points elsewhere",
    "T": "modification time differs",
}


@dataclass(frozen=True)
class Difference:
    """One entry of the live tree that is not as installed. ``letters`` is ``SM5LT`` with dots for what is equal, or
    ``missing`` or ``added``."""

    path: str
    letters: str

    def to_dict(self) -> dict[str, str]:
        return {"path": self.path, "letters": self.letters}


@dataclass(frozen=True)
class VerifyReport:
    """``state``: ``installed``, ``adopted`` (a generation found, not made by us), ``unknown`` (no generation describes
    the tree), ``missing`` (a generation should be live) or ``absent`` (nothing is installed)."""

    store: Store
    state: str
    generation: Generation | None
    checked: int  # entries compared with the manifest
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """True when nothing was found."""
        return not self.differences and not self.findings

    @property
    def failure(self) -> DifferencesError | None:
        """What the caller raises after having shown the report; None when it is clean."""
        if self.clean:
            return None
        counts = []
        if self.differences:
            counts.append(f"{len(self.differences)} of {self.checked} entries differ from what was installed")
        if self.findings:
            counts.append(f"{len(self.findings)} finding{'s' if len(self.findings) > 1 else ''}")
        if self.state == "absent":
            hint = "`smallq-deploy install` installs the operator"
        elif any(finding.code in REPAIRABLE for finding in self.findings):
            hint = "`smallq-deploy repair` fixes the layout, set_env.bash, modes and config.ini"
        else:
            hint = "`smallq-deploy verify --repair` puts the package's files back"
        return DifferencesError(
            self.findings[0].code if self.findings and not self.differences else "DIFFERENCES",
            f"{self.store.live}: {', '.join(counts)}",
            hint=hint,
            details=self.to_dict(),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "vendor": self.store.vendor,
            "live_path": str(self.store.live),
            "state": self.state,
            "generation": self.generation.number if self.generation else None,
            "checked": self.checked,
            "clean": self.clean,
            "differences": [item.to_dict() for item in self.differences],
            "findings": [item.to_dict() for item in self.findings],
        }


# What repair can put right; the other findings need a package.
REPAIRABLE = frozenset(
    {
        "NESTED_LAYOUT",
        "BOTH_LAYOUTS",
        "SET_ENV_DANGLING",
        "WRONG_MODE",
        "STRAY_CONFIG_INI",
        "VENDOR_NOT_LISTED",
        "CONFIG_MALFORMED",
    }
)


def verify(store: Store, release: Release, *, unit: str = "", arch: str = "") -> VerifyReport:
    """Compare the live tree with its generation and make the static checks; changes nothing, takes no lock.

    ``unit`` and ``arch`` are the machine's ('' = those of the tree). Raises OpenTransactionError OPEN_TRANSACTION,
    InstallError STORE_DAMAGED, ConflictError for places that are no directories, AccessError.
    """
    return verify_while(store, lambda: (release, unit), arch=arch)


def verify_while(
    store: Store, ask: Callable[[], tuple[Release, str]], *, arch: str = "", ahead: TreeReader | None = None
) -> VerifyReport:
    """:func:`verify` with the release and the unit that ``ask`` gives, which is called while the files are being read.

    ``ahead`` has begun to read the live tree already; what it found counts where it is as installed, else the tree is
    read again. ``ask`` may be called again when the tree was switched meanwhile. Raises also what ``ask`` raises.
    """
    readers = [ahead] if ahead is not None else []
    return steady(store, lambda: _verify(store, ask, arch, readers.pop() if readers else None))


def _verify(store: Store, ask: Callable[[], tuple[Release, str]], arch: str, ahead: TreeReader | None) -> VerifyReport:
    check_place(store)
    refuse_open(store)
    current = read_state(store).of(store.vendor).current
    generation = find_generation(store, current)
    if not live_exists(store):
        release, _ = ask()
        state = "missing" if current else "absent"
        should = f"generation {current} should be live" if current else "nothing is installed"
        gone = Finding(
            "NOT_INSTALLED", "fail", f"{store.live} does not exist: {should}", "install a package", str(store.live)
        )
        return VerifyReport(store, state, generation, 0, (), (gone, *config_findings(store, release, generation)))
    reader = (ahead or TreeReader(store.live)) if generation is not None else None
    release, unit = ask()
    findings = (
        *static_findings(store, release, unit=unit, arch=arch or (generation.arch if generation else "")),
        *config_findings(store, release, generation),
    )
    if generation is None or reader is None:
        return VerifyReport(store, "unknown", None, 0, (), findings)
    manifest = check_manifest(store, generation)
    differences = _differences(store, manifest, reader, sure=reader is not ahead)
    state = "adopted" if generation.origin == "adopted" else "installed"
    return VerifyReport(store, state, generation, len(manifest), differences, findings)


def _differences(
    store: Store, manifest: tuple[FileEntry, ...], reader: TreeReader, *, sure: bool
) -> tuple[Difference, ...]:
    """``sure``: reading began when no transaction was under way."""
    try:
        found = compare(manifest, reader.entries())
        if sure or not found:
            return found
    except OSError as error:
        if sure:
            raise access_error(error, f"read {error.filename or store.live}") from error
    return _differences(store, manifest, TreeReader(store.live), sure=True)


def compare(expected: Iterable[FileEntry], present: Iterable[FileEntry]) -> tuple[Difference, ...]:
    """Entries that differ, sorted by path. A time alone is no difference: a copied tree is the same tree."""
    before = {entry.path: entry for entry in expected}
    now = {entry.path: entry for entry in present}
    found = []
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            found.append(Difference(path, "missing"))
        elif path not in before:
            found.append(Difference(path, "added"))
        else:
            letters = _letters(before[path], now[path])
            if letters.strip(".T"):
                found.append(Difference(path, letters))
    return tuple(found)


def _letters(before: FileEntry, now: FileEntry) -> str:
    files = before.kind == now.kind == "file"
    marks = {
        "S": files and before.size != now.size,
        "M": before.kind != now.kind or before.mode != now.mode,
        "5": files and before.sha256 != now.sha256,
        "L": before.target != now.target,
        "T": files and before.mtime_ns != now.mtime_ns,
    }
    return "".join(letter if marks[letter] else "." for letter in LETTERS)


def static_findings(store: Store, release: Release, *, unit: str = "", arch: str = "") -> tuple[Finding, ...]:
    """The checks of a vendor tree that need no record of ours."""
    if not unit and len(release.units) == 1:
        unit = release.units[0]
    return validate_vendor(
        store.live,
        operator=release.operator,
        unit=unit,
        arch=arch,
        vendor=store.vendor,
        symbols=release.required_symbols,
        files=release.files_for(unit=unit, arch=arch) if unit and arch else (),
    )


def config_findings(store: Store, release: Release, generation: Generation | None = None) -> tuple[Finding, ...]:
    """Does config.ini lead every reader of CANN to the live directory, and first to ours for our operator?"""
    config = read_config(store)
    path = str(store.config_ini)
    found: list[Finding] = []
    listed = store.vendor in config.names
    if live_exists(store) and not listed:
        text = f"{path} does not name {store.vendor}, so CANN does not look into {store.live}"
        if config.text is None:
            text = f"{path} does not exist, so CANN does not look into {store.live}"
        found.append(
            Finding("VENDOR_NOT_LISTED", "fail", text, "`smallq-deploy repair` adds it, as install does", path)
        )
    if config.text is not None and config.problems:
        text = f"{path}: {'; '.join(config.problems)}: some parts of CANN then ignore vendors"
        found.append(Finding("CONFIG_MALFORMED", "warn", text, "`smallq-deploy repair` rewrites it", path))
    for name in config.names:
        if not (store.vendors / name).is_dir() and not (name == store.vendor and generation is not None):
            text = f"{path} names {name}, but {store.vendors / name} does not exist"
            found.append(Finding("CONFIG_DANGLING", "warn", text, f"take {name} out of the file", path))
    allowed = bool(generation and generation.flags.get("allow_shadowed"))
    if listed and not allowed and release.operator in ops_of_vendor(store.live):
        found += _shadows(store, release.operator, config)
    return tuple(found)


def _shadows(store: Store, operator: str, config: ConfigIni) -> Iterable[Finding]:
    others = other_vendors(store.vendors, without=store.vendor)
    for name in config.names[: config.names.index(store.vendor)]:
        if operator in others.get(name, ()):
            text = f"vendor {name} also has {operator} and comes first in config.ini, so its copy is used"
            hint = f"`smallq-deploy install --reinstall --priority first`, or remove {name}"
            yield Finding("SHADOWED", "fail", text, hint, str(store.vendors / name))
