"""UNPROVEN: builds smallq_attention as a torch_npu extension; never run, since no NPU was there.

    source <toolkit>/set_env.sh
    OP_VENDOR_DIR=<opp>/vendors/customize python3 setup.py build_ext --inplace

Afterwards ``torch.ops.load_library("<the built .so>")`` makes ``torch.ops.smallq.attention`` known.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension
from torch_npu.utils.cpp_extension import NpuExtension

toolkit = Path(os.environ["ASCEND_HOME_PATH"])
vendor = Path(os.environ.get("OP_VENDOR_DIR") or toolkit / "opp" / "vendors" / "customize") / "op_api"

setup(
    name="smallq_attention",
    ext_modules=[
        NpuExtension(
            name="smallq_attention",
            sources=["smallq_attention.cpp"],
            include_dirs=[str(toolkit / "include"), str(toolkit / "include" / "aclnn"), str(vendor / "include")],
            library_dirs=[str(toolkit / "lib64"), str(vendor / "lib")],
            libraries=["cust_opapi", "nnopbase", "ascendcl"],
            extra_link_args=[f"-Wl,-rpath,{vendor / 'lib'}"],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
