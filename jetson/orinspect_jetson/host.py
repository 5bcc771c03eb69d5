"""The one seam between orinspect and a machine: its files and its programs, live or recorded.

A recorded board is a folder with the board's files under `root/` and stand-ins for its programs under `bin/`. Reading
one never falls back to the machine that replays it: a program that was not recorded is a program the board lacks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orinspect_edge_runtime.errors import InputError

MAX_BYTES = 1 << 20
MAX_LINKS = 40
TIMED_OUT = 124
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Answer:
    """What a program said. code: its exit status, 124 when it ran past its time and was killed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Standard output and error together: the Jetson tools use both for the same message."""
        return self.out + self.err


class Host:
    """Files and programs of a machine.

    root: "/" for this machine; else the folder of a recorded board, or any folder that holds a file tree.
    Raises InputError when root is not a folder.
    """

    def __init__(self, root: str | Path = "/") -> None:
        folder = Path(root)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: name a recorded board (a folder with root/ and bin/), or /")
        self.is_live = folder.resolve() == Path("/")
        is_recording = not self.is_live and (folder / "root").is_dir()
        self.root = (folder / "root" if is_recording else folder).resolve()
        self.bin = (folder / "bin").resolve() if is_recording else None

    def raw(self, path: str) -> bytes | None:
        """Up to 1 MiB of a regular file, or None when it is missing, unreadable or no regular file."""
        try:
            # A fifo or a device would block for ever; O_NONBLOCK covers the moment between open and fstat.
            handle = os.open(self.resolve(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            with os.fdopen(os.dup(handle), "rb") as file:
                return file.read(MAX_BYTES)
        except OSError:
            # A powered-off sensor answers EAGAIN or EIO: it is there, but says nothing.
            return None
        finally:
            os.close(handle)

    def text(self, path: str) -> str | None:
        """A file as text without its trailing NUL and white space, or None. Undecodable bytes become U+FFFD."""
        content = self.raw(path)
        return None if content is None else content.decode("utf-8", "replace").strip("\0 \t\r\n")

    def strings(self, path: str) -> list[str]:
        """The strings of a NUL-separated file (a device-tree property); empty when there is none."""
        return [part for part in (self.text(path) or "").split("\0") if part]

    def number(self, path: str) -> int | None:
        """A file that holds one whole number (decimal, or hexadecimal with 0x), or None."""
        try:
            return int(self.text(path) or "", 0)
        except ValueError:
            return None

    def glob(self, pattern: str) -> list[str]:
        """Paths, as the machine itself would name them, that match an absolute pattern; sorted."""
        found: list[str] = [""]
        for part in pattern.strip("/").split("/"):
            found = [f"{base}/{name}" for base in found for name in self._matches(base or "/", part)]
        return sorted(found)

    def exists(self, path: str) -> bool:
        """Is there a file, folder or device of that name?"""
        try:
            return self.resolve(path).exists()
        except OSError:
            return False

    def has_program(self, name: str) -> bool:
        """Can `run` start that program?"""
        return self._program(name) is not None

    def run(self, *command: str, timeout_s: float = 10.0) -> Answer | None:
        """Run a program with no standard input; None when the machine does not have it.

        A tool that asks a question (nvpmodel: reboot now?) reads end-of-file, so it never waits and never gets a yes.
        """
        program = self._program(command[0])
        if program is None:
            return None
        environment = {**os.environ, "LC_ALL": "C", "PATH": self._path(), "ORINSPECT_BOARD_ROOT": str(self.root)}
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return Answer(126, "", f"{command[0]}: {error.strerror}")
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            # The whole session: a shell script's children would keep the pipe open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Answer(TIMED_OUT, out.decode("utf-8", "replace"), f"{command[0]}: no answer in {timeout_s:g} s")
        return Answer(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    def resolve(self, path: str) -> Path:
        """Where a path of the machine lies here. Links are followed inside root, as after a chroot.

        Raises OSError for a loop of links.
        """
        if self.is_live:
            return Path(path)
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        here = self.root
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                here = here if here == self.root else here.parent
                continue
            here = here / part
            if here.is_symlink():
                links += 1
                if links > MAX_LINKS:
                    raise OSError(f"too many links: {path}")
                target = str(here.readlink())
                here = self.root if target.startswith("/") else here.parent
                todo += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
        return here

    def _matches(self, base: str, part: str) -> list[str]:
        if not any(mark in part for mark in "*?["):
            return [part] if self.exists(f"{base}/{part}") else []
        try:
            return [entry.name for entry in self.resolve(base).glob(part)]
        except OSError:
            return []

    def _program(self, name: str) -> str | None:
        if self.is_live:
            return shutil.which(name, path=self._path())
        return None if self.bin is None else shutil.which(name, path=str(self.bin))

    def _path(self) -> str:
        """nvpmodel and jetson_clocks live in sbin, which a user's PATH and a unit's PATH may leave out."""
        inherited = os.environ.get("PATH", "")
        return ":".join(part for part in (str(self.bin or ""), inherited, SYSTEM_PATH) if part)
