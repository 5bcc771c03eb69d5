"""`orinspect pretrain` on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_train.config import PretrainConfig
    from orinspect_train.pretrain import Outcome

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("data", type=PATH)
@click.option("--out", "run", type=PATH, help="Folder of the run.")
@click.option("--config", "config_file", type=PATH, help="TOML file; the options here go before what it says.")
@click.option("--method", help="How to learn, see above  [default: synthetic_defects]")
@click.option("--encoder", help="A timm model, tiny_resnet or small_resnet  [default: tf_efficientnet_lite0]")
@click.option("--init", help="imagenet (default), scratch, or a .safetensors file.")
@click.option(
    "--policy", help="What images may undergo: auto (default), gray, texture, object, photo, ...: train/README.md"
)
@click.option(
    "--anomalies", help="What the run's check looks for: damage, or other (things)  [default: by method and init]"
)
@click.option("--preview", type=PATH, help="Only write a sheet (PNG) of what the method would be shown.")
@click.option(
    "--advise", is_flag=True, help="Only probe for 2 minutes whether training pays here, and by which method."
)
@click.option("--epochs", type=int, help="Passes over the images; 0 publishes the encoder as it starts.")
@click.option("--minutes", type=float, help="Wall clock of the whole run instead of epochs  [default: 4]")
@click.option("--size", type=int, help="Side of the frames in pixels, a multiple of 32  [default: 192]")
@click.option("--seed", type=int, help="Of everything random  [default: 0]")
@click.option("--tensorboard", is_flag=True, default=None, help="Curves for TensorBoard in RUN/tensorboard.")
@click.option("--devices", type=int, default=1, show_default=True, help="GPUs of each node (without a GPU: processes).")
@click.option("--nodes", type=int, default=1, show_default=True, help="Machines, for torchrun and SLURM.")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--force", is_flag=True, help="Replace a run.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def pretrain(
    data: Path,
    run: Path | None,
    config_file: Path | None,
    preview: Path | None,
    advise: bool,
    devices: int,
    nodes: int,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Adapt an encoder to your own images, without labels.

    \b
    Methods, by what they teach:
      defects     synthetic_defects, nsa, cutpaste
      two views   vicreg, simclr, barlow_twins, moco_v2, densecl, byol, dino, csi
      the image   simmim, mae, rotation, jigsaw
      a teacher   distillation (of your own weights; needs --config)

    \b
    Example:  orinspect pretrain good_images/ --out runs/bracket --minutes 10
              orinspect pretrain good_images/ --preview sheet.png --method simclr
              orinspect pretrain good_images/ --advise
    """
    import time

    started = time.monotonic()
    from orinspect_train.run_folder import check_folder

    if resume and force:
        raise click.UsageError("--resume goes on with the run, --force throws it away: pass one of them")
    first = _is_first_process()
    given = {name: value for name, value in options.items() if value is not None}
    if preview is not None:
        _preview(data, preview, _configured(config_file, given))
        return
    if advise:
        _advise(data, run, config_file, given, started, as_json)
        return
    if run is None:
        raise click.UsageError("pass --out RUN, --advise, or --preview FILE to look at what training would be shown")
    if first:
        check_folder(run, resume=resume, force=force)
    config = _resumed(run, config_file, given) if resume else _configured(config_file, given)
    from orinspect_train.pretrain import pretrain as carry_out
    from orinspect_train.progress import progress

    with progress(shown=first) as report:
        outcome = carry_out(
            data, run, config, resume=resume, force=force, devices=devices, nodes=nodes, started=started, report=report
        )
    if first:
        _tell(outcome, data, as_json)


