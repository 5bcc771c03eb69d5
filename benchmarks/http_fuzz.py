"""Hostile HTTP requests at a running watch, and hostile configurations: nothing may crash, hang, or answer with a 500.

    python benchmarks/http_fuzz.py BUNDLE IMAGES --recipe NAME            10^5 of each; writes results/http_fuzz.json
    python benchmarks/http_fuzz.py BUNDLE IMAGES --recipe NAME --quick    2000 of each; prints only

Half of the requests are well-formed at every address of /openapi.json with odd numbers, names, bodies, origins and hosts;
the other half break the protocol itself. Afterwards the same process must judge a new frame, and its log have no traceback.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copy
from typing import Any
from urllib.request import urlopen

from revision import revision

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.preprocess import list_images
from orinspect_edge_runtime.watch.config import TABLES, make_config

RESULT = Path(__file__).parent / "results/http_fuzz.json"
WATCH = "from orinspect_edge_runtime.watch.command import watch; watch(standalone_mode=False)"
# So many watches, each with so many attackers.
WATCHES, AT_ONCE = 5, 5
METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "get", "X")
TEXTS = (
    *(
        "",
        "0",
        "1",
        "-1",
        "50",
        "9" * 30,
        "1e9",
        "NaN",
        "null",
        "٣",
        "true",
        "part",
        "..",
        "../../etc/passwd",
        "%2e%2e%2f",
    ),
    *(
        "%00",
        "a" * 3000,
        "'; DROP TABLE event; --",
        "<script>",
        "%ff%fe",
        "accept",
        "reject",
        "\u2028",
        "%",
        "a/b",
        "=",
    ),
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    4,
    2.5,
    1e308,
    10**30,
    "",
    "x",
    "../x",
    [],
    {},
    ["x"],
    {"x": 1},
    "\ud800",
    "é" * 99,
)
FIELDS = ("name", "frames", "every_s", "replace", "go_on", "note", "recipe", "x", "")
HOSTS = ("localhost", "127.0.0.1", "127.0.0.1:80", "[::1]", "evil.example", "", "[", "a b", "localhost\t", "١٢٧.٠.٠.١")
HEADERS = (
    *(
        "Origin: null",
        "Origin: http://evil.example",
        "Sec-Fetch-Site: cross-site",
        "Authorization: Bearer x",
        "Cookie: orinspect=1.2",
    ),
    *(
        "Last-Event-ID: 7",
        "Last-Event-ID: -1",
        "Content-Type: image/png",
        "Content-Type: application/json",
        "Content-Type: ;;;",
    ),
    *(
        "Content-Type: multipart/form-data",
        "Content-Type: multipart/form-data; boundary=x",
        "Expect: 100-continue",
        "Range: bytes=0-1",
    ),
    *(
        "Transfer-Encoding: chunked",
        "Content-Length: 5",
        "Content-Length: -5",
        "Content-Length: 99999999999999999999",
        "Upgrade: websocket",
    ),
    *("Connection: upgrade", "Accept-Encoding: gzip", "X: " + "y" * 9000, "X\0Y: z", ": z", "Host: second"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    count = 2000 if chosen.quick else 100_000
    image = list_images([chosen.images])[0]
    with tempfile.TemporaryDirectory(prefix="orinspect-fuzz-") as name, ThreadPoolExecutor(WATCHES) as pool:
        attacks = [
            pool.submit(attacked, Path(name) / str(seed), chosen.bundle, chosen.recipe, image, count // WATCHES, seed)
            for seed in range(WATCHES)
        ]
        found = together([attack.result() for attack in attacks])
    found |= {"configurations": configurations(random.Random(1), count)}
    print(json.dumps(found, indent=2))
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": measure_conditions(0) | {"commit": revision()}, "found": found}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return int(bool(found["server_errors"] or not found["judged_afterwards"] or found["tracebacks"]))


def together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What the watches went through, as one."""
    answers = sum((collections.Counter(one["answers"]) for one in found), collections.Counter[str]())
    sums = {name: sum(one[name] for one in found) for name in ("requests", "server_errors", "tracebacks")}
    return sums | {
        "answers": dict(sorted(answers.items())),
        "judged_afterwards": all(one["judged_afterwards"] for one in found),
        "exit_codes": [one["exit_code"] for one in found],
        "resident_mib": [one["resident_mib"] for one in found],
        "seconds": max(one["seconds"] for one in found),
    }


