"""A systemd service for a command of the user's: what will be done is a list first, then it is done.

Not yet run on hardware.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from orinspect_edge_runtime.durable import fsync_folder, write_bytes
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_jetson.host import Host

UNITS = "/etc/systemd/system"
MARK = "# Written by `orinspect install`"
NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
# Who may open the GPU and the cameras; `render` exists from JetPack 6 on.
DEVICE_GROUPS = ("video", "render")
SYSTEMCTL_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Service:
    """command: program (absolute path) and arguments. memory_max_mib: 0 for no limit.

    notify: the command tells systemd when it is ready and, from its inference loop, that it lives (see notify.py of the
    runtime); without that a watchdog would kill it.
    """

    name: str
    command: tuple[str, ...]
    notify: bool = False
    watchdog_s: int = 30
    memory_max_mib: int = 0

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise InputError(f"{self.name!r} is no service name: use lower-case letters, digits and -, at most 41")
        if not self.command or not self.command[0].startswith("/"):
            raise InputError("the command must begin with the absolute path of a program (see  command -v orinspect)")
        if any(not part.isprintable() for part in self.command):
            raise InputError("the command contains a line break or another control character")
        if self.watchdog_s < 1 or self.memory_max_mib < 0:
            raise InputError("--watchdog must be at least 1 s, --memory-max at least 0 MiB")


@dataclass(frozen=True)
class Step:
    """One thing to do: write `content` to the file `path`, or remove it (None), or run `command`."""

    text: str
    path: str = ""
    content: str | None = None
    command: tuple[str, ...] = ()


def unit_text(service: Service, host: Host) -> str:
    """The unit file."""
    source = resources.files("orinspect_jetson").joinpath("systemd").joinpath("orinspect.service.in")
    return Template(source.read_text(encoding="utf-8")).substitute(
        name=service.name,
        description=f"orinspect: {service.name}",
        type="notify" if service.notify else "exec",
        command=" ".join(quote(part) for part in service.command),
        watchdog=f"WatchdogSec={service.watchdog_s}\nNotifyAccess=main" if service.notify else "# no watchdog",
        groups=" ".join(_groups(host)),
        memory=f"MemoryMax={service.memory_max_mib}M" if service.memory_max_mib else "# no MemoryMax",
    )


def quote(part: str) -> str:
    """One argument for ExecStart: systemd expands %, $ and \\ even inside quotes."""
    escaped = part.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w./=:,@+-]+", escaped) else f'"{escaped}"'


def install_steps(service: Service, host: Host) -> list[Step]:
    """What installing does. Raises InputError when a unit of that name is there that orinspect did not write."""
    path = _unit_path(service.name, host)
    return [
        Step(f"write {path}", path, unit_text(service, host)),
        Step("reload systemd", command=("systemctl", "daemon-reload")),
        Step(f"start {service.name} now and at every boot", command=("systemctl", "enable", "--now", service.name)),
    ]


def uninstall_steps(name: str, host: Host) -> list[Step]:
    """What uninstalling does. Raises InputError when there is no such unit of ours."""
    if NAME.fullmatch(name) is None or not host.exists(f"{UNITS}/{name}.service"):
        raise InputError(f"{UNITS}/{name}.service is not there: nothing to uninstall")
    path = _unit_path(name, host)
    return [
        Step(f"stop {name} and take it out of the boot", command=("systemctl", "disable", "--now", name)),
        Step(f"delete /var/lib/orinspect/{name}", command=("systemctl", "clean", "--what=state", name)),
        Step(f"delete {path}", path),
        Step("reload systemd", command=("systemctl", "daemon-reload")),
    ]


def carry_out(steps: Sequence[Step], host: Host) -> None:
    """Do the steps in order. Raises CheckFailed at the first that fails; it and the ones after are then not done."""
    for step in steps:
        if step.command:
            answer = host.run(*step.command, timeout_s=SYSTEMCTL_TIMEOUT_S)
            if answer is None or answer.code != 0:
                reason = (
                    "systemctl is not installed" if answer is None else answer.text.strip() or f"exit {answer.code}"
                )
                raise CheckFailed(f"could not {step.text} ({' '.join(step.command)}): {reason}")
        elif step.content is not None:
            write_bytes(host.resolve(step.path), step.content.encode())
        else:
            _delete(host.resolve(step.path))


def _delete(path: Path) -> None:
    try:
        path.unlink()
        fsync_folder(path.parent)
    except OSError as error:
        raise CheckFailed(f"could not delete {path}: {error.strerror}; run this as root") from error


def _unit_path(name: str, host: Host) -> str:
    path = f"{UNITS}/{name}.service"
    text = host.text(path)
    if (text is None and host.exists(path)) or (text is not None and not text.startswith(MARK)):
        raise InputError(f"{path} was not written by orinspect: choose another --name, or remove it yourself")
    return path


def _groups(host: Host) -> list[str]:
    """A group that does not exist would keep the unit from starting."""
    have = {line.partition(":")[0] for line in (host.text("/etc/group") or "").splitlines()}
    return [name for name in DEVICE_GROUPS if name in have]