def _is_first_process() -> bool:
    """Whether this one prints and writes: torchrun and srun start the same command for every device."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    return os.environ.get("RANK" if launched else "SLURM_PROCID", "0") == "0"


def _preview(data: Path, file: Path, config: PretrainConfig) -> None:
    from orinspect_train.pretrain import preview
    from orinspect_train.progress import progress

    with progress() as report:
        policy, survival = preview(data, file, config, report)
    click.echo(f"{file}: method {config.method}, policy {policy}")
    if survival is not None:
        shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in survival.shares.items())
        click.echo(f"contrast of drawn defects that is left in a view: {shares} (mean {100 * survival.mean:.0f} %)")


def _advise(
    data: Path, run: Path | None, config_file: Path | None, given: dict[str, Any], started: float, as_json: bool
) -> None:
    from orinspect_train.advice_table import MINUTES, command, show
    from orinspect_train.config import OTHER
    from orinspect_train.progress import progress

    if "epochs" in given:
        raise click.UsageError("--advise takes --minutes; leave --epochs out")
    config = _configured(config_file, {"minutes": MINUTES} | given)
    if config.anomalies == OTHER:
        raise click.UsageError("--advise judges by drawn damage, not by other things; leave anomalies out")
    from orinspect_train.advice import advise

    with progress() as report:
        found = advise(data, config, started, report)
    given.pop("minutes", None)
    show(found, command(data, {"out": run or "RUN", "config": config_file} | given, found.choice), as_json)


def _configured(file: Path | None, given: dict[str, Any]) -> PretrainConfig:
    from orinspect_edge_runtime.errors import ConfigError
    from orinspect_train.config import BY_MINUTES, make_config, read_config

    if "minutes" in given and "epochs" in given:
        raise ConfigError("pass --minutes or --epochs, not both")
    if "minutes" in given:
        given = given | {"epochs": BY_MINUTES}
    return make_config(given) if file is None else read_config(file, given)


def _resumed(run: Path, file: Path | None, given: dict[str, Any]) -> PretrainConfig:
    """The run's own configuration. Raises ConfigError when an option given says otherwise."""
    from orinspect_edge_runtime.errors import ConfigError
    from orinspect_train.config import read_config
    from orinspect_train.methods import complete
    from orinspect_train.run_folder import CONFIG

    config = read_config(run / CONFIG)
    differing = [name for name, value in given.items() if getattr(config, name) != value]
    if file is not None and complete(_configured(file, {})) != complete(config):
        differing.append("config")
    if differing:
        raise ConfigError(f"--resume goes on with {run / CONFIG}, which --{differing[0]} contradicts; leave it out")
    return config


def _tell(outcome: Outcome, data: Path, as_json: bool) -> None:
    import dataclasses

    from orinspect_train.run_folder import DROPPED

    if outcome.skipped:
        click.echo(f"{outcome.skipped} unreadable images were skipped: {outcome.run}/skipped.json", err=True)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(outcome), indent=2))
        return
    speed = f", {outcome.images_per_second:.0f} images/s" if outcome.steps else ""
    click.echo(
        f"{outcome.images} images, {outcome.steps} steps in {outcome.seconds:.0f} s{speed} ({outcome.precision})"
    )
    if 0 < outcome.steps < outcome.planned_steps:
        click.echo(f"the time budget ended before the {outcome.planned_steps} planned steps", err=True)
    if outcome.alignment:
        before, after = (outcome.alignment[name]["mean"] for name in ("unadapted", "adapted"))
        dropped = f"no real gain, so the unadapted encoder is kept (the adapted weights: {DROPPED})"
        kept = "the adapted encoder is kept" if outcome.adapted else dropped
        best = f"adapted {after:.3f} (step {outcome.alignment['step']})"
        click.echo(f"{outcome.alignment['measure']}: unadapted {before:.3f}, {best}: {kept}")
    if outcome.adapted and not outcome.patches_adapted:
        click.echo("what it learnt is in the embedding: fit with  --scorer padim_mahalanobis  (or mahalanobis, knn)")
    click.echo(f"run: {outcome.run}   next:  orinspect export {outcome.run} --out BUNDLE --calibration {data}")
