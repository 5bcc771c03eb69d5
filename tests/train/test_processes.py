"""Two processes with half of a batch each train what one process with all of it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.config import METHOD_NAMES, PretrainConfig, to_toml
from orinspect_train.metrics_log import read_log
from orinspect_train.pretrain import pretrain
from orinspect_train.processes import Processes, join_processes
from orinspect_train.run import load_encoder
from orinspect_train.run_folder import METRICS

# Where there is a GPU, devices are GPUs.
pytestmark = pytest.mark.usefixtures("on_processor")
SMALL = {
    "nsa": {},
    "moco_v2": {"queue": 64, "hidden_dim": 32},
    "densecl": {"queue": 1024, "hidden_dim": 32},
    "dino": {"prototypes": 64, "hidden_dim": 32},
    "byol": {"hidden_dim": 32},
    "simclr": {"hidden_dim": 32},
    "vicreg": {"projection_dim": 32},
    "barlow_twins": {"projection_dim": 32},
    "jigsaw": {"tiles": 2, "orders": 8},
    "distillation": {"teacher": "tf_efficientnet_lite0", "weights": "imagenet"},
}


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """By method: the largest difference of any weight, and the largest change that training made."""
    rendezvous = tmp_path_factory.mktemp("processes") / "rendezvous"
    options = json.dumps({name: SMALL.get(name, {}) for name in METHOD_NAMES})
    program = [sys.executable, str(Path(__file__).with_name("two_processes.py"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([*program, str(rank), str(rendezvous), options], env=environment, stdout=subprocess.PIPE)
        for rank in (0, 1)
    ]
    try:
        printed = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    first, second = (json.loads(text) for text in printed)
    return {name: [max(first[name][0], second[name][0]), first[name][1]] for name in METHOD_NAMES}


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_two_processes_train_what_one_does(name: str, differences: dict[str, list[float]]) -> None:
    difference, change = differences[name]
    assert change > 1e-3
    # In double precision rounding is less than this by far; a term that forgets the other half moves a large share.
    assert difference < 1e-9 * change, f"{difference} of {change}"


def test_torchrun_trains_what_spawned_processes_do(
    image_folder: Path, tmp_path: Path, tiny: Callable[..., PretrainConfig]
) -> None:
    config, file = tiny(encoder="tiny_resnet", method="byol", epochs=2), tmp_path / "c.toml"
    file.write_bytes(to_toml(config))
    outcome = pretrain(image_folder, tmp_path / "spawned", config, devices=2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "orinspect_edge_runtime.cli", "pretrain", str(image_folder), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*torchrun, *command, "--config", str(file), "--devices", "2", "--json"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == outcome.steps == 5
    curves = [[row.loss for row in read_log(tmp_path / run / METRICS)] for run in ("spawned", "run")]
    assert len(curves[0]) == 5
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    assert load_encoder(tmp_path / "run")[1]["adapted"] == outcome.adapted


def test_no_thread_of_the_group_is_left_when_the_interpreter_ends(tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted where Linux lists them")
    script = tmp_path / "joins.py"
    script.write_text(
        """import atexit, os, pathlib
def tell(text):
    # A line in one piece: torchrun lets both write to one pipe, and print() may write the end of a line by itself.
    os.write(1, (text + chr(10)).encode())
def show():
    tell(str(sorted(task.joinpath("comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir())))
# What is registered first comes last.
atexit.register(show)
from orinspect_train.processes import join_processes
tell(join_processes(2).from_first(lambda: "joined"))
show()
"""
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    shown = subprocess.run(torchrun, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    joined, threads = [line for line in shown if line == "joined"], [line for line in shown if line != "joined"]
    assert len(joined) == 2 and len(threads) == 4
    assert sum("gloo" in line for line in threads) == 2, "while it runs, and no longer at the end"


def test_one_process_asks_nobody() -> None:
    assert join_processes(1) == Processes(1)
    assert Processes(1).from_first(lambda: 3) == 3
    assert [p.strategy for p in (Processes(1), Processes(2), Processes(2, launched=True))] == [
        "auto",
        "ddp_spawn",
        "ddp",
    ]


def test_nodes_without_a_launcher_are_refused() -> None:
    with pytest.raises(ConfigError, match="--nodes 2: start the command on every node with torchrun or srun"):
        join_processes(1, 2)


def test_other_numbers_than_the_launchers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match="--devices 1 --nodes 2 are 2 processes, and 4 were started"):
        join_processes(1, 2)
