"""`orinspect watch` under the unit of `orinspect install`, booted for real: start, hang, crash, stop, uninstall.

    sudo python benchmarks/service.py            some minutes; writes benchmarks/results/service.json
    sudo python benchmarks/service.py --quick    the same with a Debian tree that --root names; prints only

Needs root, Python 3.11 (that of the Debian tree), systemd-nspawn and mmdebstrap (apt install systemd-container mmdebstrap).
A Debian tree with this project's wheel in it boots as a container with systemd as its first process; there `orinspect
install` writes the unit for a watch of a folder, with its journal, dashboard and a small real graph. SIGSTOP stands for a
loop that hangs. Says nothing about a Jetson.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from revision import revision
from watch_line import tiny_bundle

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions

PROJECT = Path(__file__).resolve().parents[1]
RESULT = PROJECT / "benchmarks/results/service.json"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
)
BOOT_TIMEOUT_S = 120
WATCHDOG_S = 3

# The command line with the wheel's folder; under /opt/line lie the bundle and the pictures, which the service cannot write.
COMMAND = """
import sys
sys.path.insert(0, "/opt/site")
from orinspect_edge_runtime.cli import main
sys.exit(main())
"""

CONFIG = """
[source]
kind = "folder"
location = "/opt/line/test"
[recipe]
bundle = "/opt/line/bundle"
[jsonl]
path = "verdicts.jsonl"
[http]
port = 8080
"""

# Runs inside the container, as root, when it has booted.
PROOF = """
import json, os, signal, sqlite3, subprocess, sys, time
from urllib.request import urlopen
NAME, WATCHDOG_S = "cabinet", int(sys.argv[1])
def run(*command):
    return subprocess.run(command, capture_output=True, text=True)
def show(name):
    return run("systemctl", "show", NAME, "--value", "-p", name).stdout.strip()
def orinspect(*arguments):
    done = run("python3", "/opt/command.py", *arguments)
    return {"exit": done.returncode, "out": done.stdout[-3000:], "err": done.stderr[-1000:]}
def wait(condition, seconds):
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        if condition():
            return round(time.monotonic() - begin, 2)
        time.sleep(0.05)
    return None
def journal():
    with sqlite3.connect(f"/var/lib/orinspect/{NAME}/journal.sqlite") as database:
        rows, ids = database.execute("SELECT count(*), count(DISTINCT id) FROM event").fetchone()
        return {"rows": rows, "ids": ids, "whole": database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"}
def dashboard():
    try:
        with urlopen("http://127.0.0.1:8080/api/status", timeout=5) as answer:
            return json.load(answer)["frames"]
    except OSError:
        return None
def back(old):
    return wait(lambda: show("ActiveState") == "active" and show("MainPID") not in ("0", old), 30)
found = {}
begin = time.monotonic()
found["install"] = orinspect("install", "--name", NAME, "--notify", "--watchdog", str(WATCHDOG_S), "--yes", "--",
                             "/usr/bin/python3", "/opt/command.py", "watch", "/opt/line/watch.toml")
found["start_s"] = wait(lambda: show("ActiveState") == "active", 30)
found["type"], found["status"] = show("Type"), show("StatusText")
found["judged_s"] = wait(lambda: dashboard() == 20, 30)
with open(f"/proc/{show('MainPID')}/status") as status:
    found["uid"] = int(status.read().split("Uid:")[1].split()[0])
time.sleep(2 * WATCHDOG_S)
found["restarts_while_well"] = int(show("NRestarts"))
found["verify"] = run("systemd-analyze", "verify", f"/etc/systemd/system/{NAME}.service").stderr[-1000:]
found["exposure"] = run("systemd-analyze", "security", NAME).stdout.strip().splitlines()[-1:]
pid = show("MainPID")
os.kill(int(pid), signal.SIGSTOP)
found["hang_to_kill_s"] = wait(lambda: show("MainPID") != pid, 30)
found["kill_to_ready_s"] = back(pid)
log = run("journalctl", "-u", NAME, "--no-pager", "-o", "cat").stdout
found["killed_by_watchdog"] = "Watchdog timeout" in log
pid = show("MainPID")
os.kill(int(pid), 9)
found["crash_to_ready_s"] = back(pid)
found["restarts"] = int(show("NRestarts"))
found["judged_again"] = wait(lambda: dashboard() == 20, 30) is not None
begin = time.monotonic()
run("systemctl", "stop", NAME)
found["stop_s"] = round(time.monotonic() - begin, 2)
found["after_stop"] = [show("ActiveState"), show("Result"), show("ExecMainStatus")]
found["journal"] = journal()
run("systemctl", "start", NAME)
found["uninstall"] = orinspect("uninstall", "--name", NAME, "--yes")
found["left"] = [p for p in (f"/etc/systemd/system/{NAME}.service", f"/var/lib/orinspect/{NAME}",
    f"/var/lib/private/orinspect/{NAME}", f"/etc/systemd/system/multi-user.target.wants/{NAME}.service")
    if os.path.lexists(p)]
found["after_uninstall"] = show("LoadState")
with open("/proof/result.json", "w") as file:
    json.dump(found, file)
run("systemctl", "poweroff")
"""

PROOF_UNIT = f"""
[Unit]
After=multi-user.target
[Service]
Environment=PYTHONPATH=/opt/site
ExecStart=/usr/bin/python3 /opt/proof.py {WATCHDOG_S}
StandardError=file:/proof/error.txt
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--root", type=Path, help="Debian tree to boot, from an earlier run; it is not changed")
    chosen = parser.parse_args()
    if os.geteuid() or not shutil.which("systemd-nspawn"):
        parser.error("run it as root, with systemd-nspawn installed (apt install systemd-container mmdebstrap)")
    with tempfile.TemporaryDirectory(prefix="orinspect-service-") as folder:
        root = chosen.root or make_root(Path(folder, "root"))
        found = boot(root, Path(folder))
    wrong = judge(found)
    print(json.dumps(found, indent=2))
    print("\n".join(wrong) or "every step went as it should")
    if not chosen.quick and not wrong:
        result = {"protocol": __doc__, "conditions": measure_conditions(0) | {"commit": revision()}, "found": found}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return int(bool(wrong))


def make_root(root: Path) -> Path:
    """A minimal Debian with systemd and the runtime's dependencies."""
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(root)]
    subprocess.run(command, check=True)
    return root


