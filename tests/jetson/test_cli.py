"""The board commands, through click, on recorded boards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_jetson.cli import doctor, info, power, record_board

Compose = Callable[[str, str], Path]


def test_info_for_people(compose: Compose) -> None:
    result = CliRunner().invoke(info, ["--root", str(compose("orin-nx-16gb-15w", "36.4.3"))])
    assert result.exit_code == 0, result.output
    assert "Jetson Orin NX 16GB  (certain, 9 of 9 signals agree)" in result.output
    assert "4 of 8 SM switched on" in result.output
    assert "15W (id 2): 4 SM, GPU at most 612 MHz, 4 CPUs" in result.output
    assert "L4T 36.4.3, JetPack 6.2" in result.output
    assert "TensorRT 10.3.0, CUDA 12.6.0" in result.output
    assert "conflict" not in result.output


def test_info_as_json(compose: Compose) -> None:
    folder = compose("agx-orin-64gb", "39.2.0")
    (folder / "root/sys/firmware/devicetree/base/model").write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
    result = CliRunner().invoke(info, ["--json", "--root", str(folder)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["module"], found["chip"], found["compute_capability"]) == ("p3701-0005", "tegra234", "8.7")
    assert (found["sbsa"], found["dla_cores"], found["dla_compiler"]) == (True, 2, False)
    assert (found["sm_active"], found["sm_total"], found["tpc_pg_mask"]) == (16, 16, 0)
    assert found["power_mode"]["name"] == "MAXN"
    assert len(found["conflicts"]) == 1
    assert len(found["signals"]) >= 8


def test_info_elsewhere(tmp_path: Path) -> None:
    result = CliRunner().invoke(info, ["--root", str(tmp_path)])
    assert result.exit_code == 0
    assert "not a Jetson" in result.output
    assert CliRunner().invoke(info, ["--root", str(tmp_path / "missing")]).exit_code == 2


def test_the_command_module_imports_nothing_heavy() -> None:
    heavy = ("numpy", "onnxruntime", "torch", "PIL")
    code = f"import sys, orinspect_jetson.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_power_lists_and_sets(compose: Compose) -> None:
    folder = str(compose("orin-nano-8gb-super", "36.4.3"))
    result = CliRunner().invoke(power, ["--root", folder])
    assert result.exit_code == 0, result.output
    assert "* MAXN_SUPER (id 2): 8 SM, GPU at most 1020 MHz" in result.output
    assert "  25W (id 1): 8 SM, GPU at most 918 MHz" in result.output
    assert "[default]" in result.output
    assert "warning" not in result.output
    result = CliRunner().invoke(power, ["--set", "15w", "--root", folder])
    assert result.exit_code == 0, result.output
    assert "power mode is 15W" in result.output
    assert "1.67 times" in result.output
    found = json.loads(CliRunner().invoke(power, ["--json", "--root", folder]).output)
    assert (found["active_id"], len(found["modes"]), len(found["warnings"])) == (0, 3, 2)
    assert "nothing was left" in CliRunner().invoke(power, ["--restore", "--root", folder]).output


def test_power_refuses_what_it_cannot_do(compose: Compose, tmp_path: Path) -> None:
    folder = str(compose("orin-nx-16gb", "36.4.3"))
    assert isinstance(CliRunner().invoke(power, ["--set", "10W", "--root", folder]).exception, CheckFailed)
    assert isinstance(CliRunner().invoke(power, ["--set", "0", "--root", folder]).exception, InputError)
    (tmp_path / "empty").mkdir()
    assert isinstance(CliRunner().invoke(power, ["--root", str(tmp_path / "empty")]).exception, InputError)


def test_doctor(compose: Compose) -> None:
    folder = str(compose("orin-nx-16gb", "35.4.1"))
    result = CliRunner().invoke(doctor, ["--root", folder])
    assert isinstance(result.exception, CheckFailed)
    assert "TensorRT 8.5.2 cannot build" in result.output
    assert "mend: flash JetPack 6.2 or newer" in result.output
    found = json.loads(CliRunner().invoke(doctor, ["--json", "--root", folder]).output)
    assert found["findings"][0]["level"] == "problem"
    assert CliRunner().invoke(doctor, ["--root", str(compose("orin-nx-16gb", "36.4.3"))]).exit_code == 0


def test_record_board(compose: Compose, tmp_path: Path) -> None:
    folder = compose("agx-orin-32gb", "36.4.4")
    out = tmp_path / "recorded"
    assert CliRunner().invoke(record_board, [str(out), "--root", str(folder)]).exit_code == 0
    first, second = (CliRunner().invoke(info, ["--json", "--root", str(f)]).output for f in (folder, out))
    assert first == second
    assert isinstance(CliRunner().invoke(record_board, [str(out), "--root", str(folder)]).exception, InputError)
    assert CliRunner().invoke(record_board, [str(out), "--force", "--root", str(folder)]).exit_code == 0
