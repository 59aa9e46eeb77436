import numpy as np
import pytest

from mmdet_lesion.synthesis.canvas import Canvas, Tissue
from mmdet_lesion.synthesis.image import finish


def test_noise_amplitude_and_correlation():
    canvas = Canvas((6, 96, 96), (0.8, 0.8, 2.0), 0.0)
    canvas.hu[:] = 30.0
    hu = finish(canvas, 15.0, np.random.default_rng(0)).astype(float) - 30.0
    assert hu.std() == pytest.approx(15.0, rel=0.05) and abs(hu.mean()) < 1
    along = np.corrcoef(hu[:, :, 1:].ravel(), hu[:, :, :-1].ravel())[0, 1]
    across = np.corrcoef(hu[1:].ravel(), hu[:-1].ravel())[0, 1]
    assert along > 0.3 and abs(across) < 0.05


def test_texture_amplitude_and_correlation_between_slices():
    canvas = Canvas((20, 96, 96), (0.8, 0.8, 1.0), 0.0)
    canvas.hu[:] = 60.0
    canvas.labels[:, :48] = Tissue.LIVER
    hu = finish(canvas, 0.0, np.random.default_rng(0)).astype(float)
    assert (hu[:, 48:] == 60.0).all()
    assert hu[:, :48].std() == pytest.approx(6.0, rel=0.15)
    assert np.corrcoef(hu[1:, :48].ravel(), hu[:-1, :48].ravel())[0, 1] > 0.5


def test_hu_range():
    canvas = Canvas((3, 40, 40), (1.0, 1.0, 1.0), 0.0)
    canvas.hu[1] = 4000.0
    hu = finish(canvas, 40.0, np.random.default_rng(0))
    assert hu.dtype == np.int16 and hu.min() == -1024 and hu.max() == 3071
