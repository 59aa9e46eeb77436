import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_lesion.datasets.transforms import RandomRescale


def _results(height, width, channels=9):
    # A ramp along x: linear interpolation reproduces it, so positions can be checked.
    ramp = np.arange(width, dtype=np.float32) + 0.5
    image = np.broadcast_to(ramp[None, :, None], (height, width, channels))
    return dict(
        img=np.ascontiguousarray(image),
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(np.array([[4, 6, 14, 16]], dtype=np.float32)),
    )


def test_ratio_is_relative_to_the_image_size():
    np.random.seed(0)
    transform = RandomRescale(ratio_range=(0.8, 1.2))
    ratios = []
    for height, width in [(100, 60), (64, 128)] * 20:
        results = transform(_results(height, width))
        new_height, new_width = results["img_shape"]
        assert results["img"].shape == (new_height, new_width, 9)
        assert results["img"].dtype == np.float32
        assert new_height / height == pytest.approx(new_width / width, abs=0.03)
        ratios.append(new_height / height)
    assert 0.78 < min(ratios) < 0.9 and 1.1 < max(ratios) < 1.21


def test_boxes_match_the_pixels():
    results = RandomRescale(ratio_range=(1.2, 1.2))(_results(50, 100))
    scale_x, scale_y = results["scale_factor"]
    assert scale_x == pytest.approx(1.2)
    np.testing.assert_allclose(
        results["gt_bboxes"].tensor[0],
        [4 * scale_x, 6 * scale_y, 14 * scale_x, 16 * scale_y],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        results["homography_matrix"], np.diag([scale_x, scale_y, 1.0]), rtol=1e-6
    )
    # Gray value = position in the original image: pixel center 60.5 is mapped from 60.5 / 1.2.
    np.testing.assert_allclose(results["img"][20, 60], 60.5 / scale_x, atol=1e-3)
