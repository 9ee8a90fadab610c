"""``bundle create``, ``verify`` and ``dockerfile``; and how ``install`` takes its package from a bundle."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.options import PATH, Call, command, group, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table
from smallq_deploy.cli.session import DEFAULT_VENDOR, Session
from smallq_deploy.cli.signing import Signing, require_option, require_same, signers_option

if TYPE_CHECKING:
    from smallq_deploy.operate.bundlefile import Index, PackageEntry
    from smallq_deploy.package.runfile import RunFile

# Set by a bundle that was started itself (bundle_main.py): its own path.
STARTED_FROM = "SMALLQ_DEPLOY_STARTED_FROM"


@group(epilog="\b\nExample:\n  smallq-deploy bundle create -o smallq.pyz ./CANN-custom_ops-8.5.0-linux.aarch64.run")
def bundle() -> None:
    """One file for machines without a network: the tool, packages and digests.

    Such a file is also the tool itself: `python3 FILE install` needs nothing but Python 3.10 and CANN.
    """


def own_bundle() -> Path | None:
    """The bundle that this process was started from."""
    value = os.environ.get(STARTED_FROM)
    return Path(value) if value and os.path.isfile(value) else None


# ------------------------------------------------------------------------------------------------------------ create


@command("bundle create", toolkit=False, release=True, example="smallq-deploy bundle create -o smallq.pyz PACKAGE.run")
@click.argument("packages", metavar="[PACKAGE]...", type=PATH, nargs=-1)
@option("--output", "-o", type=PATH, metavar="FILE", help="The bundle. Default: the release's name and .pyz, here.")
@option("--arch", "arches", multiple=True, metavar="ARCH", help="Only packages for aarch64 or x86_64. Repeatable.")
@option("--soc", "socs", multiple=True, metavar="NAME", help="Only packages for this chip or unit. Repeatable.")
@option("--for-cann", metavar="RANGE", help="Only packages built with such a CANN, for example '>=8.5.0,<9.0.0'.")
@option(
    "--python-runtime",
    "runtimes",
    type=PATH,
    multiple=True,
    metavar="TARBALL",
    help="Carry this relocatable Python, for machines whose own is older than 3.10. Repeatable, one for each ARCH.",
)
@option("--tool-only", is_flag=True, help="No packages: the tool alone, to look at machines without installing.")
@option("--sign", "key", type=PATH, metavar="KEY", help="Sign the bundle with this ssh key (ssh-keygen), beside it.")
def create(
    call: Call,
    packages: tuple[Path, ...],
    output: Path | None,
    arches: tuple[str, ...],
    socs: tuple[str, ...],
    for_cann: str | None,
    runtimes: tuple[Path, ...],
    tool_only: bool,
    key: Path | None,
) -> Answer:
    """Pack the tool and PACKAGE files (default: every one that was built here) into one file.

    The bundle is run once on a bare Python before it gets its name. The same inputs give the same bytes.
    """
    from smallq_deploy.base.versions import CannSpecifier, compute_unit
    from smallq_deploy.operate.bundle import Wanted
    from smallq_deploy.operate.bundle import create as create_bundle

    release = Session(call, mutating=False).release
    wanted = Wanted(
        packages,
        arches,
        tuple(compute_unit(name) or name.lower() for name in socs),
        CannSpecifier.parse(for_cann) if for_cann is not None else None,
        runtimes,
        tool_only,
    )
    if tool_only and packages:
        raise UsageError("USAGE", "PACKAGE and --tool-only exclude each other", hint="leave one of them out")
    with call.events.step("pack the bundle and run it once on a bare Python"):
        made = create_bundle(output or Path(f"{release.id}.pyz"), release, wanted, key=key)
    for name, reason in made.left_out:
        call.events.note(f"left out {name}: {reason}")
    blocks: list[Block] = [
        Line(f"bundle: {made.path} ({made.size / (1 << 20):.1f} MiB)"),
        Facts(
            [
                ("release", made.index.release),
                ("sha256", made.sha256),
                ("interpreters", _runtimes(made.index)),
                ("signature", str(made.signature or "")),
            ]
        ),
        *_contents(made.index),
        Bullets(
            "on the other machine:",
            [f"python3 {made.path.name} {words}" for words in ("bundle verify", "status" if tool_only else "install")],
        ),
    ]
    return Answer(made.to_dict(), blocks)


def _runtimes(index: Index) -> str:
    return ", ".join(f"{entry['path'].rpartition('/')[2]} ({entry['arch']})" for entry in index.runtimes)


def _contents(index: Index) -> list[Block]:
    rows = [
        (entry.name, entry.arch, ", ".join(entry.units), entry.cann or "not told", entry.vendor, entry.sha256[:12])
        for entry in index.packages
    ]
    return [Table(("package", "arch", "unit", "CANN", "vendor", "sha256"), rows)] if rows else []


# ------------------------------------------------------------------------------------------------------------ verify


@command("bundle verify", toolkit=False, example="smallq-deploy bundle verify smallq.pyz")
@click.argument("file", type=PATH, required=False)
@require_option
@signers_option
def verify(call: Call, file: Path | None, require_signature: bool, allowed_signers: Path | None) -> Answer:
    """Read the bundle FILE to its last byte: layout, digests, and each package as `install` reads it.

    Without FILE the bundle that this tool was started from. Digests tell a damaged copy from a whole one; who made it
    only the sha256 that its maker told you can say, or the signature beside it, which is checked first.
    """
    from smallq_deploy.operate.bundlefile import verify_bundle

    path = _named_bundle(file)
    checked = Signing(allowed_signers, require_signature).check(call, path)
    with call.events.step("read the bundle"), tempfile.TemporaryDirectory(prefix="smallq-bundle-") as scratch:
        found = verify_bundle(path, Path(scratch))
    require_same(path, checked, found.sha256)
    blocks: list[Block] = [
        Line(f"{path} is whole: {found.members} members, {len(found.index.packages)} packages"),
        Facts(
            [
                ("release", found.index.release),
                ("tool", f"smallq-deploy {found.index.tool_version}, Python {found.index.python}"),
                ("interpreters", _runtimes(found.index)),
                ("sha256", found.sha256),
                ("signature", f"{checked.state} {checked.signer}".strip()),
            ]
        ),
        *_contents(found.index),
    ]
    return Answer({**found.to_dict(), "signature": checked.to_dict()}, blocks)


def _named_bundle(file: Path | None) -> Path:
    path = file or own_bundle()
    if path is None:
        raise UsageError(
            "MISSING_PARAMETER", "no bundle was named", hint="`smallq-deploy bundle create` makes one; name its file"
        )
    return path


# -------------------------------------------------------------------------------------------------------- dockerfile

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_WORD = re.compile(r"[A-Za-z0-9_./-]{1,255}")
_PLACE = "/usr/local/bin/smallq-deploy"


@command(
    "bundle dockerfile", toolkit=False, example="smallq-deploy bundle dockerfile smallq.pyz --from IMAGE > Dockerfile"
)
@click.argument("file", type=PATH, required=False)
@option("--from", "image", metavar="IMAGE", help="The image with CANN to build on. Needed.")
@option("--soc", metavar="NAME", help="Chip or compute unit of the machines that will run it. Default: the package's.")
@option("--cann", "cann", metavar="DIR", help="The toolkit in the image. Default: search, as `detect` does.")
def dockerfile(call: Call, file: Path | None, image: str | None, soc: str | None) -> Answer:
    """Print a Dockerfile that installs the bundle FILE into the CANN of an image, without a device.

    There is no NPU at build time, so the generation is recorded as unproven, and `status` in the container says so.
    The bundle stays in the image as /usr/local/bin/smallq-deploy: `smallq-deploy smoke` proves the operator where
    there is a device.
    """
    from smallq_deploy.operate.bundlefile import open_bundle

    path = _named_bundle(file)
    if image is None or not _IMAGE.fullmatch(image):
        shown = "" if image is None else f", not {image!r:.80}"
        raise UsageError(
            "BAD_IMAGE",
            f"--from takes the name of an image with CANN{shown}",
            hint="NAME:TAG, as `docker images` shows it",
        )
    cann = str(call.cann) if call.cann is not None else None
    for name, value, pattern in (("--soc", soc, _WORD), ("--cann", cann, _WORD), ("FILE", path.name, _PLAIN)):
        if value is not None and not pattern.fullmatch(value):
            raise UsageError("BAD_VALUE", f"{name}: {value!r:.80} cannot stand in a Dockerfile", hint="use plain names")
    with open_bundle(path) as opened:
        index = opened.index
    units = sorted({unit for entry in index.packages for unit in entry.units})
    if not units:
        raise UsageError(
            "NO_PACKAGE", f"{path} holds the tool alone", hint="`bundle create` with packages makes another"
        )
    if soc is None and len(units) != 1:
        raise UsageError(
            "UNIT_NEEDED", f"the bundle has packages for {', '.join(units)}", hint=f"say which, as --soc {units[0]}"
        )
    install = f"python3 {_PLACE} install --no-smoke --yes --soc {soc or units[0]}"
    if cann is not None:
        install += f" --cann {cann}"
    lines = [
        f"# {index.release} in the CANN of {image}. Build it where {path.name} lies:",
        "#   docker build -f Dockerfile -t IMAGE-WITH-OPERATOR .",
        f"FROM {image}",
        f"COPY {path.name} {_PLACE}",
        "# No device here: the generation is recorded as unproven. In a container with an NPU: smallq-deploy smoke",
        f"RUN chmod 755 {_PLACE} \\",
        f" && XDG_CACHE_HOME=/tmp/smallq-cache {install} \\",
        " && rm -rf /tmp/smallq-cache",
    ]
    data = {"bundle": str(path), "image": image, "release": index.release, "dockerfile": "\n".join(lines) + "\n"}
    return Answer(data, [Line(line) for line in lines], raw=True)


# ----------------------------------------------------------------------------------------------------------- install


def use_bundle(call: Call, values: dict[str, Any]) -> BundleSource | None:
    """The bundle to install from: --bundle, else the one this tool was started from when no package is named."""
    named: Path | None = values.pop("bundle")
    if named is not None and values["package"] is not None:
        raise UsageError("USAGE", "PACKAGE and --bundle exclude each other", hint="name one of them")
    path = named or (own_bundle() if values["package"] is None and values["recipes"] is None else None)
    source = BundleSource(call, path) if path is not None else None
    return None if source is not None and named is None and not source.index.packages else source


class BundleSource:
    """A bundle as the source of package and release; what is taken out lies in a directory until the command ends."""

    def __init__(self, call: Call, path: Path) -> None:
        from smallq_deploy.operate.bundlefile import open_bundle

        self.path = path
        self.call = call
        self.folder = Path(
            click.get_current_context().with_resource(tempfile.TemporaryDirectory(prefix="smallq-bundle-"))
        )
        with open_bundle(path) as opened:
            self.index = opened.index
            if call.release is None:
                # Its vendor counts only where the command line names none; `status` looks at the same place then.
                call.release = opened.extract(self.index.manifest, self.folder)
                if call.vendor is None and not any(item.vendor != DEFAULT_VENDOR for item in self.index.packages):
                    call.vendor = DEFAULT_VENDOR

    def run_file(self, session: Session, unit: str, *, allow_untested: bool) -> RunFile:
        """The package for this machine. Raises IncompatibleError NOT_IN_BUNDLE, PackageError BAD_BUNDLE."""
        from smallq_deploy.operate.bundle import choose_package
        from smallq_deploy.operate.bundlefile import open_bundle
        from smallq_deploy.package.runfile import read_run

        toolkit = session.toolkit
        entry: PackageEntry
        entry, rejected = choose_package(
            self.index,
            arch=toolkit.arch,
            cann=toolkit.version,
            unit=unit,
            vendor=session.vendor,
            allow_untested=allow_untested,
        )
        for name, reason in rejected:
            self.call.events.note(f"not {name}: {reason}")
        self.call.events.note(f"package from {self.path}: {entry.path}")
        with open_bundle(self.path) as opened:
            return read_run(opened.extract(entry.path, self.folder))


create.short_help = "Pack the tool and packages into one file."
verify.short_help = "Read a bundle to its last byte."
dockerfile.short_help = "A Dockerfile that installs a bundle."
bundle.add_command(create)
bundle.add_command(verify)
bundle.add_command(dockerfile)
