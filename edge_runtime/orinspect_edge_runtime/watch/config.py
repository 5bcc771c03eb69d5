"""WatchConfig: the schema of `orinspect watch`. One TOML file fills it; every table is a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orinspect_edge_runtime.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("folder", "images", "video", "camera")
ROTATIONS = (0, 90, 180, 270)
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
}
Table = TypeVar("Table")


@dataclass(frozen=True)
class SourceConfig:
    """Where frames come from.

    kind: of KINDS. `folder` is watched for new images, `images` (a file, or a folder searched once) and `video` end by
    themselves, `camera` is whatever PyAV opens: rtsp://, http:// (MJPEG), /dev/video0. location: path or URL. format:
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
    region: tuple[int, ...] = ()
    rotate: int = 0
    timeout_s: float = 5.0
    frozen_after_s: float = 0.0
    black_below: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.rotate not in ROTATIONS:
            raise ConfigError(f"rotate is {self.rotate}: use one of {', '.join(map(str, ROTATIONS))}")
        if self.region and (len(self.region) != 4 or min(self.region) < 0 or min(self.region[2:]) < 8):
            raise ConfigError(
                f"region is {list(self.region)}: give [x, y, width, height] in pixels, sides of 8 or more"
            )
        if not self.location or "\0" in self.location:
            raise ConfigError("location is empty or no path: name a file, a folder or a URL")


@dataclass(frozen=True)
class RecipeConfig:
    """What judges: a bundle's folder and the name of a recipe in it (none needed when there is one)."""

    bundle: str
    name: str = ""
    backend: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self)
        if not self.bundle or "\0" in self.bundle:
            raise ConfigError("bundle is empty or no path: name a bundle's folder")


@dataclass(frozen=True)
class VerdictConfig:
    """From score to outcome.

    review_band: share of the threshold below it that is reviewed by a person instead of accepted (0.1: scores from
    90 % of the threshold). debounce: so many anomalous frames in a row make a reject; those before are reviews.
    """

    review_band: float = 0.0
    debounce: int = 1

    def __post_init__(self) -> None:
        _check_ranges(self)


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
        _check_ranges(self)


@dataclass(frozen=True)
class JsonlConfig:
    """A file that gets one JSON object a verdict."""

    path: str
    queue: int = 300

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class MqttConfig:
    """A broker. Verdicts go to TOPIC/verdict, `online` or `offline` (the Last Will) to TOPIC/state, both QoS 1."""

    host: str
    port: int = 1883
    topic: str = "orinspect"
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        _check_ranges(self)
        if not self.host or not self.topic or set(self.topic) & set("#+\0"):
            raise ConfigError("host and topic must not be empty, and a topic has no # and +")


@dataclass(frozen=True)
class WebhookConfig:
    """A URL that gets every verdict as a POST of JSON, in order, again until it answers 2xx."""

    url: str
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        _check_ranges(self)
        if not self.url.startswith(("http://", "https://")) or self.url.split() != [self.url]:
            raise ConfigError(f"url is {self.url!r}: give one that begins with http:// or https://")


@dataclass(frozen=True)
class WatchConfig:
    """The whole file. A table that is absent keeps its defaults; sinks that are absent (None) do not run."""

    source: SourceConfig
    recipe: RecipeConfig
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    journal: JournalConfig = field(default_factory=JournalConfig)
    jsonl: JsonlConfig | None = None
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    status: str = "status.json"


TABLES: dict[str, type[Any]] = {
    "source": SourceConfig,
    "recipe": RecipeConfig,
    "verdict": VerdictConfig,
    "journal": JournalConfig,
    "jsonl": JsonlConfig,
    "mqtt": MqttConfig,
    "webhook": WebhookConfig,
}


def read_config(path: Path) -> WatchConfig:
    """The configuration in a TOML file. Raises ConfigError, one line that names the file, the table and the key."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error
    try:
        return make_config(found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


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
            raise ConfigError(f"status is {value!r}: name a file" if name == "status" else _unknown(name, known))
    for name in ("source", "recipe"):
        if name not in made:
            raise ConfigError(f"the table [{name}] is missing")
    return WatchConfig(**made)


def _table(name: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must be a table: write [{name}]")
    schema = {f.name: f for f in dataclasses.fields(TABLES[name])}
    for key in values:
        if key not in schema:
            raise ConfigError(f"[{name}] {_unknown(key, list(schema))}")
    for key, one in schema.items():
        if one.default is dataclasses.MISSING and key not in values:
            raise ConfigError(f"[{name}] {key} is missing")
    try:
        return TABLES[name](**{key: _typed(key, value, schema[key].default) for key, value in values.items()})
    except ConfigError as error:
        raise ConfigError(f"[{name}] {error}") from error


def _unknown(key: str, known: list[str]) -> str:
    return f"unknown key {key!r}: did you mean {difflib.get_close_matches(key, known, 1, cutoff=0.0)[0]!r}?"


def _typed(name: str, value: Any, default: Any) -> Any:
    kind = str if default is dataclasses.MISSING else type(default)
    if kind is tuple and isinstance(value, list) and all(type(v) is int for v in value):
        return tuple(value)
    if kind is float and type(value) is int and abs(value) < 1e15:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"{name} is {value!r}: it must be of type {'list of integers' if kind is tuple else kind.__name__}"
        )
    return value


def _check_ranges(table: Any) -> None:
    for one in dataclasses.fields(table):
        if one.name in RANGES:
            least, most = RANGES[one.name]
            # Written so that a NaN fails too.
            if not least <= getattr(table, one.name) <= most:
                raise ConfigError(f"{one.name} is {getattr(table, one.name)}: it must be {least:g} to {most:g}")
