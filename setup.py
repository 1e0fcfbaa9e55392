"""Builds the native kernels: one object per instruction set, the right one is chosen at load.

Without a working C++ compiler the package installs all the same, without the backend "cpu".
"""

from __future__ import annotations

import glob
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMMON = [
    "-std=c++17",
    "-O2",
    "-g0",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-ffp-contract=fast",
]
BUILDS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    BUILDS["avx2"] = ["-mavx2", "-mfma"]
    BUILDS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]


class BuildKernels(build_ext):
    """Compiles kernels.cpp once per instruction set, side by side, and links one library."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"  # no Python in it, so no version tag

    def get_export_symbols(self, ext: Any) -> list[str]:
        return list(ext.export_symbols)

    def build_extension(self, ext: Any) -> None:
        jobs = [("src/cpp/module.cpp", "module", ["-fvisibility=default"])]
        jobs += [
            ("src/cpp/kernels.cpp", name, [f"-DTT_ISA={name}", *flags])
            for name, flags in BUILDS.items()
        ]

        def compiled(job: tuple[str, str, list[str]]) -> list[str]:
            source, name, flags = job
            place = os.path.join(self.build_temp, name)
            return self.compiler.compile(
                [source], output_dir=place, depends=ext.depends, extra_postargs=COMMON + flags
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [path for found in pool.map(compiled, jobs) for path in found]
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), target_lang="c++", libraries=["pthread"]
        )


setup(
    ext_modules=[
        Extension(
            "throughtime.kernels._native",
            ["src/cpp/module.cpp", "src/cpp/kernels.cpp"],
            depends=sorted(glob.glob("src/cpp/*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
