"""What the build project of cann-recipes-infer takes from an operator's directory while CMake configures (cann.md 9).

The names below are those that its checkouts of 2025-12 and of 2026-08 both have; the project itself is not needed here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import default_release
from smallq_deploy.package.vendortree import snake_case

OPERATOR = default_release().operator
NAME = snake_case(OPERATOR)
FUNCTIONS = {"add_ops_compile_options", "add_ops_tiling_keys", "add_opc_config"}
TARGETS = {"op_host_aclnn", "op_host_aclnnInner", "op_host_aclnnExc", "optiling", "opmaster_ct", "opsproto", "opapi"}
DEPENDENCIES = {"opbuild_gen_default", "opbuild_gen_inner", "opbuild_gen_exc", "ops_proto_headers"}
VARIABLES = {"ASCEND_AUTOGEN_DIR", "ACLNN_INC_INSTALL_DIR", "BUILD_OPEN_PROJECT"}
PLAIN = {
    *("set", "if", "else", "elseif", "endif", "foreach", "endforeach", "list", "string", "file", "install"),
    *("add_library", "target_sources", "target_include_directories", "target_compile_options", "add_dependencies"),
    *("target_link_libraries", "set_property", "set_target_properties", "set_source_files_properties", "message"),
}


@pytest.fixture(scope="module")
def directory() -> Path:
    return data_root() / "src_op" / NAME


def problems(directory: Path) -> list[str]:
    """Everything in an operator's directory that one of the two checkouts would not take, in words."""
    text = re.sub(r"#.*", "", (directory / "CMakeLists.txt").read_text())
    found = []
    calls = re.findall(r"^\s*(\w+)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text, re.MULTILINE)
    own = {arguments.split()[0] for name, arguments in calls if name == "add_library"}
    for name, arguments in calls:
        words = arguments.split()
        if name not in FUNCTIONS | PLAIN:
            found.append(f"{name} is no function of the project")
        if name.startswith("target_") and words[0] not in TARGETS | own:
            found.append(f"{words[0]} is no target of the project")
        if name == "add_dependencies" and not set(words[1:]) <= DEPENDENCIES | own:
            found.append(f"{words[1:]} are no targets of the project")
        if name == "add_ops_compile_options" and (words[0] != "OP_NAME" or snake_case(words[1]) != directory.name):
            found.append(f"compile options for {words[1]}")
    for variable in re.findall(r"\$\{(\w+)\}", text):
        if not variable.startswith(("CMAKE_", "_")) and variable not in VARIABLES:
            found.append(f"{variable} is no variable of the project")
    for target, kind in (("op_host_aclnn", "def"), ("optiling", "tiling"), ("opsproto", "proto")):
        source = f"op_host/{directory.name}_{kind}.cpp"
        if (
            not re.search(rf"target_sources\(\s*{target}\s+PRIVATE\s+{source}", text)
            or not (directory / source).is_file()
        ):
            found.append(f"{target} does not have {source}: the names of generated files follow from it")
    if not re.search(rf"set\(\s*{directory.name}_depends\s", text) or "PARENT_SCOPE" not in text:
        found.append(f"{directory.name}_depends is not set for the project")
    if not (directory / f"op_kernel/{directory.name}.cpp").is_file():
        found.append("the kernel is not named like the directory")
    # Kernel files are copied by patterns one level deep; files below, and paths with these words, are passed over.
    for path in directory.rglob("*"):
        relative = path.relative_to(directory)
        if len(relative.parts) > 2 or re.search(r"\bcommon\b|ophost", str(relative.parent)):
            found.append(f"{relative} is not copied with the kernel")
    return found


def test_the_operators_directory_is_taken(directory: Path) -> None:
    assert problems(directory) == []
    definition = (directory / f"op_host/{NAME}_def.cpp").read_text()
    assert re.search(rf"OP_ADD\({OPERATOR}\)", definition)
    for unit in default_release().units:
        assert f'AddConfig("{unit}")' in definition


BROKEN = [
    ("CMakeLists.txt", "target_sources(optiling ", "target_sources(cust_optiling ", "cust_optiling is no target"),
    ("CMakeLists.txt", "add_ops_compile_options(", "add_compile_flags(", "add_compile_flags is no function"),
    ("CMakeLists.txt", f"{NAME}_def.cpp", "definition.cpp", "names of generated files"),
    ("CMakeLists.txt", f"{NAME}_depends", "depends", f"{NAME}_depends is not set"),
    ("CMakeLists.txt", "OP_NAME SmallqFlashAttention", "OP_NAME FlashAttention", "compile options for FlashAttention"),
    ("CMakeLists.txt", "ASCEND_AUTOGEN_DIR", "ASCEND_AUTOGEN_PATH", "ASCEND_AUTOGEN_PATH is no variable"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), BROKEN, ids=[row[2].strip("( ") for row in BROKEN])
def test_what_the_project_would_not_take(
    directory: Path, tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    copy = tmp_path / NAME
    for path in directory.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(directory)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(directory)).write_bytes(path.read_bytes())
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    assert said in "; ".join(problems(copy))


def test_files_that_are_not_copied(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / NAME
    for name in ("CMakeLists.txt", f"op_kernel/{NAME}.cpp", "op_kernel/parts/deep.h"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text((directory / name).read_text() if (directory / name).exists() else "")
    assert "op_kernel/parts/deep.h is not copied with the kernel" in problems(copy)