def boot(root: Path, folder: Path) -> dict[str, Any]:
    """Boot the tree with this project in it and return what the proof inside found."""
    site, proof = folder / "site", folder / "proof"
    proof.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), f"{PROJECT}[cpu,watch]"]
    subprocess.run(pip, check=True)
    (folder / "line").mkdir()
    tiny_bundle(folder / "line")
    (folder / "line/watch.toml").write_text(CONFIG)
    # The service has a user of its own.
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    for name, content in (("command.py", COMMAND), ("proof.py", PROOF), ("proof.service", PROOF_UNIT)):
        (folder / name).write_text(content)
    binds = [f"--bind-ro={folder / name}:/opt/{name}" for name in ("site", "line", "command.py", "proof.py")]
    binds += [f"--bind-ro={folder / 'proof.service'}:/etc/systemd/system/proof.service", f"--bind={proof}:/proof"]
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=overlay"]
    command += ["--setenv=PYTHONPATH=/opt/site", "--console=pipe", *binds, "-D", str(root), "-b"]
    command += ["systemd.wants=proof.service"]
    with (folder / "console.txt").open("wb") as console:
        ended = subprocess.run(["timeout", str(BOOT_TIMEOUT_S), *command], stdout=console, stderr=console, check=False)
    result = proof / "result.json"
    if not result.exists():
        told = [path.read_text()[-3000:] for path in (folder / "console.txt", proof / "error.txt") if path.exists()]
        sys.exit("\n".join([*told, f"the container ended with {ended.returncode} and without a result"]))
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def judge(found: dict[str, Any]) -> list[str]:
    """What did not go as it should, a sentence each."""
    expected = {
        "installed": found["install"]["exit"] == 0 and found["start_s"] is not None,
        "type notify, ready once golden was reproduced": found["type"] == "notify" and "golden" in found["status"],
        "judged what lay in the folder, as its dashboard says": found["judged_s"] is not None,
        "not run as root": found["uid"] != 0,
        "left alone while it is well": found["restarts_while_well"] == 0,
        "killed by the watchdog when it hangs": found["killed_by_watchdog"] and found["hang_to_kill_s"] is not None,
        "ready again after the hang": found["kill_to_ready_s"] is not None,
        "ready again after a crash": found["crash_to_ready_s"] is not None and found["restarts"] == 2,
        "judges again after the crash": found["judged_again"],
        "journal whole, no id twice": found["journal"]["whole"]
        and found["journal"]["rows"] == found["journal"]["ids"] > 0,
        "stopped cleanly": found["after_stop"] == ["inactive", "success", "0"],
        "uninstalled without a trace": found["uninstall"]["exit"] == 0 and not found["left"],
        "unknown to systemd afterwards": found["after_uninstall"] == "not-found",
    }
    return [f"not so: {sentence}" for sentence, is_so in expected.items() if not is_so]


if __name__ == "__main__":
    sys.exit(main())
