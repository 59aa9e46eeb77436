from dataclasses import replace

import numpy as np
import pytest

from mmdet_lesion.synthesis import Luna16PhantomConfig
from mmdet_lesion.synthesis.anatomy import Body, paint_body
from mmdet_lesion.synthesis.canvas import Canvas, Tissue
from mmdet_lesion.synthesis.nodules import LungSpace, place_findings, place_nodules

CONFIG = Luna16PhantomConfig(
    volumes=1, nodules=(3, 3), diameter=(8.0, 16.0), subsolid=0.0, juxtapleural=0.0
)


@pytest.fixture
def canvas():
    body = Body.draw(np.random.SeedSequence(4))
    body = replace(body, scale=tuple(0.4 * s for s in body.scale))
    canvas = Canvas((62, 72, 72), (2.0, 2.0, 2.0), 0.0, body.scale, body.warp)
    paint_body(canvas, body, (0, 0), (0.6, 1.1))
    return canvas


def offsets(canvas, finding):
    """Distance in mm of every voxel from the center of a finding."""
    x, y, z = finding.center
    return np.sqrt(
        (canvas.x_mm - x) ** 2
        + (canvas.y_mm[:, None] - y) ** 2
        + (canvas.z_mm[:, None, None] - z) ** 2
    )


def test_position_and_size_of_a_nodule(canvas):
    before = canvas.hu.copy()
    space = LungSpace(canvas)
    nodules = place_nodules(canvas, space, CONFIG, np.random.default_rng(1))
    assert len(nodules) == 3
    for nodule in nodules:
        near = offsets(canvas, nodule) < nodule.diameter
        change = np.where(near, canvas.hu - before, 0)
        # Weighting by partial coverage gives volumes and centers with subvoxel accuracy.
        weight = change / np.percentile(change[offsets(canvas, nodule) < 3], 50)
        diameter = 2 * (3 * 8.0 * weight.sum() / (4 * np.pi)) ** (1 / 3)
        assert diameter == pytest.approx(nodule.diameter, rel=0.15)
        axes = (canvas.x_mm, canvas.y_mm[:, None], canvas.z_mm[:, None, None])
        center = [(weight * axis).sum() / weight.sum() for axis in axes]
        np.testing.assert_allclose(center, nodule.center, atol=0.8)


def test_walls_and_vessels_are_unchanged(canvas):
    before, labels = canvas.hu.copy(), canvas.labels.copy()
    config = replace(CONFIG, juxtapleural=1.0, subsolid=0.5)
    rng = np.random.default_rng(2)
    space = LungSpace(canvas)
    nodules = place_nodules(canvas, space, config, rng)
    findings = place_findings(canvas, space, nodules, config, rng)
    assert nodules and findings
    changed = canvas.hu != before
    assert changed.any()
    assert (labels[changed] == Tissue.LUNG).all()


def test_distance_from_the_pleura(canvas):
    lung = np.isin(canvas.labels, (Tissue.LUNG, Tissue.VESSEL, Tissue.AIRWAY))
    space = LungSpace(canvas)
    for share, expected in ((0.0, False), (1.0, True)):
        config = replace(CONFIG, juxtapleural=share)
        for nodule in place_nodules(canvas, space, config, np.random.default_rng(3)):
            inside = offsets(canvas, nodule) < 0.5 * nodule.diameter
            assert (~lung[inside]).any() == expected
            # The center is always in the lung.
            distance = offsets(canvas, nodule)
            assert lung[distance == distance.min()].all()


def test_part_solid_nodules_have_a_denser_core(canvas):
    config = replace(CONFIG, subsolid=1.0, nodules=(1, 1), diameter=(16.0, 18.0))
    (nodule,) = place_nodules(canvas, LungSpace(canvas), config, np.random.default_rng(5))
    assert nodule.kind == "part_solid"
    distance = offsets(canvas, nodule)
    core = np.median(canvas.hu[distance < 2.5])
    lesion = canvas.labels == Tissue.LESION
    rim = np.median(canvas.hu[lesion & (distance > 0.36 * nodule.diameter)])
    assert -330 < core < 120
    assert -700 < rim < -430


def test_findings_are_apart_from_nodules_and_of_all_kinds(canvas):
    config = replace(CONFIG, findings=(40, 40), nodules=(1, 1))
    rng = np.random.default_rng(6)
    space = LungSpace(canvas)
    nodules = place_nodules(canvas, space, config, rng)
    findings = place_findings(canvas, space, nodules, config, rng)
    assert {f.kind for f in findings} == {"micronodule", "scar", "thickening", "uncertain"}
    assert all(f.diameter < 3 for f in findings if f.kind == "micronodule")
    gaps = [np.linalg.norm(f.center - n.center) - n.diameter / 2 for f in findings for n in nodules]
    assert min(gaps) > 3


def test_nodules_without_space_are_skipped(canvas):
    config = replace(CONFIG, diameter=(90.0, 91.0))
    assert place_nodules(canvas, LungSpace(canvas), config, np.random.default_rng(0)) == []
