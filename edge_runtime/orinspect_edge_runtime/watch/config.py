"""WatchConfig: the schema of `orinspect watch`. One TOML file fills it; every table is a frozen dataclass."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import fill, read_toml, unknown, within

KINDS = ("folder", "images", "video", "camera", "gstreamer")
# Kinds that show the present: the newest frame wins, and one that is lost is opened again.
LIVE = ("camera", "gstreamer")
ROTATIONS = (0, 90, 180, 270)
EDGES = ("rising", "falling", "both")
SAVED = ("rejects", "reviews", "all")
# Smallest and largest value of each number, whichever table it stands in.
RANGES: dict[str, tuple[float, float]] = {
    "fps_max": (0, 1000),
    "timeout_s": (0.1, 600),
    "frozen_after_s": (0, 86_400),
    "black_below": (0, 255),
    "threads": (0, 1024),
    "review_band": (0, 1),
    "debounce": (1, 1000),
    "batch": (1, 10_000),
    "max_rows": (1, 1_000_000_000),
    "max_mib": (1, 1_000_000),
    "max_age_days": (0.001, 36_500),
    "queue": (1, 100_000),
    "port": (1, 65_535),
    "quality": (1, 100),
    "late_s": (0.001, 60),
    "debounce_ms": (0, 60_000),
    "poll_ms": (0.5, 1000),
    "upload_mib": (1, 1024),
    "kept_frames": (0, 100_000),
    "viewers": (1, 1000),
}
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class SourceConfig:
    """Where frames come from.

    kind: of KINDS. `folder` is watched for new images, `images` (a file, or a folder searched once) and `video` end by
    themselves, `camera` is whatever PyAV opens: rtsp://, http:// (MJPEG), /dev/video0, `gstreamer` a pipeline of
    gst-launch-1.0 without its sink, whose pictures have `size` (width, height). location: path, URL or pipeline. format:
    of FFmpeg (`mpjpeg`, `v4l2`), empty: found by itself. name: in verdicts; empty: the location without a password.
    fps_max: more frames a second are not judged, 0: no limit. region: x, y, width, height in pixels of the picture as
    it arrives; empty: all of it. rotate: degrees clockwise, after the region. timeout_s: a camera that is silent for
    so long is opened again. frozen_after_s: an unchanged picture for so long is an alarm, 0: never. black_below: a
    picture whose brightest pixel lies below is an alarm, 0: never.
    """

    location: str
    kind: str = "folder"
    format: str = ""
    name: str = ""
    fps_max: float = 0.0
    size: tuple[int, ...] = ()
    region: tuple[int, ...] = ()
    rotate: int = 0
    timeout_s: float = 5.0
    frozen_after_s: float = 0.0
    black_below: int = 0

    def __post_init__(self) -> None:
        within(self, RANGES)
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.rotate not in ROTATIONS:
            raise ConfigError(f"rotate is {self.rotate}: use one of {', '.join(map(str, ROTATIONS))}")
        if self.region and (len(self.region) != 4 or min(self.region) < 0 or min(self.region[2:]) < 8):
            raise ConfigError(
                f"region is {list(self.region)}: give [x, y, width, height] in pixels, sides of 8 or more"
            )
        if self.kind == "gstreamer" and (len(self.size) != 2 or not 8 <= min(self.size) <= max(self.size) <= 16_384):
            raise ConfigError(f"size is {list(self.size)}: give the pipeline's [width, height] in pixels, 8 to 16384")
        if not self.location or "\0" in self.location:
            raise ConfigError("location is empty or no path: name a file, a folder or a URL")


@dataclass(frozen=True)
class RecipeConfig:
    """What judges: a bundle's folder and the name of a recipe in it (none needed when there is one).

    also: names of further recipes of the bundle, which are opened at the start, so that a trigger may ask for them.
    """

    bundle: str
    name: str = ""
    also: tuple[str, ...] = ()
    backend: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        within(self, RANGES)
        if not self.bundle or "\0" in self.bundle:
            raise ConfigError("bundle is empty or no path: name a bundle's folder")
        if self.also and not self.name:
            raise ConfigError("name is empty: with `also`, name the recipe that judges when no trigger names one")


@dataclass(frozen=True)
class TriggerConfig:
    """Frames are judged only when asked for: by MQTT (TOPIC/trigger), by a line, or by what calls `Trigger.fire`.

    gpio: the file of each input line (it holds 0 or 1, as in sysfs) with the recipe to judge by, "" for the one in use.
    edge: of EDGES. debounce_ms: after a trigger others are ignored for so long. late_s: a trigger that no frame followed
    for so long is missed. poll_ms: how often a line is read when its driver does not report edges.
    """

    gpio: dict[str, str] = field(default_factory=dict)
    edge: str = "rising"
    debounce_ms: float = 20.0
    late_s: float = 1.0
    poll_ms: float = 2.0

    def __post_init__(self) -> None:
        within(self, RANGES)
        if self.edge not in EDGES:
            raise ConfigError(f"edge is {self.edge!r}: use one of {', '.join(EDGES)}")
        if any(not path or "\0" in path for path in self.gpio):
            raise ConfigError("gpio has an empty path: name the file of each line")


@dataclass(frozen=True)
class VerdictConfig:
    """From score to outcome.

    review_band: share of the threshold below it that is reviewed by a person instead of accepted (0.1: scores from
    90 % of the threshold). debounce: so many anomalous frames in a row make a reject; those before are reviews. drift:
    whether an alarm tells when the good parts no longer look as those that the recipe was fitted on.
    """

    review_band: float = 0.0
    debounce: int = 1
    drift: bool = True

    def __post_init__(self) -> None:
        within(self, RANGES)


@dataclass(frozen=True)
class JournalConfig:
    """The SQLite journal. batch: rows a transaction at most. max_rows, max_mib, max_age_days: what is older goes."""

    path: str = "journal.sqlite"
    batch: int = 30
    max_rows: int = 1_000_000
    max_mib: int = 2048
    max_age_days: float = 90.0
    queue: int = 300

    def __post_init__(self) -> None:
        within(self, RANGES)


@dataclass(frozen=True)
class JsonlConfig:
    """A file that gets one JSON object a verdict."""

    path: str
    queue: int = 300

    def __post_init__(self) -> None:
        within(self, RANGES)


@dataclass(frozen=True)
class ImagesConfig:
    """Pictures as JPEG files at their own size, in a folder a day. which: of SAVED (`reviews`: and rejects).

    max_mib, max_age_days: the oldest go. queue: pictures in memory while the disk is slow; more are dropped.
    """

    path: str
    which: str = "rejects"
    quality: int = 90
    max_mib: int = 2048
    max_age_days: float = 30.0
    queue: int = 8

    def __post_init__(self) -> None:
        within(self, RANGES)
        if self.which not in SAVED:
            raise ConfigError(f"which is {self.which!r}: use one of {', '.join(SAVED)}")
        if not self.path or "\0" in self.path:
            raise ConfigError("path is empty or no path: name a folder")


@dataclass(frozen=True)
class MqttConfig:
    """A broker. Verdicts go to TOPIC/verdict, alarms to TOPIC/alarm, `online` or `offline` (Last Will) to TOPIC/state.

    QoS 1; alarms and the state are retained. discovery: prefix under which Home Assistant looks for devices (its own
    is `homeassistant`), empty: not announced.
    """

    host: str
    port: int = 1883
    topic: str = "orinspect"
    user: str = ""
    password: str = field(default="", repr=False)
    discovery: str = ""
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        within(self, RANGES)
        if not self.host or not self.topic or set(self.topic + self.discovery) & set("#+\0"):
            raise ConfigError("host and topic must not be empty, and a topic has no # and +")


@dataclass(frozen=True)
class WebhookConfig:
    """A URL that gets every verdict as a POST of JSON, in order, again until it answers 2xx."""

    url: str
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        within(self, RANGES)
        if not self.url.startswith(("http://", "https://")) or self.url.split() != [self.url]:
            raise ConfigError(f"url is {self.url!r}: give one that begins with http:// or https://")


@dataclass(frozen=True)
class HttpConfig:
    """The dashboard, the REST interface and /metrics.

    host, port: where it listens. token: what a visitor must show; needed as soon as host is not this computer's own
    loopback. names: further host names under which it is reached. certificate, key: PEM files for
    https. folder: for frames of rejects, frames of a teach and the chosen recipe. kept_frames: frames of what was not
    accepted that are kept for feedback. upload_mib: largest body of a request. viewers: connections at once.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = field(default="", repr=False)
    names: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    folder: str = "http"
    kept_frames: int = 500
    upload_mib: int = 16
    viewers: int = 64

    def __post_init__(self) -> None:
        within(self, RANGES)
        if not self.host or "\0" in self.host + self.folder or not self.folder:
            raise ConfigError("host or folder is empty or no name: give an address to listen on and a folder")
        if self.token and (len(self.token) < SHORTEST_TOKEN or not re.fullmatch(r"[!-~]+", self.token)):
            raise ConfigError(f"token must be {SHORTEST_TOKEN} or more ASCII characters without blanks")
        if not self.token and not is_loopback(self.host):
            raise ConfigError(
                f"host is {self.host!r}, which other computers reach: set a token of {SHORTEST_TOKEN} or more characters "
                "(openssl rand -hex 24 makes one)"
            )
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("certificate and key belong together: name both PEM files or neither")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this computer only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class WatchConfig:
    """The whole file. A table that is absent keeps its defaults; what is None does not run."""

    source: SourceConfig
    recipe: RecipeConfig
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    trigger: TriggerConfig | None = None
    journal: JournalConfig = field(default_factory=JournalConfig)
    images: ImagesConfig | None = None
    jsonl: JsonlConfig | None = None
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    http: HttpConfig | None = None
    status: str = "status.json"


