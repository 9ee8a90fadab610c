"""Checks of how programs find operators: environment, config.ini, the effective resolution, duplicates (cann.md 6)."""

from __future__ import annotations

import os
from pathlib import Path

from smallq_deploy.operate.doctor import FAIL, PASS, WARN, Context, Finding, Skip, check, same_place, worst
from smallq_deploy.operate.resolution import BUILT_IN, graph_vendors
from smallq_deploy.operate.verifier import config_findings
from smallq_deploy.package.vendortree import PARTS, nested_copies, ops_of_vendor, other_vendors
from smallq_deploy.smoke.resolve import OPAPI, config_vendors

_SHOWN = 12  # operators named in one line


@check("environment", "lookup", "CANN takes its files from where these variables point, not from where a program lies")
def environment(context: Context) -> Finding:
    chosen, environ = context.toolkit, context.environ
    load = f'source {chosen.set_env}   (or: eval "$(smallq-deploy env)")'
    home, opp = environ.get("ASCEND_HOME_PATH", ""), environ.get("ASCEND_OPP_PATH", "")
    if not home and not opp:
        text = f"{context.source} has no CANN environment: programs started in it end with 561107"
        return Finding(WARN, text, mend=(load,))
    findings = []
    for name, value in (("ASCEND_HOME_PATH", home), ("ASCEND_OPP_PATH", opp)):
        if not value:
            findings.append(Finding(FAIL, f"{name} is not set", mend=(load,)))
        elif not os.path.isdir(value):
            findings.append(Finding(FAIL, f"{name} names {value}, which does not exist", mend=(load,)))
    expected = chosen.home / "opp" if chosen.private else chosen.opp
    if opp and os.path.isdir(opp) and not same_place(opp, expected):
        text = f"ASCEND_OPP_PATH names {opp}, but {expected} is the toolkit that was chosen"
        findings.append(Finding(FAIL, text, mend=(load, f"or choose that toolkit: --cann {Path(opp).parent}")))
    if home and opp and os.path.isdir(home) and os.path.isdir(opp) and not same_place(Path(home, "opp"), opp):
        text = f"ASCEND_HOME_PATH ({home}) and ASCEND_OPP_PATH ({opp}) belong to different toolkits"
        findings.append(Finding(FAIL, text, mend=(load,)))
    return worst(findings, f"{context.source} uses {opp}")


def _without(variable: str, entries: list[str], bad: set[str]) -> str:
    left = ":".join(entry for entry in entries if entry not in bad)
    return f"export {variable}={left}" if left else f"unset {variable}"


@check(
    "custom-opp-path", "lookup", "these directories come before everything installed in CANN; no set_env.sh cleans up"
)
def custom_opp_path(context: Context) -> Finding:
    name = "ASCEND_CUSTOM_OPP_PATH"
    entries = [part for part in context.environ.get(name, "").split(":") if part]
    findings = []
    if context.environment.toolkit is not None:
        absent = [path for path in context.toolkit.custom_paths if not any(same_place(path, part) for part in entries)]
        for path in absent:
            text = f"{path} is in a root of its own, and {name} of {context.source} does not name it"
            line = f'eval "$(smallq-deploy env --opp {context.toolkit.opp})"'
            findings.append(Finding(WARN, text, why="programs find it by this variable only", mend=(line,)))
    if not entries:
        return worst(findings, f"{name} is not set in {context.source}")
    bad: set[str] = set()
    operator = context.release.operator
    live = context.store.live if context.store else None
    for entry in dict.fromkeys(entries):
        text, status = "", FAIL
        if not os.path.isdir(entry):
            text, status = f"{entry} does not exist; CANN passes over it without a word", WARN
        elif not any(os.path.isdir(os.path.join(entry, part)) for part in PARTS):
            inner = [path for path in sorted(Path(entry).glob("vendors/*")) if path.is_dir()]
            hold = f" (meant is {inner[0]}?)" if inner else ""
            text = f"{entry} is no vendor directory: it holds none of {', '.join(PARTS)}{hold}"
        elif live is not None and same_place(entry, live):
            continue
        elif operator in ops_of_vendor(Path(entry)):
            other = _other_toolkit(context, entry)
            text = f"{entry} holds another {operator}, which is used instead of the installed one{other}"
        elif other := _other_toolkit(context, entry):
            text, status = f"{entry} is a leftover{other}", WARN
        if text:
            bad.add(entry)
            findings.append(Finding(status, text))
    found = worst(findings, f"{len(entries)} entries, none of them stale")
    if not bad:
        return found
    mend = (*found.mend, _without(name, entries, bad), "look for the line that sets it in ~/.bashrc and /etc/profile.d")
    return Finding(found.status, found.message, found.evidence, found.why, mend)


