"""Scans and a shape from which a model is trained in a test."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.structures import Volume

from ..test_synthesis.test_planting.conftest import make_chest


def write_sources(folder: Path) -> None:
    """Write two chests, ``train.nii.gz`` and ``test.nii.gz``, and a shape, ``mask.nii.gz``."""
    for seed, name in enumerate(("train", "test")):
        sitk.WriteImage(make_chest(seed, (14, 96, 96)).to_sitk(), str(folder / f"{name}.nii.gz"))
    mask = np.zeros((12, 16, 16), np.uint8)
    mask[2:10, 3:13, 3:13] = 1
    sitk.WriteImage(Volume(mask, (1.4, 1.4, 1.5)).to_sitk(), str(folder / "mask.nii.gz"))
