#!/usr/bin/env python3
"""Kernel objects and kernel indexes of the simulated toolkit (standard library only).

``compile`` builds one object for each data type combination of an operator, ``index`` writes the files by
which the runtime finds them. The file layout is CANN's: ``<op>/<OpType>_<md5>.{o,json}``,
``config/<unit>/<op>.json`` and ``config/<unit>/binary_info_config.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# ops-info spelling -> (acl data type number, type name in kernel code)
DATA_TYPES: dict[str, tuple[int, str]] = {
    "float32": (0, "float"),
    "float16": (1, "half"),
    "int8": (2, "int8_t"),
    "int32": (3, "int32_t"),
    "uint8": (4, "uint8_t"),
    "int16": (6, "int16_t"),
    "uint16": (7, "uint16_t"),
    "uint32": (8, "uint32_t"),
    "int64": (9, "int64_t"),
    "uint64": (10, "uint64_t"),
    "double": (11, "double"),
    "bool": (12, "bool"),
    "bfloat16": (27, "bfloat16_t"),
}
FORMATS: dict[str, int] = {"NCHW": 0, "NHWC": 1, "ND": 2, "NCL": 47}
AI_VECTOR_CORE = 2
JOBS = 2

OpInfo = dict[str, Any]
# (data type, format) of every tensor, inputs first
Row = list[tuple[str, str]]


class BuildError(Exception):
    """A condition the user can act on; its text is printed after ``[ERROR]``."""


def tensors(info: OpInfo) -> list[tuple[str, OpInfo]]:
    """The ``input<i>`` and ``output<i>`` entries of an operator, inputs first, in definition order."""
    found = []
    for kind in ("input", "output"):
        index = 0
        while f"{kind}{index}" in info:
            found.append((kind, info[f"{kind}{index}"]))
            index += 1
    return found


def combinations(info: OpInfo) -> list[Row]:
    """For each supported combination the (data type, format) of every tensor."""
    columns = [
        list(zip(entry["dtype"].split(","), entry["format"].split(","), strict=True)) for _, entry in tensors(info)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def binary_name(op_type: str, unit: str, row: Row) -> str:
    """``<OpType>_<md5>``; the digest names the combination, not the source, as CANN's does."""
    key = json.dumps([op_type, unit, row])
    return f"{op_type}_{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"


def simplified_keys(op_type: str, row: Row) -> list[str]:
    """The strings the runtime looks a kernel up by, for non-deterministic and deterministic mode."""
    parts = "/".join(f"{DATA_TYPES[dtype][0]},{FORMATS[fmt]}" for dtype, fmt in row)
    return [f"{op_type}/d={mode},p=0/{parts}" for mode in (0, 1)]


def read_ops(path: Path) -> dict[str, OpInfo]:
    """Operators of an ops-info file by OpType."""
    try:
        ops = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BuildError(f"cannot read ops-info file {path}: {error}") from error
    if not isinstance(ops, dict):
        raise BuildError(f"{path} is not an ops-info file")
    return ops


def find_op(ops: dict[str, OpInfo], op: str) -> tuple[str, OpInfo]:
    for op_type, info in ops.items():
        if info["opFile"]["value"] == op:
            return op_type, info
    raise BuildError(f"no operator {op} in the ops-info file")


def translation_unit(op: str) -> str:
    return (
        '#include "kernel_tiling/kernel_tiling.h"\n'
        f'#include "{op}.cpp"\n'
        '#include "sim_kernel_entry.h"\n'
        f"SIM_EXPORT_KERNEL({op})\n"
    )


def tiling_size(tiling: Path) -> int:
    """Bytes of the tiling struct, from the last size check of the generated header."""
    sizes = re.findall(r"sizeof\(\w+\) == (\d+)", (tiling / "kernel_tiling" / "kernel_tiling.h").read_text())
    return int(sizes[-1])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(info: OpInfo, row: Row, op_type: str, op: str, name: str) -> OpInfo:
    """Members every description file has besides size and digest."""
    sides: dict[str, list[OpInfo]] = {"input": [], "output": []}
    for (kind, entry), (dtype, fmt) in zip(tensors(info), row, strict=True):
        index = len(sides[kind])
        sides[kind].append(
            {
                "name": entry["name"],
                "index": index,
                "dtype": dtype,
                "format": fmt,
                "paramType": entry["paramType"],
                "shape": [-2],
            }
        )
    return {
        "binFileName": name,
        "binFileSuffix": ".o",
        "blockDim": -1,
        "coreType": "VectorCore",
        "kernelName": op,
        "kernelList": [{"kernelName": op}],
        "magic": "RT_DEV_BINARY_MAGIC_ELF_AIVEC",
        "supportInfo": {
            "opType": op_type,
            "inputs": sides["input"],
            "outputs": sides["output"],
            "simplifiedKey": simplified_keys(op_type, row),
        },
    }


