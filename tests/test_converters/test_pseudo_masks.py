"""Tests of pseudo-masks on synthetic lesions with known outlines."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet_lesion.converters.pseudo_masks import encode_mask, pseudo_mask
from mmdet_lesion.synthesis.recist import recist_axes

WINDOW = (-175.0, 275.0)


def lesion(angle=0.5, radii=(16.0, 9.0), center=(60.0, 50.0), contrast=80, noise=12, size=128):
    """Return a noisy slice with an ellipse: HU, mask, box edges and end points of the diameters."""
    y, x = np.mgrid[:size, :size] + 0.5
    u, v = x - center[0], y - center[1]
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    mask = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1
    rng = np.random.default_rng(0)
    hu = 40 + contrast * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)
    hu = (hu + rng.normal(0, noise, hu.shape)).astype(np.int16)
    ends = recist_axes(mask) + 0.5
    low, high = ends.min(0) - 5, ends.max(0) + 5
    return hu, mask, np.clip([*low, *high], 0, size), ends


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("contrast", [80, -60])
@pytest.mark.parametrize("radii", [(16.0, 9.0), (5.0, 4.0), (30.0, 20.0)])
def test_ellipse_is_segmented(contrast, radii):
    hu, truth, box, ends = lesion(radii=radii, contrast=contrast)
    mask = pseudo_mask(hu, box, ends, WINDOW)
    assert mask.shape == hu.shape and mask.dtype == bool
    assert iou(mask, truth) > 0.8
    # The quadrilateral of the diameters covers clearly less.
    quadrilateral = np.zeros(hu.shape, dtype=np.uint8)
    cv2.fillConvexPoly(quadrilateral, np.rint(ends[[0, 2, 1, 3]] - 0.5).astype(np.int32), 1)
    assert iou(mask, truth) > iou(quadrilateral > 0, truth)


def test_mask_is_connected_and_inside_the_box():
    hu, _, box, ends = lesion()
    hu[5:20, 90:110] = 120  # as bright as the lesion, but outside the box
    hu[int(box[1]) + 1, int(box[0]) + 1] = 120
    mask = pseudo_mask(hu, box, ends, WINDOW)
    rows, columns = np.nonzero(mask)
    assert box[0] - 0.5 <= columns.min() and columns.max() + 1 <= box[2] + 0.5
    assert box[1] - 0.5 <= rows.min() and rows.max() + 1 <= box[3] + 0.5
    assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] == 2


def test_box_without_diameters_is_sufficient():
    hu, truth, box, _ = lesion()
    assert iou(pseudo_mask(hu, box, window=WINDOW), truth) > 0.8


def test_masks_are_reproducible():
    hu, _, box, ends = lesion(contrast=25, noise=25)
    first = pseudo_mask(hu, box, ends, WINDOW)
    cv2.setRNGSeed(77)
    assert np.array_equal(pseudo_mask(hu, box, ends, WINDOW), first)


def test_degenerate_input_yields_a_mask():
    ends = np.array([[4.0, 8], [12, 8], [8, 5], [8, 11]])
    flat = np.zeros((16, 16), dtype=np.int16)
    for box in ([2, 3, 14, 13], [0, 0, 16, 16]):
        mask = pseudo_mask(flat, box, ends, WINDOW)
        assert mask[8, 8] and 10 < mask.sum() <= 256
    # A degenerate diameter at the border, and an empty HU window.
    line = np.array([[0.5, 0.5], [6.5, 0.5], [3.5, 0.5], [3.5, 0.5]])
    assert pseudo_mask(flat, [0, 0, 7, 2], line, (5.0, 5.0))[0, 1:6].all()


def test_rle_is_valid_coco_and_json():
    _, truth, _, _ = lesion()
    rle = encode_mask(truth)
    assert rle["size"] == [128, 128] and isinstance(rle["counts"], str)
    assert np.array_equal(coco_mask.decode(rle), truth)
