from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.errors import InputError
from orinspect_train import survival
from orinspect_train.config import PretrainConfig
from orinspect_train.pretrain import preview

Tiny = Callable[..., PretrainConfig]


@pytest.mark.parametrize("method", ["simclr", "synthetic_defects", "rotation"])
def test_a_sheet_shows_images_and_what_the_method_makes_of_them(
    method: str, image_folder: Path, tmp_path: Path, tiny: Tiny
) -> None:
    file = tmp_path / "sheet.png"
    policy, survival = preview(image_folder, file, tiny(method=method))
    assert policy in ("texture", "gray", "gray_upright")
    assert (survival is not None) == (method == "simclr")
    pixels = np.asarray(Image.open(file))
    assert pixels.shape[1] > 7 * 112 and pixels.shape[0] > 6 * 112
    columns = [pixels[16:, 4 + 116 * column : 116 * (column + 1)] for column in range(7)]
    assert all((columns[0] != column).any() for column in columns[1:]), "rendered images differ from the first column"


def test_a_policy_that_hides_defects_is_told(
    image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On stripes even the policy for photographs leaves enough.
    monkeypatch.setattr(survival, "LEAST_SHARE", 0.98)
    told: list[str] = []
    config = tiny(method="simclr", policy="photo")
    preview(image_folder, tmp_path / "sheet.png", config, lambda stage, _, text: told.append(text))
    assert any(line.startswith("policy photo hides defects") for line in told)


def test_a_sheet_that_cannot_be_written_is_told(image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        preview(image_folder, tmp_path / "file" / "sheet.png", tiny())
