"""Build pycuda where there is no CUDA toolkit, so that the tests of the TensorRT backend run.

    python tests/fake_cuda/build_pycuda.py      some minutes; into the environment of the python that runs it

CUDA's headers come from NVIDIA's own wheels on PyPI; the driver to link with is the one of these tests. On a Jetson, or
wherever the toolkit is installed, `pip install pycuda` does the same by itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_cuda import compile_driver

PYCUDA = "pycuda==2026.1"
# What building needs and pycuda does not declare, and the two wheels with cuda.h and cudaProfiler.h.
NEEDED = ("setuptools", "wheel", "numpy>=1.26", "nvidia-cuda-runtime==13.*", "nvidia-cuda-profiler-api==13.*")
SETTINGS = """
USE_SHIPPED_BOOST = True
CUDA_ENABLE_GL = False
CUDA_ENABLE_CURAND = False
CUDA_INC_DIR = [{include!r}]
CUDADRV_LIB_DIR = [{driver!r}]
CUDADRV_LIBNAME = ["cuda"]
CXXFLAGS = ["-O1", "-g0", "-w"]
LDFLAGS = []
"""


def pip(*arguments: str) -> None:
    """Run pip in this python's environment."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def main() -> None:
    """Fetch, configure, build and install."""
    with tempfile.TemporaryDirectory(prefix="pycuda-") as name:
        folder = Path(name)
        pip("install", *NEEDED)
        pip("download", "--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "--dest", name, PYCUDA)
        (archive,) = folder.glob("pycuda-*.tar.gz")
        # Without a filter, which Python 3.11.2 of Debian 12 does not know: what is unpacked here is built and run anyway.
        shutil.unpack_archive(archive, folder)
        (source,) = (path for path in folder.glob("pycuda-*") if path.is_dir())
        (folder / "libcuda.so").symlink_to(compile_driver(folder))
        include = Path(sysconfig.get_path("purelib"), "nvidia/cu13/include")
        (source / "siteconf.py").write_text(SETTINGS.format(include=str(include), driver=name), encoding="utf-8")
        pip("install", "--no-build-isolation", str(source))


if __name__ == "__main__":
    main()
