"""The two ways to a package: the build project of a cann-recipes-infer checkout, and the template that CANN ships.

Both are copied into the workspace, and only the copy is changed. Sources: cann.md 9 (checkouts of 2025-12 and 2026-08),
4.1 and 4.5 (template), and the template of 8.1 and of asc-tools 8.5 - 9.1.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smallq_deploy.base.errors import BuildError, UsageError, access_error
from smallq_deploy.base.fsops import remove_tree
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.package.vendortree import snake_case

_TEMPLATE = Path("tools/op_project_templates/ascendc/customize")
_UTILITIES = Path(__file__).parent / "data" / "ops_error.h"


@dataclass(frozen=True)
class Job:
    """What a route is to prepare a build of."""

    operator: str
    sources: Path
    units: tuple[str, ...]
    vendor: str


@dataclass(frozen=True)
class Prepared:
    """A private copy that is ready: ``command`` runs in ``directory`` and leaves one file that matches ``packages``.

    ``changes`` says what was changed in the copy.
    """

    directory: Path
    command: tuple[str, ...]
    packages: str
    changes: tuple[str, ...] = ()


class Route(Protocol):
    """A way to build: ``name`` and ``flags`` for the provenance, ``origin`` is the directory that is copied."""

    @property
    def name(self) -> str: ...

    @property
    def origin(self) -> Path: ...

    def flags(self, job: Job) -> list[str]: ...

    def prepare(self, job: Job, place: Path) -> Prepared: ...


# --- the build project of a checkout ---


@dataclass(frozen=True)
class RecipesRoute:
    """``ops/ascendc`` of a checkout of cann-recipes-infer."""

    project: Path
    name: str = "recipes"

    @property
    def origin(self) -> Path:
        return self.project

    def flags(self, job: Job) -> list[str]:
        return build_command(self.project, job.operator, job.units)[2:]

    def prepare(self, job: Job, place: Path) -> Prepared:
        name = snake_case(job.operator)
        copy = place / "ascendc"
        changes = []
        try:
            _copy(self.project, copy, links=True)
            for left in (copy / "build", copy / "output", copy / "src" / name):
                remove_tree(left)
            shutil.copytree(job.sources, copy / "src" / name)
            close_to_others(copy)
            changes += _list_operator(copy, name)
            changes += _bound_jobs(copy / "cmake/scripts/prepare.sh")
        except OSError as error:
            raise _copy_error(error, self.project, place) from error
        if job.vendor != "customize":
            _name_vendor(copy / "CMakeLists.txt", job.vendor)
            changes.append(f"CMakeLists.txt: VENDOR_NAME is {job.vendor}")
        command = build_command(copy, job.operator, job.units)
        return Prepared(copy, tuple(command), "output/CANN-custom_ops*.run", tuple(changes))


def find_project(recipes: Path) -> RecipesRoute:
    """``ops/ascendc`` of a checkout (or that directory itself). Raises UsageError NOT_A_CHECKOUT."""
    for place in (recipes / "ops" / "ascendc", recipes):
        if (place / "build.sh").is_file() and (place / "src").is_dir():
            return RecipesRoute(place)
    what = "does not exist" if not recipes.exists() else "has no ops/ascendc/build.sh"
    raise UsageError(
        "NOT_A_CHECKOUT",
        f"--recipes {recipes} {what}",
        hint="give the directory of a cann-recipes-infer checkout, or build with --standalone, which needs none",
    )


def _list_operator(project: Path, name: str) -> list[str]:
    """Add the operator where a checkout lists its operators one by one (2025-12); later ones take every src/*/."""
    for script in sorted((project / "cmake").glob("*.cmake")):
        text = script.read_text(encoding="utf-8", errors="surrogateescape")
        entries = list(re.finditer(r'^([ \t]*"?[^"\s]*/src/)(\w+)(/CMakeLists\.txt"?)[ \t]*$', text, re.MULTILINE))
        if not entries or re.search(r"/src/\*/CMakeLists\.txt", text):
            continue
        if any(entry[2] == name for entry in entries):
            return []
        first = entries[0]
        line = f"{first[1]}{name}{first[3]}\n"
        changed = text[: first.start()] + line + text[first.start() :]
        script.write_text(changed, encoding="utf-8", errors="surrogateescape")
        return [f"cmake/{script.name}: {name} added to the operator list"]
    return []


def _bound_jobs(script: Path) -> list[str]:
    """The first of the two build passes takes twice the processors whatever OPS_CPU_NUMBER says."""
    if not script.is_file():
        return []
    text = script.read_text(encoding="utf-8", errors="surrogateescape")
    changed, count = re.subn(
        r"^(JOB_NUM=.*)$", r'\1\n[ -z "$OPS_CPU_NUMBER" ] || JOB_NUM="-j$OPS_CPU_NUMBER"', text, flags=re.MULTILINE
    )
    if not count:
        return []
    script.write_text(changed, encoding="utf-8", errors="surrogateescape")
    return ["cmake/scripts/prepare.sh: follows OPS_CPU_NUMBER"]


def _name_vendor(cmake: Path, vendor: str) -> None:
    """build.sh has no option for the vendor name; it is a cache variable of the project's CMakeLists.txt."""
    text = cmake.read_text(encoding="utf-8", errors="surrogateescape") if cmake.is_file() else ""
    changed, count = re.subn(r'(set\(\s*VENDOR_NAME\s+)"?customize"?', rf'\1"{vendor}"', text)
    if not count:
        raise BuildError(
            "NO_VENDOR_NAME",
            "this checkout's CMakeLists.txt has no VENDOR_NAME that could be set",
            hint="build with the default vendor name, customize",
        )
    cmake.write_text(changed, encoding="utf-8", errors="surrogateescape")


def build_command(project: Path, operator: str, units: Sequence[str]) -> list[str]:
    """The build.sh line; options that only some checkouts know are given where build.sh names them."""
    text = (project / "build.sh").read_text(encoding="utf-8", errors="replace")
    command = ["bash", "build.sh", "-n", snake_case(operator), "-c", ";".join(units)]
    # The check compares a file that CANN 8.5 no longer has, and in 2025-12 it ends the build; whether package and
    # toolkit fit is checked by us. Without it the package's name carries no version, and nothing reads that name.
    if "--disable-check-compatible" in text:
        command.append("--disable-check-compatible")
    # A compiler cache does not see a changed toolkit.
    if "--ccache" in text:
        command += ["--ccache", "off"]
    return command


# --- the template of the toolkit ---


@dataclass(frozen=True)
class StandaloneRoute:
    """The project template that CANN ships for operators of one's own; it builds with CMake presets into build_out/."""

    template: Path
    home: Path
    name: str = "standalone"

    @property
    def origin(self) -> Path:
        return self.template

    def flags(self, job: Job) -> list[str]:
        return ["--preset=default", "--target", "package"]

    def prepare(self, job: Job, place: Path) -> Prepared:
        copy = place / "project"
        try:
            # Old layouts reach it through links.
            _copy(self.template, copy, links=False)
            remove_tree(copy / "build_out")
            close_to_others(copy)
            for part in ("op_host", "op_kernel"):
                ignore = shutil.ignore_patterns("CMakeLists.txt")
                shutil.copytree(job.sources / part, copy / part, dirs_exist_ok=True, ignore=ignore)
            utilities = copy / "op_host/error/ops_error.h"
            if not utilities.exists():
                utilities.parent.mkdir()
                shutil.copyfile(_UTILITIES, utilities)
            close_to_others(copy)
            _fill_preset(copy / "CMakePresets.json", self.home, job)
            _compile_options(copy / "op_kernel/CMakeLists.txt", job)
        except OSError as error:
            raise _copy_error(error, self.template, place) from error
        return Prepared(copy, ("bash", "build.sh"), "build_out/custom_opp_*.run")


def find_template(toolkit: Toolkit) -> StandaloneRoute:
    """The toolkit's own project template. Raises BuildError NO_TEMPLATE."""
    template = toolkit.home / _TEMPLATE
    needed = ("build.sh", "CMakeLists.txt", "CMakePresets.json", "cmake/makeself.cmake", "scripts/install.sh")
    missing = [name for name in needed if not (template / name).is_file()]
    if missing:
        where = f"{template} does not exist" if not template.exists() else f"{template} lacks {', '.join(missing)}"
        raise BuildError(
            "NO_TEMPLATE",
            f"this toolkit has no usable project template: {where}",
            hint="install the full CANN toolkit (its templates may be closed to other users: --install-for-all opens "
            "them), or build with --recipes",
        )
    return StandaloneRoute(template, toolkit.home)


def _fill_preset(path: Path, home: Path, job: Job) -> None:
    """Set unit, vendor name and toolkit in the preset named "default", which the template's build.sh takes."""
    values = {
        "ASCEND_COMPUTE_UNIT": ";".join(job.units),
        "vendor_name": job.vendor,
        "ASCEND_CANN_PACKAGE_PATH": str(home),
        "ENABLE_TEST": "False",
        "ENABLE_CROSS_COMPILE": "False",
        "ASCEND_PACK_SHARED_LIBRARY": "False",
    }
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        variables = content["configurePresets"][0]["cacheVariables"]
        for name, value in values.items():
            entry = variables.get(name)
            if isinstance(entry, dict):
                entry["value"] = value
            elif name.startswith(("ENABLE", "ASCEND_PACK")):
                continue  # not in every version
            else:
                raise KeyError(name)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BuildError(
            "NO_TEMPLATE",
            f"the toolkit's project template is of a form that is not known: {path.name}: {error}",
            hint="build with --recipes, and report the CANN version",
        ) from error
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _compile_options(path: Path, job: Job) -> None:
    """Carry the operator's kernel compiler options over; the template's function takes the OpType by position."""
    own = job.sources / "CMakeLists.txt"
    text = own.read_text(encoding="utf-8") if own.is_file() else ""
    found = re.search(r"add_ops_compile_options\(\s*OP_NAME\s+(\w+)\s+OPTIONS\s+([^()]*?)\s*\)", text)
    if found is None:
        return
    template = path.read_text(encoding="utf-8")
    line = f"add_ops_compile_options({found[1]} OPTIONS {' '.join(found[2].split())})\n"
    changed, count = re.subn(r"^add_kernels_compile\(\)", lambda match: line + match[0], template, flags=re.MULTILINE)
    if count != 1:
        raise BuildError(
            "NO_TEMPLATE",
            f"the toolkit's project template is of a form that is not known: op_kernel/{path.name} calls no "
            "add_kernels_compile()",
            hint="build with --recipes, and report the CANN version",
        )
    path.write_text(changed, encoding="utf-8")


# --- both ---


def _copy(source: Path, target: Path, *, links: bool) -> None:
    shutil.copytree(source, target, symlinks=links, ignore=shutil.ignore_patterns(".git"))


def _copy_error(error: OSError, source: Path, place: Path) -> Exception:
    if isinstance(error, shutil.Error):  # a list of (source, target, reason)
        reasons = [str(entry[-1]) for entry in error.args[0] if isinstance(entry, tuple)]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return BuildError(
            "COPY_FAILED",
            f"cannot copy {source}: {reasons[0] if reasons else error}{more}",
            hint="check that you may read all of it; CANN's templates are open to others after --install-for-all",
        )
    return access_error(error, f"copy the sources to {place}")


def close_to_others(root: Path) -> None:
    """Take write permission from group and others: CANN's tools refuse sources that others can write."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod((path.stat().st_mode & 0o7755) | 0o600 | (0o100 if path.is_dir() else 0))
