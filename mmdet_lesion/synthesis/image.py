"""Tissue texture, image noise and rounding of painted volumes."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Canvas, Tissue

_TEXTURE = {
    Tissue.FAT: 5.0,
    Tissue.MUSCLE: 8.0,
    Tissue.MEDIASTINUM: 9.0,
    Tissue.ABDOMEN: 9.0,
    Tissue.PELVIS: 9.0,
    Tissue.LUNG: 22.0,
    Tissue.BOWEL: 9.0,
    Tissue.LIVER: 6.0,
    Tissue.SPLEEN: 6.0,
    Tissue.KIDNEY: 8.0,
    Tissue.HEART: 5.0,
    Tissue.VESSEL: 3.0,
    Tissue.BONE: 40.0,
    Tissue.CORTEX: 50.0,
    Tissue.LESION: 6.0,
}
"""Standard deviation in HU of the texture of each tissue."""

_GRAIN = 2.5
"""Grain size of the texture in mm (standard deviation of its blur)."""

_NOISE_BLUR = 0.7
"""Correlation length of the image noise in pixels, as after a reconstruction kernel."""

HU_RANGE = (-1024, 3071)


def finish(canvas: Canvas, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Add texture and noise.

    Args:
        canvas: The painted volume, which is modified.
        noise: Standard deviation of the noise in HU.
        rng: Random generator of the volume.

    Returns:
        HU within ``HU_RANGE``, shape (D, H, W), int16.
    """
    amplitude = np.zeros(len(Tissue), np.float32)
    for tissue, value in _TEXTURE.items():
        amplitude[tissue] = value
    grain = max(_GRAIN / canvas.spacing[0], 0.6)
    # An autoregressive process in z gives grains the same extent along z as in the plane.
    keep = float(np.exp(-canvas.spacing[2] / _GRAIN))
    texture = np.zeros(canvas.hu.shape[1:], np.float32)
    out = np.empty(canvas.hu.shape, np.int16)
    for index, image in enumerate(canvas.hu):
        fresh = _field(rng, image.shape, grain)
        texture = fresh if index == 0 else keep * texture + np.sqrt(1 - keep**2) * fresh
        image += amplitude[canvas.labels[index]] * texture
        image += noise * _field(rng, image.shape, _NOISE_BLUR)
        out[index] = np.rint(np.clip(image, *HU_RANGE))
    return out


def _field(rng: np.random.Generator, shape: tuple[int, int], blur: float) -> np.ndarray:
    """Draw a Gaussian field with unit variance, correlated over ``blur`` pixels."""
    size = 2 * int(np.ceil(3 * blur)) + 1
    kernel = cv2.getGaussianKernel(size, blur, cv2.CV_32F)
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = cv2.sepFilter2D(white, -1, kernel, kernel)
    return smooth / np.float32(np.square(kernel).sum())
