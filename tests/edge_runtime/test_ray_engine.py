"""Jobs on a Ray cluster that stands already, started as its user starts it; and what is said when it cannot be used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="the extra `ray` IS NOT INSTALLED: --engine ray was not tested")

COMMAND = [sys.executable, "-m", "orinspect_edge_runtime.cli"]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """`ray start --head` with two CPUs; its address. Sockets need a short path, so not below tmp_path."""
    address = f"127.0.0.1:{free_port()}"
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    start += ["--node-ip-address=127.0.0.1", f"--port={address.split(':')[1]}", "--include-dashboard=false"]
    start += [f"--ray-client-server-port={free_port()}", "--disable-usage-stats", "--object-store-memory=80000000"]
    process = subprocess.Popen(start, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ray runtime started" in line:
            break
    else:
        pytest.fail(f"ray did not start: {said}")
    yield address
    process.terminate()
    process.communicate(timeout=60)


def environment(**more: str) -> dict[str, str]:
    # A token of this machine's user would be asked for, if there is one.
    return os.environ | {"RAY_AUTH_MODE": "disabled", "OPENBLAS_NUM_THREADS": "1"} | more


def on_ray(address: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments), "--engine", "ray"]
    return subprocess.run(
        command, env=environment(RAY_ADDRESS=address), capture_output=True, text=True, check=False, cwd=arguments[1]
    )


@pytest.fixture
def fitted(real_bundle: Path, tiny_recipe: Callable[..., Any], tmp_path: Path) -> Path:
    from shutil import copytree

    from orinspect_edge_runtime.bundle import Bundle

    bundle = Bundle.open(copytree(real_bundle, tmp_path / "bundle"))
    digest = bundle.manifest.files["graphs/patchcore-fp32.onnx"].sha256
    return bundle.add_recipe(tiny_recipe(graph_sha256=digest, threshold=0.9)).path


def test_jobs_on_a_cluster_equal_those_of_one_process(
    cluster: str, fitted: Path, pictures: Path, tmp_path: Path, orinspect: Callable[..., Any]
) -> None:
    masks = tmp_path / "data/ground_truth/blot"
    masks.mkdir(parents=True)
    (tmp_path / "data/test").symlink_to(pictures / "test")
    for number in range(3):
        (masks / f"{number:02d}_mask.png").symlink_to(pictures / f"test/blot/{number:02d}.png")
    data, out = tmp_path / "data", tmp_path / "new"
    ran = on_ray(cluster, "evaluate", fitted, data, "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == json.loads(orinspect("evaluate", fitted, data, "--json").out)
    # Names are relative to where the command runs, in every worker too.
    ran = on_ray(cluster, "embed", fitted, os.path.relpath(pictures, fitted), "--out", out / "ray.npz")
    assert (ran.returncode, [path.name for path in out.iterdir()]) == (0, ["ray.npz"]), ran.stderr
    assert orinspect("embed", fitted, pictures, "--out", out / "local.npz").code == 0
    with np.load(out / "ray.npz") as there, np.load(out / "local.npz") as here:
        assert np.array_equal(there["embedding"], here["embedding"])
        assert [Path(name).name for name in there["image"]] == [Path(name).name for name in here["image"]]


def test_an_error_in_a_worker_is_one_line(cluster: str, fitted: Path, pictures: Path, tmp_path: Path) -> None:
    ran = on_ray(cluster, "embed", fitted, pictures, "--backend", "tensorrt", "--out", tmp_path / "x.npz")
    assert ran.returncode in (1, 2)
    assert "TensorRT" in ran.stderr.splitlines()[-1] and "Traceback" not in ran.stderr


def test_a_part_whose_worker_was_lost_is_given_to_another(cluster: str, tmp_path: Path) -> None:
    job = (
        "import contextlib, os, sys; from pathlib import Path\n"
        "from orinspect_edge_runtime.parts import Part; from orinspect_edge_runtime.ray_engine import ray_workers\n"
        "def work(part):\n"
        "    if part.images == [2]:\n"
        "        with contextlib.suppress(FileExistsError): os.mkdir(sys.argv[1]); os._exit(1)\n"
        "    return bytes(part.images)\n"
        "class Job:\n"
        "    threads, argv = 1, sys.argv\n"
        "    def elsewhere(self): return self\n"
        "    def open(self): sys.argv = self.argv; return contextlib.nullcontext(work)\n"
        "with ray_workers(Job()) as run: done = sorted(done[0] for _, done in run(Part(Path(), [n]) for n in range(6)))\n"
        "print(done)"
    )
    command = [sys.executable, "-c", job, str(tmp_path / "died")]
    ran = subprocess.run(command, env=environment(RAY_ADDRESS=cluster), capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[0, 1, 2, 3, 4, 5]", ran.stderr
    assert (tmp_path / "died").exists(), "no worker died"


def test_workers_that_fit_nowhere_are_refused(cluster: str, fitted: Path, pictures: Path, tmp_path: Path) -> None:
    ran = on_ray(cluster, "embed", fitted, pictures, "--threads", 4, "--out", tmp_path / "x.npz")
    assert ran.returncode == 2
    assert "a worker of 4 CPUs fits on no machine of the Ray cluster (the largest has 2)" in ran.stderr.splitlines()[-1]


def test_a_cluster_without_a_free_cpu_is_not_waited_for_forever(
    cluster: str, monkeypatch: pytest.MonkeyPatch, fitted: Path, pictures: Path, tmp_path: Path
) -> None:
    holder = (
        "import ray, sys, time; ray.init(sys.argv[1], logging_level='ERROR'); actor = ray.remote(num_cpus=2)\n"
        "class Holder:\n    def hold(self): return 1\n"
        "held = actor(Holder).remote(); ray.get(held.hold.remote()); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, cluster],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and "held" in process.stdout.readline()
        soon = "from orinspect_edge_runtime import cli, ray_engine; ray_engine.WAIT_FOR_WORKER = 2.0; cli.main()"
        monkeypatch.setattr(sys.modules[__name__], "COMMAND", [sys.executable, "-c", soon])
        ran = on_ray(cluster, "embed", fitted, pictures, "--out", tmp_path / "x.npz")
    finally:
        process.communicate("", timeout=60)
    assert ran.returncode == 2
    assert "0 of the 2 CPUs of the Ray cluster are free" in ran.stderr.splitlines()[-1]


def test_an_address_where_nobody_listens(fitted: Path, pictures: Path, tmp_path: Path) -> None:
    ran = on_ray(f"127.0.0.1:{free_port()}", "embed", fitted, pictures, "--out", tmp_path / "x.npz")
    assert ran.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:" in ran.stderr.splitlines()[-1]
