"""Two processes with half of a batch each train what one process with all of it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orinspect_train.config import METHOD_NAMES

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
    # Rounding moves the statistics of batch norms by millionths; a term that forgets the other half, by a large share.
    assert difference < 0.01 * change, f"{difference} of {change}"
