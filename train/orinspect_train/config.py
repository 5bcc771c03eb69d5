"""PretrainConfig: the schema of a pretraining run. TOML fills it, the command line overrides it, the RUN keeps it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_edge_runtime.schema import fill, read_toml, within
from orinspect_train.policies import check_name

# Each is a file of methods/.
METHOD_NAMES = (
    "synthetic_defects",
    "nsa",
    "cutpaste",
    "vicreg",
    "simclr",
    "barlow_twins",
    "moco_v2",
    "densecl",
    "byol",
    "dino",
    "simmim",
    "mae",
    "rotation",
    "csi",
    "jigsaw",
    "distillation",
)
# Those that ask two views of an image to agree.
VIEW_METHODS = ("vicreg", "simclr", "barlow_twins", "moco_v2", "densecl", "byol", "dino", "csi")
# Those that draw defects, which a signal made of drawn defects flatters.
DEFECT_METHODS = ("synthetic_defects", "nsa", "cutpaste")
# What the run's check looks for; methods that learn what a thing is are asked for other things, and so is what has never
# learnt anything but that two views agree.
DAMAGE, OTHER = "damage", "other"
THING_METHODS = ("rotation", "csi")
PRECISIONS = ("auto", "fp32", "bf16")
STATISTICS = ("auto", "frozen", "trained")
# Strides of the trunks divide the image; 32 is the deepest.
SIZE_STEP = 32
BY_MINUTES = -1
BY_INIT = -1
BY_DEVICE = -1
BY_TIME = 0
BY_COST = 0
# Value 0 of learning_rate stands for these: weights worth keeping move slowly.
RATE_PRETRAINED, RATE_SCRATCH = 1e-4, 1e-3
# Nor do they move the whole way: what they were knows more than the drawn defects that moved them.
SHARE_PRETRAINED = 0.25

# Smallest and largest value of each number.
RANGES: dict[str, tuple[float, float]] = {
    "size": (32, 1024),
    "bit_depth": (9, 16),
    "minutes": (0.1, 10_000),
    "epochs": (BY_MINUTES, 100_000),
    "batch_size": (2, 4096),
    "learning_rate": (0, 1),
    "head_learning_rate": (1e-7, 1),
    "initial_share": (BY_INIT, 0.9),
    "weight_decay": (0, 1),
    "warmup_steps": (0, 100_000),
    "frozen_stages": (BY_INIT, 5),
    "held_out": (0.05, 0.5),
    "max_images": (8, 10_000_000),
    "log_every": (1, 10_000),
    "checkpoint_every": (BY_TIME, 100_000),
    "check_every": (BY_COST, 1_000_000),
    "workers": (BY_DEVICE, 128),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides a run, beside its images and the number of devices.

    method: of METHOD_NAMES. encoder: a timm model, tiny_resnet or small_resnet. init: `imagenet`, `scratch`, or a
    .safetensors file. size: side of the square frames, pixels. resize, bit_depth: see PreprocessSpec. policy: what images
    may undergo, of POLICIES (auto: what suits them). minutes: wall clock of the whole run, reading the images included;
    epochs: passes over the images instead, 0 publishes the encoder as it starts (-1: by minutes).
    batch_size: images a step and device. learning_rate: of the encoder (0: 1e-4, from scratch 1e-3).
    head_learning_rate: of the heads, which are dropped in the end. initial_share: of the weights that a run begins with,
    in those it checks and publishes; the rest is what it trained, see blend.py (-1: a quarter, from scratch 0).
    frozen_stages: shallow feature stages left as they are (-1: those that patches are made of, so that patchcore and padim
    see what they saw, from scratch 0). batch_norm: statistics `frozen` or `trained` (auto: trained from scratch only).
    precision: of the forward pass (auto: the faster one). held_out: share of images kept for the alignment check.
    anomalies: what that check looks for, `damage` of a part or `other` things in its place (auto: other for `rotation`
    and `csi`, and from scratch for all that compare views). max_images: a seeded choice of so many is used.
    log_every, checkpoint_every, check_every: steps between two rows of the log, two checkpoints (0: half a
    minute) and two alignment checks, whose best is kept (0: as many as cost a tenth of the training, four at most; there
    is always one at the end). workers: processes that render batches (-1: none on a processor, all cores but one with a
    GPU). seed: of everything random.
    tensorboard: write the rows of the log for TensorBoard too.
    options: of the method, which a TOML file holds in a table of the method's name (see methods/).

    Raises ConfigError naming the field for a value out of range.
    """

    method: str = "synthetic_defects"
    encoder: str = "tf_efficientnet_lite0"
    init: str = "imagenet"
    size: int = 192
    resize: str = "stretch"
    bit_depth: int = 16
    policy: str = "auto"
    minutes: float = 4.0
    epochs: int = BY_MINUTES
    batch_size: int = 48
    learning_rate: float = 0.0
    head_learning_rate: float = 1e-3
    initial_share: float = BY_INIT
    weight_decay: float = 1e-4
    warmup_steps: int = 20
    frozen_stages: int = BY_INIT
    batch_norm: str = "auto"
    precision: str = "auto"
    held_out: float = 0.15
    anomalies: str = "auto"
    max_images: int = 20_000
    log_every: int = 5
    checkpoint_every: int = BY_TIME
    check_every: int = BY_COST
    workers: int = BY_DEVICE
    seed: int = 0
    tensorboard: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within(self, RANGES)
        anomalies = ("auto", DAMAGE, OTHER)
        for name, choices in (
            ("method", METHOD_NAMES), ("precision", PRECISIONS), ("batch_norm", STATISTICS), ("anomalies", anomalies),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(choices)}")
        if BY_INIT < self.initial_share < 0:
            raise ConfigError(f"initial_share is {self.initial_share}: use 0 to 0.9, or {BY_INIT} for what suits init")
        if self.size % SIZE_STEP:
            down = self.size // SIZE_STEP * SIZE_STEP
            raise ConfigError(f"size is {self.size}: it must be a multiple of {SIZE_STEP}, e.g. {down or SIZE_STEP}")
        check_name(self.policy)
        if not self.encoder or not self.init:
            raise ConfigError("encoder and init must not be empty")
        _ = self.preprocess

    @property
    def preprocess(self) -> PreprocessSpec:
        """How images become frames. Raises ConfigError."""
        return PreprocessSpec(self.size, self.size, self.resize, self.bit_depth)

    def resolved(self) -> PretrainConfig:
        """The same with every value that depends on another one filled in."""
        scratch = self.init == "scratch"
        asked = OTHER if self.method in THING_METHODS or (scratch and self.method in VIEW_METHODS) else DAMAGE
        return dataclasses.replace(
            self,
            learning_rate=self.learning_rate or (RATE_SCRATCH if scratch else RATE_PRETRAINED),
            initial_share=(0.0 if scratch else SHARE_PRETRAINED)
            if self.initial_share == BY_INIT
            else self.initial_share,
            frozen_stages=0 if scratch and self.frozen_stages == BY_INIT else self.frozen_stages,
            batch_norm=("trained" if scratch else "frozen") if self.batch_norm == "auto" else self.batch_norm,
            anomalies=asked if self.anomalies == "auto" else self.anomalies,
        )


