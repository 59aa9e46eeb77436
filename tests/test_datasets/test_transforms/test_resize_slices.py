import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmdet_lesion.datasets.transforms import ResizeSlices


def results(height, width, channels):
    """Ramps along x with a slope that increases with the slice, as a (H, W, C) view."""
    ramp = (np.arange(width, dtype=np.float32) + 0.5) * np.arange(1, channels + 1)[:, None, None]
    image = np.broadcast_to(ramp, (channels, height, width)).astype(np.float32)
    mask = np.zeros((1, height, width), dtype=np.uint8)
    mask[:, 4:16, 8:24] = 1
    return dict(
        img=np.ascontiguousarray(image).transpose(1, 2, 0),
        img_shape=(height, width),
        scale_factor=(1.0, 1.0),
        gt_bboxes=HorizontalBoxes(np.array([[8, 4, 24, 16]], dtype=np.float32)),
        gt_masks=BitmapMasks(mask, height, width),
    )


def test_image_of_the_target_size_is_not_copied():
    before = results(48, 64, 3)
    image = before["img"]
    after = ResizeSlices(scale=(64, 64))(before)
    assert after["img"] is image
    assert "homography_matrix" not in after and after["scale_factor"] == (1.0, 1.0)


# OpenCV resizes up to four channels with its optimized function, and at most 512.
@pytest.mark.parametrize("channels", [7, 600])
def test_slices_boxes_and_masks_are_resized(channels):
    after = ResizeSlices(scale=(32, 32))(results(48, 64, channels))
    assert after["img"].shape == (24, 32, channels) and after["img_shape"] == (24, 32)
    assert after["img"].transpose(2, 0, 1).flags.c_contiguous
    expected = 2 * np.arange(32) + 1.0
    for index in (0, channels - 1):
        np.testing.assert_allclose(after["img"][5, :, index], (index + 1) * expected, rtol=1e-6)
    assert after["scale_factor"] == (0.5, 0.5)
    np.testing.assert_array_equal(after["gt_bboxes"].tensor, [[4, 2, 12, 8]])
    mask = after["gt_masks"].masks[0]
    assert mask.shape == (24, 32)
    assert mask[2:8, 4:12].all() and mask.sum() == 6 * 8
    np.testing.assert_array_equal(after["homography_matrix"], np.diag([0.5, 0.5, 1]))
