import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis import PhantomConfig
from mmdet_lesion.synthesis.anatomy import Body, paint_body
from mmdet_lesion.synthesis.canvas import Canvas, Tissue
from mmdet_lesion.synthesis.lesions import LesionShape, place_lesions

BODY = Body.draw(np.random.SeedSequence(1))


def painted(top, size=96, depth=14, interval=4.0):
    pixel = 400.0 / size
    canvas = Canvas((depth, size, size), (pixel, pixel, interval), top, BODY.scale, BODY.warp)
    paint_body(canvas, BODY, (3, 3), (0.6, 1.1))
    return canvas


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("diameter", [3.0, 60.0])
def test_shape_has_the_requested_diameter(seed, diameter):
    shape = LesionShape.draw(np.random.default_rng(seed), diameter)
    axes = shape.section(0.0)
    long, short = np.linalg.norm(axes[::2] - axes[1::2], axis=1)
    assert long == pytest.approx(diameter, rel=0.03)
    assert 0.4 * long < short <= long * 1.01
    assert shape.section(shape.reach * 1.01) is None


def test_measurement_encloses_the_painted_lesion():
    canvas = painted(250.0)
    before = canvas.hu.copy()
    config = PhantomConfig(1, lesions=(3, 3), diameter=(20.0, 50.0), lesion_types=(2, 4, 5))
    lesions = place_lesions(canvas, config, np.random.default_rng(0))
    assert len(lesions) == 3
    changed = np.abs(canvas.hu - before) > 0.1
    for lesion in lesions:
        assert lesion.key_slice in lesion.sections
        assert list(lesion.sections) == list(range(min(lesion.sections), max(lesion.sections) + 1))
        for z, ends in lesion.sections.items():
            x, y = np.rint(ends.mean(0)).astype(int)
            assert canvas.labels[z, y, x] == Tissue.LESION
    boxes = np.zeros_like(changed)
    for lesion in lesions:
        # The mask may extend beyond the ends of its RECIST axes, as for a real lesion.
        for z in range(min(lesion.sections) - 1, max(lesion.sections) + 2):
            ends = lesion.sections.get(z, lesion.sections[lesion.key_slice])
            (x1, y1), (x2, y2) = np.floor(ends.min(0)) - 3, np.ceil(ends.max(0)) + 4
            if 0 <= z < len(boxes):
                boxes[z, int(y1) : int(y2), int(x1) : int(x2)] = True
    assert not (changed & ~boxes).any()


@pytest.mark.parametrize(
    ("kind", "top", "home"),
    [
        (1, 300.0, Tissue.BONE),
        (2, 340.0, Tissue.ABDOMEN),
        (3, 90.0, Tissue.MEDIASTINUM),
        (4, 250.0, Tissue.LIVER),
        (5, 120.0, Tissue.LUNG),
        (6, 330.0, Tissue.KIDNEY),
        (7, 300.0, Tissue.MUSCLE),
        (8, 480.0, Tissue.PELVIS),
    ],
)
def test_tissue_of_lesion_types(kind, top, home):
    canvas = painted(top)
    before = canvas.labels.copy()
    assert (before == home).any()
    config = PhantomConfig(1, lesions=(1, 1), diameter=(10.0, 14.0), lesion_types=(kind,))
    (lesion,) = place_lesions(canvas, config, np.random.default_rng(kind))
    homes = (home, Tissue.FAT) if kind == 7 else (home,)
    at = before[canvas.labels == Tissue.LESION]
    assert lesion.lesion_type == kind and np.isin(at, homes).mean() > 0.4


def test_contrast():
    config = PhantomConfig(
        1, lesions=(2, 2), diameter=(20.0, 25.0), contrast=(60.0, 60.0), lesion_types=(4,)
    )
    for dark, sign in ((0.0, 1), (1.0, -1)):
        canvas = painted(250.0)
        liver = float(np.median(canvas.hu[canvas.labels == Tissue.LIVER]))
        config = PhantomConfig(**{**vars(config), "hypodense": dark})
        for lesion in place_lesions(canvas, config, np.random.default_rng(0)):
            assert lesion.hu == pytest.approx(liver + sign * 60.0, abs=1.0)


def test_no_lesion_fits():
    config = PhantomConfig(1, lesion_types=(6,))
    with pytest.raises(InputError, match="no lesion of types .6,. and diameter"):
        place_lesions(painted(60.0), config, np.random.default_rng(0))