def _other_toolkit(context: Context, entry: str) -> str:
    """' of <other opp>' when the entry lies in the vendors directory of another toolkit than the chosen one."""
    real = Path(os.path.realpath(entry))
    opp = real.parent.parent
    if real.parent.name != "vendors" or opp.name != "opp" or context.environment.toolkit is None:
        return ""
    return "" if same_place(opp, context.toolkit.opp) else f", of the toolkit {opp.parent}"


@check("library-path", "lookup", "a program linked with -lcust_opapi takes the first one on LD_LIBRARY_PATH")
def library_path(context: Context) -> Finding:
    entries = [part for part in context.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    findings = []
    dead = {part for part in entries if "op_api/lib" in part and not os.path.isdir(part)}
    mend = _without("LD_LIBRARY_PATH", entries, dead)
    for part in sorted(dead):
        findings.append(Finding(WARN, f"LD_LIBRARY_PATH names {part}, which does not exist", mend=(mend,)))
    first = next((part for part in entries if os.path.isfile(os.path.join(part, OPAPI.name))), "")
    live = context.live
    if first and os.path.isfile(live / OPAPI) and not same_place(first, (live / OPAPI).parent):
        text = f"LD_LIBRARY_PATH leads to {first}/{OPAPI.name}, not to the one in {live}"
        mend = f'export LD_LIBRARY_PATH={(live / OPAPI).parent}:"$LD_LIBRARY_PATH"'
        findings.append(Finding(WARN, text, mend=(mend,)))
    return worst(findings, f"no vendor library of LD_LIBRARY_PATH in {context.source} is stale or foreign")


@check("config-ini", "lookup", "CANN looks only into the vendor directories that config.ini names, left to right")
def config_ini(context: Context) -> Finding:
    place = context.place
    found = config_findings(place, context.release, context.generation)
    findings = [Finding(item.severity, item.message, mend=(item.hint,) if item.hint else ()) for item in found]
    aclnn, graph = config_vendors(place.config_ini), graph_vendors(place.config_ini)
    if place.config_ini.is_file() and aclnn != graph:
        seen = (
            f"aclnn reads {', '.join(map(repr, aclnn)) or 'no vendor'}",
            f"graph mode reads {', '.join(graph) or 'no vendor'}",
        )
        text = f"aclnn and graph mode read different vendors from {place.config_ini}"
        findings.append(Finding(WARN, text, seen, mend=("smallq-deploy repair",)))
    if not place.config_ini.exists() and not findings:
        raise Skip(f"there is no {place.config_ini}, and no vendor to be named in it")
    return worst(findings, f"load_priority={','.join(aclnn)}")


@check("other-vendors", "lookup", "CANN does not find the operators of a nested vendor directory")
def vendor_layouts(context: Context) -> Finding:
    place = context.place
    names = sorted(other_vendors(place.vendors, without=place.vendor))
    findings = []
    for name in names:
        copies = nested_copies(place.vendors / name)
        if copies:
            text = f"vendor {name} has the nested layout: its files lie in {copies[-1]}"
            findings.append(Finding(WARN, text, mend=(f"smallq-deploy repair --vendor {name}",)))
    return worst(findings, f"other vendor directories: {', '.join(names) or 'none'}; none is nested")


@check("resolution", "lookup", "what is loaded decides what is computed; parts of two builds do not fit together")
def resolution(context: Context) -> Finding:
    if context.environment.toolkit is None and not context.sourced:
        raise Skip("no CANN toolkit, and no environment that names one")
    found = context.resolution
    evidence = [f"environment of {context.source}" + ("" if context.sourced else ", with the toolkit's set_env.sh")]
    for item in found.sources:
        has = [name for name, value in (("tiling", item.tiling), ("symbols", item.symbols)) if value]
        has += [f"{item.kernels} kernels for {found.unit}"] if item.kernels else []
        state = ", ".join(has) or ("nothing of it" if item.exists else "does not exist")
        evidence.append(f"{item.path} (from {item.origin}): {state}")
    evidence += [f"{entry}: passed over, it does not exist" for entry in found.passed_over]
    if found.linked is not None:
        evidence.append(f"programs linked with -lcust_opapi: {found.linked}")
    parts = (found.tiling, found.symbols, *found.kernels)
    installed = context.store is not None and os.path.isfile(context.store.live / OPAPI)
    if not any(parts):
        if not installed and not any(item.registers for item in found.sources):
            raise Skip(f"{found.operator} is not installed in any directory this environment leads to")
        return Finding(FAIL, found.sentence(), tuple(evidence), mend=("smallq-deploy repair", "smallq-deploy install"))
    if found.mixed:
        text = f"two builds are mixed: {found.sentence()}"
        return Finding(FAIL, text, tuple(evidence), mend=_lookup_mend(context))
    if not all((found.tiling, found.symbols, found.kernels)):
        why = "a call ends with 561003 or 561002 where a part is missing"
        mend = ("smallq-deploy install --reinstall",)
        return Finding(FAIL, found.sentence(), tuple(evidence), why, mend)
    if installed and context.store is not None and not same_place(str(found.symbols), context.store.live):
        text = f"not the installed one is used: {found.sentence()}"
        return Finding(FAIL, text, tuple(evidence), mend=_lookup_mend(context))
    return Finding(PASS, found.sentence(), tuple(evidence))


def _lookup_mend(context: Context) -> tuple[str, ...]:
    if any(item.origin == "ASCEND_CUSTOM_OPP_PATH" for item in context.resolution.sources):
        return ("unset ASCEND_CUSTOM_OPP_PATH", 'or: eval "$(smallq-deploy env)"')
    return ("smallq-deploy install --reinstall --priority first",)


@check("duplicates", "lookup", "the first directory in order wins for tiling, kernels of all are added")
def duplicates(context: Context) -> Finding:
    place = context.place
    config = config_vendors(place.config_ini)
    custom = [part for part in context.effective.get("ASCEND_CUSTOM_OPP_PATH", "").split(":") if os.path.isdir(part)]
    order: list[tuple[str, frozenset[str]]] = []
    seen: set[str] = set()
    for path in (*map(Path, custom), *(place.vendors / name for name in config)):
        real = os.path.realpath(path)
        if real not in seen and path.is_dir():
            seen.add(real)
            order.append((str(path), ops_of_vendor(path)))
    order.append((BUILT_IN, ops_of_vendor(place.opp / "built-in")))
    holders: dict[str, list[str]] = {}
    for name, operators in order:
        for operator in operators:
            holders.setdefault(operator, []).append(name)
    twice = {operator: places for operator, places in sorted(holders.items()) if len(places) > 1}
    if not twice:
        return Finding(PASS, f"no operator type is in two directories (of {len(holders)})")
    evidence = [f"{operator}: {' before '.join(places)}" for operator, places in list(twice.items())[:_SHOWN]]
    if len(twice) > _SHOWN:
        evidence.append(f"and {len(twice) - _SHOWN} more")
    mend = ("take one of the vendor directories out of config.ini, or build the operators into one package",)
    names = ", ".join(list(twice)[:_SHOWN])
    return Finding(WARN, f"several directories have the same operator: {names}", tuple(evidence), mend=mend)