TABLES: dict[str, type[Any]] = {
    "source": SourceConfig,
    "recipe": RecipeConfig,
    "verdict": VerdictConfig,
    "trigger": TriggerConfig,
    "journal": JournalConfig,
    "images": ImagesConfig,
    "jsonl": JsonlConfig,
    "mqtt": MqttConfig,
    "webhook": WebhookConfig,
    "http": HttpConfig,
}


def read_config(path: Path) -> WatchConfig:
    """The configuration in a TOML file. Raises ConfigError, one line that names the file, the table and the key."""
    return read_toml(path, make_config)


def make_config(values: dict[str, Any]) -> WatchConfig:
    """A configuration of TOML's values. Raises ConfigError: an unknown key, a wrong type or a value out of range."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name in TABLES:
            made[name] = _table(name, value)
        elif name == "status" and isinstance(value, str) and value:
            made[name] = value
        else:
            known = [*TABLES, "status"]
            raise ConfigError(f"status is {value!r}: name a file" if name == "status" else unknown(name, known))
    for name in ("source", "recipe"):
        if name not in made:
            raise ConfigError(f"the table [{name}] is missing")
    if "trigger" in made and made["source"].kind not in LIVE:
        raise ConfigError(f"[trigger] needs a source of kind {' or '.join(LIVE)}: files are judged as they come")
    return WatchConfig(**made)


def _table(name: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must be a table: write [{name}]")
    try:
        return fill(TABLES[name], values)
    except ConfigError as error:
        raise ConfigError(f"[{name}] {error}") from error
