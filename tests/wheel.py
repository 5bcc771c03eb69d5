"""Build the wheel, install it with only the `cpu` extra in a clean venv, and run the device's tests from it.

python tests/wheel.py [PYTHON ...]      PYTHON: interpreter of the clean venv
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEVICE_TESTS = ("tests/edge_runtime", "tests/jetson")
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "scikit-learn")
FORBIDDEN = ("torch", "torchvision", "onnx", "timm", "lightly", "pytorch_lightning")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def main(python: str) -> None:
    with tempfile.TemporaryDirectory(prefix="orinspect-wheel-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        run(python, "-m", "venv", folder / "venv")
        clean = folder / "venv/bin/python"
        run(clean, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[cpu]", *TEST_TOOLS)
        absent = (
            f"import importlib.util as u; found = [m for m in {FORBIDDEN} if u.find_spec(m)]; assert not found, found"
        )
        run(clean, "-c", absent)
        # Copied away from the sources, so that only the wheel's code can be imported.
        run("cp", "-r", ROOT / "tests", ROOT / "pyproject.toml", folder)
        run(clean, "-m", "pytest", "-q", "--numprocesses", "auto", "--dist", "loadfile", *DEVICE_TESTS, cwd=folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else sys.executable)
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed with {error.returncode}: {' '.join(map(str, error.cmd))}")
