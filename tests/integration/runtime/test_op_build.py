"""op_build and kernel_build.py: generated names and signatures, refusals, kernels that do not compile."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.acl_toolkit import ACLNN_ENV, NATIVE, TINY_ADD, compile_library, run_tool, write_compiler

FP16 = ".DataType({ge::DT_FLOAT16}).Format({ge::FORMAT_ND})"


def definition(op_type: str, body: str) -> str:
    return (
        f"class {op_type} : public OpDef {{ public: explicit {op_type}(const char* name) : OpDef(name) {{\n{body}\n"
        f'this->AICore().AddConfig("ascend910b"); }} }};\nOP_ADD({op_type});\n'
    )


def signature(header: str, function: str) -> list[str]:
    start = header.index(f"{function}(") + len(function) + 1
    return [" ".join(part.split()) for part in header[start : header.index(");", start)].split(",")]


def test_signature_rules(generate) -> None:  # type: ignore[no-untyped-def]
    body = (
        f'this->Input("in_x").ParamType(REQUIRED){FP16}; this->Input("mask").ParamType(OPTIONAL){FP16};'
        f'this->Output("first_y").ParamType(REQUIRED){FP16}; this->Output("z").ParamType(REQUIRED){FP16};'
        'this->Attr("soft_max_scale").AttrType(OPTIONAL).Float(1.0F); this->Attr("axis").Int();'
        'this->Attr("keep").AttrType(OPTIONAL).Bool(true); this->Attr("mode").AttrType(OPTIONAL).String("a");'
        'this->Attr("name").String(); this->Attr("dims").AttrType(OPTIONAL).ListInt({1, 2});'
        'this->Attr("rates").ListFloat();'
    )
    status, _, out = generate(definition("HCPreV2", body))
    assert status == 0
    header = (out / "aclnn_hc_pre_v2.h").read_text()
    assert signature(header, "aclnnHCPreV2GetWorkspaceSize") == [
        "const aclTensor *inX",
        "const aclTensor *maskOptional",
        "double softMaxScale",
        "int64_t axis",
        "bool keep",
        "char *modeOptional",
        "char *name",
        "const aclIntArray *dimsOptional",
        "const aclFloatArray *rates",
        "const aclTensor *firstYOut",
        "const aclTensor *zOut",
        "uint64_t *workspaceSize",
        "aclOpExecutor **executor",
    ]
    assert signature(header, "aclnnHCPreV2") == [
        "void *workspace",
        "uint64_t workspaceSize",
        "aclOpExecutor *executor",
        "aclrtStream stream",
    ]
    info = json.loads((out / "aic-ascend910b-ops-info.json").read_text())["HCPreV2"]
    assert info["input1"]["paramType"] == "optional" and info["opFile"]["value"] == "hc_pre_v2"
    assert info["attr"]["list"] == "soft_max_scale,axis,keep,mode,name,dims,rates"
    assert info["attr_dims"] == {
        "type": "listInt",
        "value": "all",
        "paramType": "optional",
        "defaultValue": "[1,2]",
    }
    assert ".ATTR(dims, ListInt, {1,2})" in (out / "hc_pre_v2_proto.h").read_text()


def test_one_output_is_called_out_and_names_are_snake_case(generate) -> None:  # type: ignore[no-untyped-def]
    body = f'this->Input("a").ParamType(REQUIRED){FP16}; this->Output("b").ParamType(REQUIRED){FP16};'
    names = {"Add3D": "add3_d", "MoeV2": "moe_v2", "SmallqFlashAttention": "smallq_flash_attention"}
    status, _, out = generate("".join(definition(name, body) for name in names))
    assert status == 0
    for name, snake in names.items():
        header = (out / f"aclnn_{snake}.h").read_text()
        assert signature(header, f"aclnn{name}GetWorkspaceSize")[1] == "const aclTensor *out"
    assert set(json.loads((out / "aic-ascend910b-ops-info.json").read_text())) == set(names)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (f'this->Input("a").ParamType(REQUIRED){FP16};', "at least one input and one output"),
        (f'this->Input("a"){FP16}; this->Output("b").ParamType(REQUIRED){FP16};', "input a: ParamType"),
        (
            f'this->Input("a").ParamType(DYNAMIC){FP16}; this->Output("b").ParamType(REQUIRED){FP16};',
            "ParamType must be REQUIRED or OPTIONAL",
        ),
        (
            'this->Input("a").ParamType(REQUIRED).DataType({ge::DT_FLOAT16, ge::DT_FLOAT})'
            f'.Format({{ge::FORMAT_ND}}); this->Output("b").ParamType(REQUIRED){FP16};',
            "same number of entries",
        ),
        (
            f'this->Input("a").ParamType(REQUIRED){FP16}; this->Output("b").ParamType(REQUIRED)'
            ".DataType({ge::DT_FLOAT16, ge::DT_FLOAT}).Format({ge::FORMAT_ND, ge::FORMAT_ND});",
            "same number of data types",
        ),
    ],
)
def test_bad_definitions_are_refused(generate, body: str, text: str) -> None:  # type: ignore[no-untyped-def]
    status, stderr, _ = generate(definition("Bad", body))
    assert status == 1
    assert "[ERROR] op_build: Bad" in stderr and text in stderr


def test_library_without_operators_and_broken_library(tmp_path: Path, libraries: Path) -> None:
    (tmp_path / "empty.cpp").write_text("int unused_symbol() { return 1; }\n")
    compile_library(tmp_path / "libempty.so", [tmp_path / "empty.cpp"], "gnu++17")
    done = run_tool(libraries / "op_build", tmp_path / "libempty.so", tmp_path / "gen", env=ACLNN_ENV)
    assert done.returncode == 0 and list((tmp_path / "gen").iterdir()) == []
    (tmp_path / "libbroken.so").write_text("not an ELF file")
    done = run_tool(libraries / "op_build", tmp_path / "libbroken.so", tmp_path / "gen", env=ACLNN_ENV)
    assert done.returncode == 1 and "cannot open library" in done.stderr
    assert run_tool(libraries / "op_build").returncode == 1


def test_library_with_the_new_string_abi_is_refused(tmp_path: Path, libraries: Path) -> None:
    source = TINY_ADD / "op_host/tiny_add_def.cpp"
    compile_library(tmp_path / "libdef.so", [source], "gnu++17", "-U_GLIBCXX_USE_CXX11_ABI")
    done = run_tool(libraries / "op_build", tmp_path / "libdef.so", tmp_path / "gen", env=ACLNN_ENV)
    assert done.returncode == 1 and "-D_GLIBCXX_USE_CXX11_ABI=0" in done.stderr


def test_native_sources_have_no_warnings() -> None:
    sources = [file for part in ("runtime", "opbuild") for file in sorted((NATIVE / part).rglob("*.cpp"))]
    assert len(sources) > 10
    includes = [part for name in ("", "include", "runtime/acl", "runtime/nnopbase") for part in ("-I", NATIVE / name)]
    flags = ("-std=c++17", "-fsyntax-only", "-DFUNC_VISIBILITY", "-Wall", "-Wextra", "-Werror", "-Wshadow")
    done = run_tool("g++", *flags, *includes, *sources)
    assert done.returncode == 0, done.stderr


def test_tiling_struct_layout(tmp_path: Path, libraries: Path) -> None:
    """The generated header checks every offset itself, so it only has to compile; two offsets are named here."""
    source = tmp_path / "tiling.cpp"
    source.write_text(
        '#include "register/tilingdata_base.h"\nnamespace optiling {\n'
        "BEGIN_TILING_DATA_DEF(Inner)\nTILING_DATA_FIELD_DEF(uint8_t, flag);\nTILING_DATA_FIELD_DEF(float, rate);\n"
        "END_TILING_DATA_DEF;\nREGISTER_TILING_DATA_CLASS(InnerOp, Inner)\n"
        "BEGIN_TILING_DATA_DEF(Outer)\nTILING_DATA_FIELD_DEF(uint32_t, n);\nTILING_DATA_FIELD_DEF(int64_t, big);\n"
        "TILING_DATA_FIELD_DEF_ARR(int16_t, 5, list);\nTILING_DATA_FIELD_DEF_STRUCT(Inner, inner);\n"
        "END_TILING_DATA_DEF;\nREGISTER_TILING_DATA_CLASS(OuterOp, Outer)\n"
        'extern "C" __attribute__((visibility("default"))) int Fill(unsigned char* to) {\n'
        "Outer outer; int16_t list[] = {1, 2, 3, 4, 5}; outer.set_n(7); outer.set_big(-1); outer.set_list(list);\n"
        "outer.inner.set_rate(2.5F); Outer copy = outer; copy.SaveToBuffer(to, 64);\n"
        "return static_cast<int>(copy.GetDataSize()); }\n}\n"
    )
    compile_library(tmp_path / "libtiling.so", [source], "c++11", "-fvisibility=hidden")
    done = run_tool(libraries / "op_build", "--tiling-header", tmp_path / "libtiling.so", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    check = tmp_path / "check.cpp"
    check.write_text(
        '#include "kernel_tiling/kernel_tiling.h"\nextern "C" int Fill(Outer* to);\nint main() { Outer o; '
        "return Fill(&o) == sizeof(o) && o.n == 7 && o.big == -1 && o.list[4] == 5 && o.inner.rate == 2.5F "
        "&& offsetof(Outer, inner) == 32 ? 0 : 1; }\n"
    )
    built = run_tool(
        *("g++", "-I", tmp_path / "out/outer_op", check, tmp_path / "libtiling.so", "-o", tmp_path / "check"),
        f"-Wl,-rpath,{tmp_path}",
    )
    assert built.returncode == 0, built.stderr
    assert run_tool(tmp_path / "check").returncode == 0


def test_kernel_that_does_not_compile(tmp_path: Path, libraries: Path) -> None:
    compile_library(tmp_path / "libdef.so", [TINY_ADD / "op_host/tiny_add_def.cpp"], "gnu++17")
    assert run_tool(libraries / "op_build", tmp_path / "libdef.so", tmp_path, env=ACLNN_ENV).returncode == 0
    (tmp_path / "tiling/kernel_tiling").mkdir(parents=True)
    (tmp_path / "tiling/kernel_tiling/kernel_tiling.h").write_text("// sizeof(X) == 8\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/tiny_add.cpp").write_text("this is not C++\n")
    info = ("--ops-info", tmp_path / "aic-ascend910b-ops-info.json", "--unit", "ascend910b", "--bin", tmp_path / "bin")
    tool = (sys.executable, NATIVE / "opbuild/kernel_build.py")
    source = ("--op", "tiny_add", "--src", tmp_path / "src", "--tiling", tmp_path / "tiling")
    done = run_tool(*tool, "compile", *info, *source, "--bisheng", write_compiler(tmp_path / "bisheng"))
    assert done.returncode == 1
    assert "[ERROR] TinyAdd: 2 of 2 kernel objects failed" in done.stderr and "this is not C++" in done.stderr
    done = run_tool(*tool, "index", *info, "--out", tmp_path / "kernel")
    assert done.returncode == 0
    assert "[ERROR] op TinyAdd: not any obj compile success" in done.stderr
    assert json.loads((tmp_path / "kernel/config/ascend910b/binary_info_config.json").read_text()) == {}
    done = run_tool(*tool, "compile", *info, "--op", "other", *source[2:])
    assert done.returncode == 1 and "no operator other" in done.stderr
