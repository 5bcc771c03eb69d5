"""Set a power mode, or lock the clocks, and put back what was there, even after the process was killed.

Before anything is changed, the mode in force is written durably to a state file; it is removed once the mode is back.
A process that is killed in between leaves the file, and the next `restore_if_left` (at the start of every command that
measures) puts the mode back. Reboots are never answered with yes: a change that needs one is refused.
Not yet run on hardware.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orinspect_edge_runtime.durable import fsync_folder, write_bytes
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_jetson.host import Answer, Host
from orinspect_jetson.nvpmodel import PowerMode, PowerTable, current_mode
from orinspect_jetson.traps import needs_reboot

STATE_FOLDER = Path("/var/lib/orinspect")
STATE_NAME = "power.json"
LOCK_NAME = "power.lock"
CLOCKS_NAME = "clocks.conf"
SWITCH_TIMEOUT_S = 60.0
REBOOT_ASKED = "Reboot required"


@dataclass(frozen=True)
class Left:
    """What the state file says: the mode to go back to, and whether clocks were locked."""

    mode_id: int
    mode_name: str
    clocks_locked: bool


def state_folder(host: Host) -> Path:
    """Where the state file of a host lies: of a replayed board inside its own folder."""
    return STATE_FOLDER if host.is_live else host.resolve(str(STATE_FOLDER))


class Power:
    """The power mode of a board.

    state: folder of the state file, on a disk that survives a reboot. table: the modes to choose from by name.
    """

    def __init__(self, host: Host, table: PowerTable, state: Path = STATE_FOLDER) -> None:
        self.host = host
        self.table = table
        self.state = state

    def mode(self, name: str) -> PowerMode:
        """The mode of that name. Raises InputError naming the modes there are."""
        found = self.table.find(name)
        if found is None:
            have = ", ".join(mode.name for mode in self.table.modes)
            raise InputError(f"power mode {name!r} is not known to this board: it has {have}")
        return found

    def now(self) -> PowerMode:
        """The mode in force. Raises CheckFailed when the board does not say."""
        found = current_mode(self.host)
        mode = None if found is None else self.table.by_id(found[0])
        if mode is None:
            raise CheckFailed("nvpmodel does not say which power mode is in force: run  sudo nvpmodel -q  to see why")
        return mode

    def set(self, mode: PowerMode) -> None:
        """Switch, and check that the switch took place.

        Raises CheckFailed when it needs a reboot or root, or when nvpmodel refuses.
        """
        now = self.now()
        if now.id == mode.id:
            # nvpmodel may ask for a reboot even to stay where it is.
            return
        if needs_reboot(now, mode):
            raise CheckFailed(_reboot_text(now, mode))
        answer = self.host.run("nvpmodel", "-m", str(mode.id), timeout_s=SWITCH_TIMEOUT_S)
        if answer is None:
            raise CheckFailed("this board has no nvpmodel: it is part of the package nvidia-l4t-nvpmodel")
        if REBOOT_ASKED in answer.text:
            raise CheckFailed(_reboot_text(now, mode))
        if self.now().id != mode.id:
            raise CheckFailed(f"nvpmodel did not switch to {mode.name}: {_reason(answer)}")

    @contextlib.contextmanager
    def held(self, mode: PowerMode, *, lock_clocks: bool = False) -> Iterator[None]:
        """Run a block in that mode; afterwards the former one is back, whatever happened in the block.

        Raises CheckFailed as `set` does, and when another process holds a mode.
        """
        with self._lock():
            self._restore_left()
            write_bytes(self.state / STATE_NAME, _state(self.now(), lock_clocks))
            try:
                self.set(mode)
                if lock_clocks:
                    self._lock_clocks()
                yield
            finally:
                self._restore_left()

    def restore_if_left(self) -> Left | None:
        """Put back what a killed process left; says what that was, or None. Does nothing while it still runs."""
        if not (self.state / STATE_NAME).exists():
            return None
        try:
            with self._lock():
                return self._restore_left()
        except CheckFailed as error:
            if isinstance(error.__cause__, BlockingIOError):
                return None
            raise

    def _restore_left(self) -> Left | None:
        """Undo, in reverse order, and forget only then: killed at any point, the next start tries again."""
        left = read_left(self.state)
        if left is None:
            return None
        clocks = self.state / CLOCKS_NAME
        if left.clocks_locked and clocks.exists():
            self._run("jetson_clocks", "--restore", str(clocks))
        former = self.table.by_id(left.mode_id)
        if former is None or former.name != left.mode_name:
            raise CheckFailed(
                f"{self.state / STATE_NAME} names the mode {left.mode_name}, which this board does not have"
            )
        self.set(former)
        for name in (CLOCKS_NAME, STATE_NAME):
            (self.state / name).unlink(missing_ok=True)
        fsync_folder(self.state)
        return left

    def _lock_clocks(self) -> None:
        """jetson_clocks, after it has stored what to go back to; a file half stored never gets its final name."""
        stored = self.state / f"{CLOCKS_NAME}.new"
        stored.unlink(missing_ok=True)
        self._run("jetson_clocks", "--store", str(stored))
        write_bytes(self.state / CLOCKS_NAME, stored.read_bytes())
        stored.unlink()
        self._run("jetson_clocks")

    def _run(self, *command: str) -> None:
        answer = self.host.run(*command, timeout_s=SWITCH_TIMEOUT_S)
        if answer is None or answer.code != 0:
            raise CheckFailed(f"{' '.join(command)} failed: {_reason(answer)}")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time. The kernel lets go of the lock when its process dies, however it dies."""
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.state / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"cannot write to {self.state} ({error.strerror}): run this as root") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise CheckFailed("another orinspect process holds the power mode: wait until it has ended") from error
        finally:
            os.close(handle)


def read_left(state: Path) -> Left | None:
    """What a killed process left in that folder, or None. Raises CheckFailed when the file is damaged."""
    path = state / STATE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Left(int(found["mode_id"]), str(found["mode_name"]), bool(found["clocks_locked"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckFailed(f"{path} is damaged: set the mode yourself (sudo nvpmodel -m ID), then delete it") from error


def _state(mode: PowerMode, clocks_locked: bool) -> bytes:
    return json.dumps({"mode_id": mode.id, "mode_name": mode.name, "clocks_locked": clocks_locked}).encode()


def _reboot_text(now: PowerMode, then: PowerMode) -> str:
    return (
        f"changing from {now.name} to {then.name} switches GPU or CPU cores on or off, which needs a reboot: "
        f"run  sudo nvpmodel -m {then.id}  and answer yes"
    )


def _reason(answer: Answer | None) -> str:
    if answer is None:
        return "the program is not installed"
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    if ": 13" in answer.text or "root" in answer.text or "Permission denied" in answer.text:
        return f"it needs root ({lines[-1]})" if lines else "it needs root"
    return lines[-1] if lines else f"exit status {answer.code}"
