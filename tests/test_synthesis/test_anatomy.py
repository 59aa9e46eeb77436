import numpy as np
import pytest

from mmdet_lesion.synthesis.anatomy import Body, paint_body
from mmdet_lesion.synthesis.canvas import Canvas, Tissue


@pytest.fixture(scope="module")
def whole_body():
    body = Body.draw(np.random.SeedSequence(3))
    canvas = Canvas((60, 96, 96), (4.2, 4.2, 10.0), 5.0, body.scale, body.warp)
    paint_body(canvas, body, (6, 6), (0.6, 1.1))
    return canvas


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        (Tissue.FAT, -110, -60),
        (Tissue.MUSCLE, 45, 65),
        (Tissue.LUNG, -880, -800),
        (Tissue.LIVER, 60, 120),
        (Tissue.KIDNEY, 30, 200),
        (Tissue.VESSEL, 40, 220),
        (Tissue.BONE, 100, 300),
        (Tissue.CORTEX, 300, 900),
    ],
)
def test_hu_of_tissues(whole_body, tissue, low, high):
    values = whole_body.hu[whole_body.labels == tissue]
    assert len(values) > 50 and low < np.median(values) < high


def test_contrast_agent_enhances_kidneys_and_vessels():
    body = Body.draw(np.random.SeedSequence(3))
    medians = []
    for enhancement in (0.0, 1.0):
        canvas = Canvas((40, 64, 64), (6.3, 6.3, 10.0), 150.0, body.scale, body.warp)
        paint_body(canvas, body, (0, 0), (enhancement, enhancement))
        medians.append(
            [np.median(canvas.hu[canvas.labels == t]) for t in (Tissue.KIDNEY, Tissue.VESSEL)]
        )
    native, venous = np.array(medians)
    assert (native < 65).all()
    assert (venous - native > 60).all()


def test_positions_of_organs(whole_body):
    centers = {}
    for tissue in (Tissue.LUNG, Tissue.LIVER, Tissue.SPLEEN, Tissue.KIDNEY, Tissue.HEART):
        z, y, x = (axis.mean() for axis in np.nonzero(whole_body.labels == tissue))
        centers[tissue] = (x - 47.5, y - 47.5, z)
    # The patient's left is the image's right; z runs towards the feet.
    assert centers[Tissue.LIVER][0] < -5 < 5 < centers[Tissue.SPLEEN][0]
    assert centers[Tissue.LUNG][2] < centers[Tissue.LIVER][2] < centers[Tissue.KIDNEY][2]
    assert centers[Tissue.KIDNEY][1] > centers[Tissue.HEART][1]
    spine = whole_body.labels[20:40, :, 44:52]
    rows = np.nonzero(np.isin(spine, (Tissue.BONE, Tissue.CORTEX)))[1]
    assert np.median(rows) > 50


def test_every_trunk_slice_has_bone_and_a_vessel(whole_body):
    for labels in whole_body.labels[2:54]:
        assert np.isin(labels, (Tissue.BONE, Tissue.CORTEX)).any()
        assert (labels == Tissue.VESSEL).any()


def test_volumes_of_a_patient_show_the_same_body():
    body = Body.draw(np.random.SeedSequence(8))
    spacing = (5.0, 5.0, 4.0)
    whole = Canvas((12, 80, 80), spacing, 200.0, body.scale, body.warp)
    part = Canvas((5, 80, 80), spacing, 216.0, body.scale, body.warp)
    for canvas in (whole, part):
        paint_body(canvas, body, (6, 11), (0.6, 1.1))
    np.testing.assert_array_equal(whole.hu[4:9], part.hu)