def compile_one(args: argparse.Namespace, op_type: str, info: OpInfo, row: Row) -> str | None:
    """Builds one object and its description; returns the compiler's text when that failed."""
    name = binary_name(op_type, args.unit, row)
    target = args.bin / args.op
    print(f"[{args.unit}] Generating {name} ...", flush=True)
    macros = [
        f"-DDTYPE_{entry['name'].upper()}={DATA_TYPES[dtype][1]}"
        for (_, entry), (dtype, _) in zip(tensors(info), row, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="kernel-") as work:
        source = Path(work, f"{name}.cpp")
        source.write_text(translation_unit(args.op))
        command = [args.bisheng, "--sim-kernel", "-I", str(args.src), "-I", str(args.tiling), *macros]
        command += [*args.options, str(source), "-o", str(target / f"{name}.o")]
        try:
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        except OSError as error:
            return f"{args.bisheng}: {error.strerror}"
    if run.returncode != 0:
        return run.stdout
    if run.stdout:
        print(run.stdout, end="", flush=True)
    description = describe(info, row, op_type, args.op, name)
    description["opParaSize"] = tiling_size(args.tiling)
    description["workspace"] = {"num": 1, "size": [-1]}
    description["filePath"] = f"{args.unit}/{args.op}/{name}.json"
    description["sha256"] = sha256(target / f"{name}.o")
    (target / f"{name}.json").write_text(json.dumps(description, indent=2) + "\n")
    print(f"[{args.unit}] Generating {name} Done", flush=True)
    return None


def compile_op(args: argparse.Namespace) -> None:
    """All combinations of one operator for one unit."""
    op_type, info = find_op(read_ops(args.ops_info), args.op)
    if not (args.src / f"{args.op}.cpp").is_file():
        raise BuildError(f"{args.src} has no {args.op}.cpp")
    if not (args.tiling / "kernel_tiling" / "kernel_tiling.h").is_file():
        raise BuildError(f"{args.tiling} has no kernel_tiling/kernel_tiling.h: no tiling class registered?")
    target = args.bin / args.op
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(lambda row: compile_one(args, op_type, info, row), combinations(info)))
    texts = [text for text in results if text is not None]
    if texts:
        summary = f"{op_type}: {len(texts)} of {len(results)} kernel objects failed"
        raise BuildError("\n".join([summary, *texts]))


def op_index(op_type: str, info: OpInfo, objects: list[tuple[str, Row]], unit: str) -> OpInfo:
    """The operator's entry of binary_info_config.json."""
    params: dict[str, list[OpInfo]] = {"inputs": [], "outputs": []}
    for kind, entry in tensors(info):
        side = params[f"{kind}s"]
        side.append({"name": entry["name"], "index": len(side), "paramType": entry["paramType"]})
    op = info["opFile"]["value"]
    return {
        "dynamicRankSupport": info.get("dynamicRankSupport", {}).get("flag") == "true",
        "simplifiedKeyMode": 0,
        "optionalInputMode": "gen_placeholder",
        "params": params,
        "binaryList": [
            {
                "coreType": AI_VECTOR_CORE,
                "simplifiedKey": simplified_keys(op_type, row),
                "binPath": f"{unit}/{op}/{name}.o",
                "jsonPath": f"{unit}/{op}/{name}.json",
            }
            for name, row in objects
        ],
    }


def write_index(args: argparse.Namespace) -> None:
    """Copies the objects of all operators of a unit and writes both kinds of index."""
    config = args.out / "config" / args.unit
    config.mkdir(parents=True, exist_ok=True)
    index: dict[str, OpInfo] = {}
    for op_type, info in read_ops(args.ops_info).items():
        op = info["opFile"]["value"]
        names = [(binary_name(op_type, args.unit, row), row) for row in combinations(info)]
        built = [(name, row) for name, row in names if (args.bin / op / f"{name}.json").is_file()]
        if not built:
            print(f"[ERROR] op {op_type}: not any obj compile success", file=sys.stderr)
            continue
        target = args.out / args.unit / op
        target.mkdir(parents=True, exist_ok=True)
        entries = []
        for name, _ in built:
            for suffix in (".o", ".json"):
                shutil.copyfile(args.bin / op / f"{name}{suffix}", target / f"{name}{suffix}")
            support = json.loads((target / f"{name}.json").read_text())["supportInfo"]
            entries.append(
                {
                    "simplifiedKeyMode": 0,
                    "simplifiedKey": support["simplifiedKey"],
                    "inputs": support["inputs"],
                    "outputs": support["outputs"],
                    "opMode": "dynamic",
                    "deterministic": "ignore",
                    "binInfo": {"jsonFilePath": f"{args.unit}/{op}/{name}.json"},
                }
            )
        (config / f"{op}.json").write_text(json.dumps({"binList": entries}, indent=2) + "\n")
        index[op_type] = op_index(op_type, info, built, args.unit)
    (config / "binary_info_config.json").write_text(json.dumps(index, indent=2) + "\n")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="kernel_build.py")
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser("compile", help="kernel objects of one operator")
    index = commands.add_parser("index", help="kernel indexes of one unit")
    for command in (build, index):
        command.add_argument("--ops-info", type=Path, required=True, help="aic-<unit>-ops-info.json")
        command.add_argument("--unit", required=True, help="compute unit, for example ascend910b")
        command.add_argument("--bin", type=Path, required=True, help="directory of the built objects")
    build.add_argument("--op", required=True, help="operator in snake case")
    build.add_argument("--src", type=Path, required=True, help="flat directory with the kernel sources")
    build.add_argument("--tiling", type=Path, required=True, help="directory that holds kernel_tiling/")
    build.add_argument("--bisheng", default="bisheng", help="the kernel compiler")
    build.add_argument("options", nargs="*", help="further compiler options, after --")
    index.add_argument("--out", type=Path, required=True, help="the kernel directory to fill")
    return top


def main() -> int:
    args = parser().parse_args()
    try:
        if args.command == "compile":
            compile_op(args)
        else:
            write_index(args)
    except BuildError as error:
        print(f"[ERROR] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