def read_config(path: Path, overrides: dict[str, Any] | None = None) -> PretrainConfig:
    """The configuration in a TOML file, with `overrides` on top.

    Raises ConfigError naming the file: not there, not TOML, an unknown key (with its nearest neighbour), a wrong type
    or a value out of range.
    """
    return read_toml(path, lambda found: make_config(found | (overrides or {})))


def make_config(values: dict[str, Any]) -> PretrainConfig:
    """A configuration of keys and values; the only table is that of the method's options, named as the method is.

    Raises ConfigError: an unknown key, a wrong type, a value out of range, or a table for another method.
    """
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    method = values.get("method", PretrainConfig.method)
    for name in tables:
        if name != method:
            raise ConfigError(f"the table [{name}] holds options of a method, and the method is {method!r}")
    config = fill(PretrainConfig, {name: value for name, value in values.items() if name not in tables})
    return dataclasses.replace(config, options=tables.get(str(method), {}))


def to_toml(config: PretrainConfig) -> bytes:
    """The TOML text that read_config reads back as the same configuration, UTF-8."""
    values = dataclasses.asdict(config)
    options = values.pop("options")
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    if options:
        lines += ["", f"[{config.method}]", *(f"{name} = {_toml(value)}" for name, value in options.items())]
    return ("\n".join(lines) + "\n").encode()


def _toml(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
