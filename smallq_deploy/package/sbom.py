"""The bill of materials of a built package: CycloneDX 1.5, JSON (https://cyclonedx.org/docs/1.5/json/).

It says what is in the package (every file with its sha256), what it was made with (toolkit, compilers) and which
libraries it will ask the loader for. The same package with the same provenance gives the same document: the serial
number comes from the package's digest, the time from the provenance.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import PackageError, access_error
from smallq_deploy.base.fsops import tree_entries
from smallq_deploy.package.elf import read_elf
from smallq_deploy.package.vendortree import SET_ENV

SUFFIX = ".cdx.json"
_NAMESPACE = uuid.UUID("6f0f1d5c-6a0a-5d5e-9b7d-5f1f6a3a4b10")
_PREFIX = "smallq-deploy:"  # our names in `properties`


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": _PREFIX + name, "value": str(value)} for name, value in values.items() if value not in ("", None)]


def _git(state: Any, prefix: str) -> dict[str, str]:
    if not isinstance(state, dict):
        return {}
    return {f"{prefix}-commit": str(state.get("commit", "")), f"{prefix}-dirty": str(state.get("dirty", "")).lower()}


def make_sbom(
    tree: Path, provenance: Mapping[str, Any], *, version: str, licence: str = "Apache-2.0"
) -> dict[str, Any]:
    """The document for the vendor tree ``tree`` of the package that ``provenance`` describes.

    ``version`` is the operator release's. ``bin/set_env.bash`` is left out: it is written at install time. Raises
    AccessError when the tree cannot be read.
    """
    package, toolkit = provenance["package"], provenance["toolkit"]
    operator = str(provenance["operator"])
    main = f"package:{package['sha256']}"
    files: list[dict[str, Any]] = []
    needed: dict[str, list[str]] = {}
    try:
        entries = tree_entries(tree)
    except OSError as error:
        raise access_error(error, f"read {tree}") from error
    for entry in entries:
        if entry.kind != "file" or entry.path == SET_ENV:
            continue
        reference = f"file:{entry.path}"
        files.append(
            {
                "type": "file",
                "bom-ref": reference,
                "name": entry.path,
                "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
            }
        )
        if entry.path.endswith(".so"):
            try:
                needed[reference] = list(read_elf(tree / entry.path).needed)
            except PackageError:
                needed[reference] = []  # the build has refused libraries that cannot be read
    libraries = [
        {"type": "library", "bom-ref": f"needed:{name}", "name": name, "scope": "required"}
        for name in sorted({name for names in needed.values() for name in names})
    ]
    made_with: list[dict[str, Any]] = [
        {
            "type": "framework",
            "bom-ref": "toolkit",
            "name": "CANN",
            "version": str(toolkit["version"]),
            "properties": _properties({"inner-version": toolkit["inner_version"], "remark": toolkit["remark"]}),
        },
        *(
            {"type": "application", "bom-ref": reference, "name": name, "version": str(provenance[field])}
            for reference, name, field in (
                ("kernel-compiler", "bisheng", "compiler"),
                ("host-compiler", "g++", "host_compiler"),
            )
            if provenance.get(field)
        ),
    ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, package['sha256'])}",
        "version": 1,
        "metadata": {
            "timestamp": provenance["created"],
            "tools": {
                "components": [
                    {"type": "application", "name": "smallq-deploy", "version": str(provenance["tool_version"])}
                ]
            },
            "component": {
                "type": "library",
                "bom-ref": main,
                "name": operator,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": package["sha256"]}],
                "licenses": [{"license": {"id": licence}}],
                "properties": _properties(
                    {
                        "file-name": package["name"],
                        "vendor": provenance["vendor"],
                        "compute-unit": provenance["unit"],
                        "architecture": provenance["arch"],
                        "source-digest": provenance["source_digest"],
                        "project-digest": provenance.get("recipes_digest", ""),
                        **_git(provenance.get("source_git"), "source"),
                        **_git(provenance.get("recipes_git"), "project"),
                        "flags": " ".join(provenance.get("flags", ())),
                    }
                ),
            },
        },
        "components": [*files, *libraries, *made_with],
        "dependencies": [
            {"ref": main, "dependsOn": [item["bom-ref"] for item in (*files, *made_with)]},
            *(
                {"ref": reference, "dependsOn": [f"needed:{name}" for name in sorted(set(names))]}
                for reference, names in sorted(needed.items())
            ),
        ],
    }


def write_sbom(path: Path, document: Mapping[str, Any]) -> Path:
    """Write the document (UTF-8, indented). Raises AccessError."""
    try:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise access_error(error, f"write {path}") from error
    return path
