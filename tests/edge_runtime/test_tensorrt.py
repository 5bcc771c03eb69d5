"""The TensorRT backend under pycuda and cuda-python, over a driver of our own. See tests/fake_cuda.

In processes of their own, because a driver once loaded is found by every library that looks for a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import fake_cuda
import pytest

from orinspect_edge_runtime.backends import cuda_memory
from orinspect_edge_runtime.backends.cuda_memory import CudaError
from orinspect_edge_runtime.errors import InputError

CHECKS = Path(fake_cuda.__file__).with_name("check_backend.py")
ROOT = CHECKS.parent.parent.parent
LIBRARIES = {
    "pycuda": ("pycuda", "pip install pycuda (on a computer without CUDA see CONTRIBUTING.md)"),
    "cuda-python": ("cuda.bindings", "pip install cuda-bindings"),
}


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.skipif(fake_cuda.compiler() is None, reason="there is no C compiler (cc) for the fake driver")
def test_the_backend_over_the_fake_driver(library: str, tmp_path: Path) -> None:
    module, remedy = LIBRARIES[library]
    if not installed(module):
        pytest.skip(f"{module} is not installed: {remedy}")
    pytest.importorskip("onnxruntime", reason="the extra `cpu` is not installed")
    paths = os.pathsep.join(filter(None, [str(ROOT / "tests"), *sys.path]))
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_LIBRARY": library, "OMP_NUM_THREADS": "1"}
    environment["FAKE_CUDA"] = str(fake_cuda.compile_driver(tmp_path))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rP", str(CHECKS)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print("\n".join(line for line in done.stdout.splitlines() if "FAILURES" in line or " passed" in line))


def test_without_a_cuda_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> cuda_memory.CudaMemory:
        raise ModuleNotFoundError("No module named 'pycuda'", name="pycuda")

    monkeypatch.setattr(cuda_memory, "MEMORIES", {"pycuda": missing})
    with pytest.raises(InputError, match=r"needs pycuda or cuda-python.*pip install 'orinspect\[jetson\]'"):
        cuda_memory.open_memory()
    with pytest.raises(InputError, match="CUDA library 'cupy' is not known: use one of pycuda"):
        cuda_memory.open_memory("cupy")


def test_importing_the_backend_imports_nothing_of_cuda() -> None:
    code = "import sys, orinspect_edge_runtime.backends.tensorrt, orinspect_edge_runtime.backends.pycuda_memory;"
    code += "import orinspect_edge_runtime.backends.cuda_python_memory;"
    code += "bad = {'pycuda', 'cuda', 'tensorrt', 'onnxruntime'} & set(sys.modules); assert not bad, bad"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.skipif(Path("/dev/nvhost-gpu").exists() or Path("/dev/nvidia0").exists(), reason="this computer has a GPU")
def test_without_a_driver_one_sentence_says_so(library: str) -> None:
    module, remedy = LIBRARIES[library]
    if not installed(module):
        pytest.skip(f"{module} is not installed: {remedy}")
    with pytest.raises(CudaError, match=rf"^{library} finds no usable GPU \(.*use the onnxruntime backend$"):
        cuda_memory.open_memory(library)