def attacked(folder: Path, bundle: Path, recipe: str, image: Path, count: int, seed: int) -> dict[str, Any]:
    """Send the requests to a watch of its own."""
    (folder / "in").mkdir(parents=True)
    port = free_port()
    (folder / "watch.toml").write_text(
        f'[source]\nlocation = "in"\n[recipe]\nbundle = "{bundle.resolve()}"\nname = "{recipe}"\n[http]\nport = {port}\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", WATCH, "watch.toml"], cwd=folder, stderr=log)
    try:
        while not connects(port) and process.poll() is None:
            time.sleep(0.1)
        paths = list(json.load(urlopen(f"http://127.0.0.1:{port}/openapi.json"))["paths"])
        rss = [resident_mib(process.pid)]
        begin, answers = time.monotonic(), collections.Counter[str]()
        attackers = [Attacker(port, random.Random(seed * AT_ONCE + number), paths) for number in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in range(4):
                for seen in pool.map(lambda one: one.attack(count // 4 // AT_ONCE), attackers):
                    answers += seen
                rss.append(resident_mib(process.pid))
        copy(image, folder / f"in/new{image.suffix}")
        judged = judged_one(port, time.monotonic() + 60)
        rss.append(resident_mib(process.pid))
    finally:
        process.terminate()
        code = process.wait()
    text = (folder / "log").read_text(errors="replace")
    return {
        "requests": answers.total(),
        "seconds": round(time.monotonic() - begin, 1),
        "answers": dict(answers),
        "server_errors": sum(
            number for status, number in answers.items() if status.startswith("5") and status != "503"
        ),
        "tracebacks": text.count("Traceback"),
        "judged_afterwards": judged,
        "exit_code": code,
        "resident_mib": rss,
    }


class Attacker:
    """Makes requests and sends each over a connection of its own."""

    def __init__(self, port: int, chance: random.Random, paths: list[str]) -> None:
        self._port, self._chance, self._paths = port, chance, paths

    def attack(self, count: int) -> collections.Counter[str]:
        """Send so many; how often each answer came."""
        return collections.Counter(self.send() for _ in range(count))

    def send(self) -> str:
        """Status of the answer, `closed` or `silent`."""
        formed = self._chance.random() < 0.5
        content = self._formed() if formed else self._broken()
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=20) as line:
                line.sendall(content)
                # A broken request often promises more than it sends: the server is right to wait, the attacker leaves.
                line.settimeout(5 if formed else 0.3)
                head = line.recv(64)
        except TimeoutError:
            return "silent"
        except OSError:
            return "closed"
        found = re.match(rb"HTTP/1\.1 (\d{3})", head)
        return found[1].decode() if found else "closed"

    def _formed(self) -> bytes:
        chance = self._chance
        path = re.sub(r"\{\w+\}", lambda _: text_of(chance), chance.choice(self._paths))
        query = "&".join(
            f"{chance.choice(('limit', 'before', 'outcome', 'heat', 'x'))}={text_of(chance)}"
            for _ in range(chance.randrange(3))
        )
        body = chance.choice((self._json, self._image, self._form, lambda: b""))()
        lines = [f"{chance.choice(METHODS)} {path}{'?' * bool(query)}{query} HTTP/1.1"]
        lines += [
            f"Host: {'localhost' if chance.random() < 0.8 else chance.choice(HOSTS)}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        lines += chance.sample(HEADERS, chance.randrange(3))
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body

    def _broken(self) -> bytes:
        chance, content = self._chance, bytearray(self._formed())
        for _ in range(chance.randrange(1, 12)):
            place = chance.randrange(len(content))
            kind = chance.randrange(3)
            if kind == 0:
                content[place] = chance.randrange(256)
            elif kind == 1:
                del content[place : place + chance.randrange(1, 30)]
            else:
                content[place:place] = chance.randbytes(chance.randrange(1, 30))
            if not content:
                return b"\r\n"
        return bytes(content)

    def _json(self) -> bytes:
        chance = self._chance
        values = {chance.choice(FIELDS): chance.choice(VALUES) for _ in range(chance.randrange(4))}
        text = json.dumps(values).encode()
        return (
            text
            if chance.random() < 0.8
            else chance.choice((b"[" * 5000, b"{", text[:-1], b"\xff", b"NaN", b"[]", b"9" * 5000))
        )

    def _image(self) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + self._chance.randbytes(self._chance.randrange(200))

    def _form(self) -> bytes:
        name = self._chance.choice(("image", "token", "x", ""))
        return (
            f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode()
            + self._image()
            + b"\r\n--x--\r\n"
        )


def text_of(chance: random.Random) -> str:
    """An odd piece of a path or query, mostly without what would break the request line."""
    return chance.choice(TEXTS)


def configurations(chance: random.Random, count: int) -> dict[str, int]:
    """Random tables: taken, or refused with a ConfigError of one line; anything else raises."""
    names = {name: list(kind.__dataclass_fields__) for name, kind in TABLES.items()}
    odd: tuple[Any, ...] = (
        *VALUES,
        *TEXTS,
        "127.0.0.1",
        "0.0.0.0",
        "camera",
        "folder",
        8080,
        float("nan"),
        float("inf"),
        "t" * 20,
    )
    taken = 0
    for _ in range(count):
        values: dict[str, Any] = {"source": {"location": "in"}, "recipe": {"bundle": "b"}}
        for table in chance.sample(list(names), chance.randrange(1, 4)):
            keys = [*names[table], "hots"]
            values[table] = {
                **values.get(table, {}),
                **{chance.choice(keys): chance.choice(odd) for _ in range(chance.randrange(4))},
            }
        if chance.random() < 0.1:
            values[chance.choice(("http", "htp", "status", ""))] = chance.choice(odd)
        try:
            make_config(values)
            taken += 1
        except ConfigError as error:
            assert "\n" not in str(error), values
    return {"tried": count, "taken": taken}


def judged_one(port: int, end: float) -> bool:
    while time.monotonic() < end:
        if json.load(urlopen(f"http://127.0.0.1:{port}/api/status"))["frames"] == 1:
            return True
        time.sleep(0.2)
    return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def connects(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def resident_mib(pid: int) -> float:
    return round(int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024, 1)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
