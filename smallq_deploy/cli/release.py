"""``release list``, ``show``, ``verify`` and ``fetch``: which releases there are, and how their packages get here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import PackageError, UsageError
from smallq_deploy.cli.options import PATH, Call, command, group, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table
from smallq_deploy.cli.signing import require_option, require_same, signers_option

if TYPE_CHECKING:
    from smallq_deploy.package.compat import Target
    from smallq_deploy.package.releases import Release
    from smallq_deploy.package.selection import Candidates
    from smallq_deploy.package.signature import Checked

_SHA256 = 64
_STATES = {
    "good": "good",
    "unsigned": "none",
    "unchecked": "there is one, but nothing says whom to believe (--allowed-signers)",
}


@group(epilog="\b\nExample:\n  smallq-deploy release list")
def release() -> None:
    """Look at operator releases, and fetch and verify their packages.

    Releases are manifests: those that come with the tool, and your own in
    ~/.local/share/smallq-deploy/manifests/releases.
    """


_MACHINE = (
    option("--soc", metavar="NAME", help="For this chip or compute unit, such as ascend910b. Default: the NPUs found."),
    option("--arch", type=click.Choice(["aarch64", "x86_64"]), help="For this architecture. Default: the toolkit's."),
    option("--cann-version", metavar="VERSION", help="For this CANN, such as 8.5.0. Default: the toolkit's."),
)


def _machine_options(function: Any) -> Any:
    for add in reversed(_MACHINE):
        function = add(function)
    return function


def _target(call: Call, soc: str | None, arch: str | None, cann_version: str | None) -> Target:
    """The machine that is asked about: this one, but for what the options say."""
    from dataclasses import replace

    from smallq_deploy.base.versions import CannVersion
    from smallq_deploy.machine.devices import unit_named
    from smallq_deploy.machine.environment import detect_environment
    from smallq_deploy.package.compat import Target

    found = detect_environment(cann=call.cann, opp=call.opp)
    for warning in found.warnings:
        call.events.warning(warning)
    toolkit = found.toolkit
    target = Target.of(found, unit_named(soc, toolkit) if soc else "")
    if toolkit is None:
        target = replace(target, arch="")  # a laptop says nothing about the machine that is meant
    else:
        call.toolkit_line = f"CANN {toolkit.version}, {toolkit.home}"
        if toolkit.remark:
            call.toolkit_line = f"[{toolkit.remark}] {call.toolkit_line}"
    if arch is not None:
        target = replace(target, arch=arch)
    if cann_version is not None:
        target = replace(target, cann=CannVersion.parse(cann_version), driver=None)
    return target


def _candidates(call: Call) -> Candidates:
    from smallq_deploy.package.selection import find_releases

    found = find_releases()
    for item in found.unreadable:
        call.events.warning(f"{item.source} is not used: {'; '.join(item.reasons)}")
    return found


def _judged(releases: tuple[Release, ...], target: Target, allow: dict[str, bool]) -> list[dict[str, Any]]:
    """Each release with the reasons why it does not fit; the newest of a name that fits is chosen."""
    from smallq_deploy.package.compat import Policy
    from smallq_deploy.package.selection import select_release

    rows: list[dict[str, Any]] = []
    chosen: set[str] = set()
    for item in releases:
        selection = select_release(target, [item], Policy(**allow), name=item.name)
        fits = selection.chosen is not None
        rows.append(
            {
                "release": item.id,
                "operator": item.operator,
                "cann": str(item.cann),
                "units": list(item.units),
                "source": str(item.source),
                "packages": len(item.artifacts),
                "fits": fits,
                "chosen": fits and item.name not in chosen,
                "reasons": [reason for rejection in selection.rejected for reason in rejection.reasons],
                "warnings": list(selection.warnings),
            }
        )
        if fits:
            chosen.add(item.name)
    return rows


_POLICY = (
    option("--allow-prerelease", is_flag=True, help="Pre-releases of the operator and of CANN count as fitting."),
    option("--allow-untested", is_flag=True, help="Combinations that nobody tested count as fitting."),
)


@command("release list", example="smallq-deploy release list --cann-version 8.5.0 --soc ascend910b --arch aarch64")
@_machine_options
@_POLICY[0]
@_POLICY[1]
def list_releases(
    call: Call,
    soc: str | None,
    arch: str | None,
    cann_version: str | None,
    allow_prerelease: bool,
    allow_untested: bool,
) -> Answer:
    """Every release that is known here, newest first, whether it fits this machine, and if not, why.

    Works without a toolkit too: what is not known refuses nothing.
    """
    target = _target(call, soc, arch, cann_version)
    found = _candidates(call)
    allow = {"allow_prerelease": allow_prerelease, "allow_untested": allow_untested}
    rows = _judged(found.releases, target, allow)
    data = {
        "target": target.to_dict(),
        "releases": rows,
        "unreadable": [{"source": str(item.source), "reasons": list(item.reasons)} for item in found.unreadable],
    }
    table = [(row["release"], _word(row), row["cann"], ", ".join(row["units"]), str(row["packages"])) for row in rows]
    blocks: list[Block] = [
        Line(f"releases for {target}"),
        Table(("release", "fits", "CANN", "units", "packages"), table) if table else Line("no release is known here"),
    ]
    for row in rows:
        if row["reasons"] or row["warnings"]:
            title = f"{row['release']} does not fit:" if row["reasons"] else f"{row['release']}:"
            blocks.append(Bullets(title, [*row["reasons"], *row["warnings"]]))
    return Answer(data, blocks)


def _word(row: dict[str, Any]) -> str:
    if not row["fits"]:
        return "no"
    return "yes, newest" if row["chosen"] else "yes"


@command("release show", example="smallq-deploy release show smallq-flash-attention-0.1.0")
@click.argument("name")
@_machine_options
def show(call: Call, name: str, soc: str | None, arch: str | None, cann_version: str | None) -> Answer:
    """What a release is: NAME, NAME-VERSION, or the path of a manifest.

    Its published packages are listed, each with the reason why it is not for this machine.
    """
    from smallq_deploy.package.acquire import find_release, misfit, resolve
    from smallq_deploy.package.compat import EVIDENCE, compat_of

    target = _target(call, soc, arch, cann_version)
    found = find_release(name, _candidates(call).releases)
    (row,) = _judged((found,), target, {})
    compat = compat_of(found)
    packages = [
        {
            "location": resolve(item.location, found.source),
            "signature": resolve(item.signature, found.source) if item.signature else "",
            "arch": item.arch,
            "unit": item.unit,
            "cann": str(item.cann),
            "sha256": item.sha256,
            "size": item.size,
            "misfit": misfit(item, target),
        }
        for item in found.artifacts
    ]
    tested = [item.to_dict() for item in compat.tested]
    data = {
        **{key: row[key] for key in ("release", "operator", "cann", "units", "source", "fits", "reasons")},
        "target": target.to_dict(),
        "vendor": found.vendor,
        "symbols": list(found.required_symbols),
        "smoke_cases": len(found.smoke_cases),
        "packages": packages,
        "tested": tested,
    }
    blocks: list[Block] = [
        Line(found.id),
        Facts(
            [
                ("operator", found.operator),
                ("vendor directory", found.vendor),
                ("CANN", str(found.cann)),
                ("units", ", ".join(found.units)),
                ("functions", ", ".join(found.required_symbols)),
                ("smoke cases", str(len(found.smoke_cases))),
                ("manifest", str(found.source)),
                ("fits", f"{'yes' if row['fits'] else 'no'} ({target})"),
            ]
        ),
    ]
    if row["reasons"]:
        blocks.append(Bullets("does not fit:", row["reasons"]))
    if tested:
        points = [f"CANN {item['cann']}: {EVIDENCE[item['evidence']]} ({item['source']})" for item in tested]
        blocks.append(Bullets("tested:", points))
    if packages:
        keys = ("unit", "arch", "cann", "size", "misfit", "location")
        cells = [[str(item[key] or "yes") for key in keys] for item in packages]
        blocks.append(Table(("unit", "arch", "CANN", "bytes", "fits", "package"), cells))
    else:
        blocks.append(Line("no published packages: `smallq-deploy build` makes one"))
    return Answer(data, blocks)


def _digest(text: str | None) -> str:
    """A sha256 as the user gave it. Raises UsageError BAD_SHA256."""
    if text is None:
        return ""
    lower = text.strip().lower()
    if len(lower) != _SHA256 or set(lower) - set("0123456789abcdef"):
        raise UsageError("BAD_SHA256", f"{text!r:.80} is no sha256", hint="64 hexadecimal digits, as sha256sum prints")
    return lower


@command("release verify", toolkit=False, example="smallq-deploy release verify ./op.run --allowed-signers ./signers")
@click.argument("file", type=PATH)
@option("--sha256", metavar="HEX", help="What the file's sha256 must be.")
@option("--signature", type=PATH, metavar="FILE", help="The detached signature. Default: FILE.sig where it exists.")
@signers_option
@require_option
def verify(
    call: Call,
    file: Path,
    sha256: str | None,
    signature: Path | None,
    allowed_signers: Path | None,
    require_signature: bool,
) -> Answer:
    """Check the signature of FILE, then its digest, then its content: a package (.run) or a manifest (.yaml).

    The signature comes first, so that nothing of a forged file is parsed. Exit status 5 when something is wrong.
    """
    from smallq_deploy.base.fsops import sha256_file
    from smallq_deploy.package.releases import load_release
    from smallq_deploy.package.runfile import read_run
    from smallq_deploy.package.signature import check_signature

    stated = _digest(sha256)
    checked = check_signature(file, signature=signature, signers=allowed_signers, required=require_signature)
    try:
        digest = sha256_file(file)
    except OSError as error:
        from smallq_deploy.base.errors import access_error

        raise access_error(error, f"read {file}") from error
    require_same(file, checked, digest)
    if stated and digest != stated:
        raise PackageError(
            "DIGEST_MISMATCH",
            f"{file} is another file than stated: its sha256 is {digest}, not {stated}",
            hint="get it again from where it is published",
            details={"path": str(file), "found": digest},
        )
    listed = [
        (item.id, artifact) for item in _candidates(call).releases for artifact in item.artifacts
        if artifact.sha256 == digest
    ]  # fmt: skip
    is_manifest = file.suffix in (".yaml", ".yml")
    manifest = load_release(file) if is_manifest else None
    run = None if is_manifest else read_run(file)
    if run is not None:
        require_same(file, checked, run.file_sha256)
    data = {
        "path": str(file),
        "sha256": digest,
        "size": file.stat().st_size,
        "signature": checked.to_dict(),
        "stated": bool(stated),
        "published_in": listed[0][0] if listed else None,
        "package": run.to_dict() if run is not None else None,
        "manifest": manifest.id if manifest is not None else None,
    }
    facts = [("sha256", digest), ("signature", _said(checked))]
    facts.append(("published in", listed[0][0] if listed else "no release that is known here"))
    if run is not None:
        facts += [("operators", ", ".join(run.ops)), ("built for", f"{', '.join(run.units)}, {run.arch}")]
    if manifest is not None:
        facts.append(("release", manifest.id))
    blocks: list[Block] = [Line(f"{file} is whole"), Facts(facts)]
    if not (stated or listed or checked.state == "good"):
        blocks.append(Line("only the file itself says so: no signature, no published digest"))
    return Answer(data, blocks)


def _said(checked: Checked) -> str:
    if checked.state == "good":
        return f"good: {checked.signer} ({checked.key})"
    return _STATES[checked.state]


@command(
    "release fetch", example="smallq-deploy release fetch https://example.org/CANN-custom_ops.run --require-signature"
)
@click.argument("source", metavar="NAME|URL|FILE")
@option("--sha256", metavar="HEX", help="What the file's sha256 must be (a release's manifest says it itself).")
@option("--signature", metavar="URL|FILE", help="The detached signature. Default: the same place with .sig behind it.")
@signers_option
@require_option
@option("--offline", is_flag=True, help="Never use the network: what was fetched before, or an error.")
@option("--ca", type=PATH, metavar="FILE", help="PEM file of the authorities to believe. Default: the system's.")
@option("--timeout", type=click.FloatRange(0.1, 3600), default=30.0, metavar="SECONDS", help="Of each wait (30).")
@option("--retries", type=click.IntRange(0, 100), default=4, metavar="N", help="Failed attempts to bear (4).")
@option("--max-size", type=click.IntRange(1, 1 << 20), default=1024, metavar="MIB", help="Largest file to take (1024).")
@option("--output", "-o", type=PATH, metavar="DIR", help="Also copy the package, and its signature, to DIR.")
@_machine_options
def fetch(
    call: Call,
    source: str,
    sha256: str | None,
    signature: str | None,
    allowed_signers: Path | None,
    require_signature: bool,
    offline: bool,
    ca: Path | None,
    timeout: float,
    retries: int,
    max_size: int,
    output: Path | None,
    **machine: str | None,
) -> Answer:
    """Bring a package here: of a release (NAME, NAME-VERSION or a manifest), from a URL, or a file.

    What broke off is resumed, also by a later command. Only a file that is whole, has the stated digest and passes its
    signature gets into the cache. Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Plain http is used only
    where a digest or a signature says what the file must be.
    """
    from smallq_deploy.package.acquire import Trust, acquire
    from smallq_deploy.package.fetch import file_name
    from smallq_deploy.package.signature import default_signers
    from smallq_deploy.package.transfer import Transport, is_url

    stated, size, found = _digest(sha256), 0, None
    named = signature or ""
    if not (is_url(source) or source.endswith(".run") or (os.path.exists(source) and not _is_manifest(source))):
        found, source, wanted, size, offered = _published(call, source, machine)
        if stated and stated != wanted:
            raise UsageError(
                "BAD_SHA256", f"{found.id} states sha256 {wanted}, not {stated}", hint="leave --sha256 out"
            )
        stated = wanted
        if offered and not named:
            if require_signature or allowed_signers is not None or default_signers() is not None:
                named = offered
            else:
                call.events.warning("the package is signed, but nothing says whom to believe: --allowed-signers")
    transport = Transport(offline=offline, ca=ca, timeout=timeout, retries=retries, max_size=max_size << 20)
    with call.events.step(f"fetch {file_name(source)}"):
        fetched, checked = acquire(
            source,
            sha256=stated,
            size=size,
            signature=named,
            trust=Trust(allowed_signers, require_signature),
            transport=transport,
            events=call.events,
        )
    if is_url(source) and not stated and checked.state != "good":
        call.events.warning("no digest and no signature was given: only the encrypted connection vouches for this file")
    path = _copied(fetched.path, output) if output is not None else fetched.path
    how = f"fetched in {fetched.attempts} attempts" if fetched.attempts > 1 else "fetched"
    if fetched.cached or not fetched.attempts:
        how = "found in the cache" if fetched.cached else "copied into the cache"
    data = {
        **fetched.to_dict(),
        "path": str(path),
        "release": found.id if found else None,
        "signature": checked.to_dict(),
    }
    blocks: list[Block] = [
        Line(f"{how}: {path}"),
        Facts(
            [
                ("release", found.id if found else ""),
                ("from", fetched.source),
                ("size", f"{fetched.size:,} bytes"),
                ("resumed at", f"byte {fetched.resumed:,}" if fetched.resumed else ""),
                ("sha256", fetched.sha256),
                ("signature", _said(checked)),
            ]
        ),
        Line(f"next: smallq-deploy plan {path}" + (f" --release {found.source}" if found else "")),
    ]
    return Answer(data, blocks)


def _is_manifest(source: str) -> bool:
    return source.endswith((".yaml", ".yml"))


def _published(call: Call, name: str, machine: dict[str, str | None]) -> tuple[Release, str, str, int, str]:
    """(release, location, sha256, size, signature) of the package of release ``name`` for the machine meant."""
    from smallq_deploy.package.acquire import choose_artifact, find_release, resolve

    found = find_release(name, _candidates(call).releases)
    target = _target(call, machine["soc"], machine["arch"], machine["cann_version"])
    item = choose_artifact(found, target)
    seal = resolve(item.signature, found.source) if item.signature else ""
    return found, resolve(item.location, found.source), item.sha256, item.size, seal


def _copied(path: Path, output: Path) -> Path:
    """``path`` and its signature in the directory ``output``; returns the copy."""
    import shutil
    import tempfile

    from smallq_deploy.base.errors import access_error
    from smallq_deploy.package.signature import signature_of

    try:
        output.mkdir(parents=True, exist_ok=True)
        for item in (path, signature_of(path)):
            if not item.exists():
                continue
            descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=output)
            os.close(descriptor)
            try:
                shutil.copyfile(item, temporary)
                os.chmod(temporary, 0o644)
                os.replace(temporary, output / item.name)
            except BaseException:
                os.unlink(temporary)
                raise
    except OSError as error:
        raise access_error(error, f"write into {output}") from error
    return output / path.name


list_releases.short_help = "Every release, and whether it fits."
show.short_help = "What a release is, and its packages."
verify.short_help = "Signature, digest and content of a file."
fetch.short_help = "Bring a package here."
release.add_command(list_releases)
release.add_command(show)
release.add_command(verify)
release.add_command(fetch)
