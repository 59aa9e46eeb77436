import numpy as np
import pytest

from mmdet_lesion.datasets.transforms import RandomCubeSymmetry
from mmdet_lesion.structures import CUBE_SYMMETRIES, Geometry

GEOMETRY = Geometry((6, 6, 6), (0.5, 1.0, 2.0), (10.0, -20.0, 30.0))


def sample(shape=(6, 6, 6)):
    image = np.zeros(shape, dtype=np.float32)
    # Voxels x 1 to 2, y 0 to 2, z 3.
    image[3, 0:3, 1:3] = 1
    return dict(
        img=image,
        gt_bboxes=np.array([[1, 0, 3, 3, 3, 4]], dtype=np.float32),
        gt_bboxes_labels=np.array([0]),
        geometry=Geometry(shape, GEOMETRY.spacing, GEOMETRY.origin).to_dict(),
    )


@pytest.mark.parametrize("symmetry", CUBE_SYMMETRIES)
def test_image_boxes_and_geometry_are_consistent(symmetry):
    results = RandomCubeSymmetry.apply(sample(), symmetry)
    (box,) = results["gt_bboxes"].astype(int)
    inside = np.zeros((6, 6, 6), dtype=np.float32)
    inside[box[2] : box[5], box[1] : box[4], box[0] : box[3]] = 1
    np.testing.assert_array_equal(results["img"], inside)
    assert results["img"].flags.c_contiguous and results["img"].dtype == np.float32
    geometry = Geometry.from_dict(results["geometry"])
    np.testing.assert_allclose(
        geometry.centers_to_world(box), GEOMETRY.centers_to_world([[1, 0, 3, 3, 3, 4]])
    )


def test_the_symmetry_is_kept():
    np.random.seed(1)
    before = sample()
    results = RandomCubeSymmetry()(RandomCubeSymmetry()(sample()))
    np.testing.assert_array_equal(results["symmetry"].apply(before["img"]), results["img"])


def test_all_symmetries_are_drawn():
    np.random.seed(0)
    transform = RandomCubeSymmetry()
    seen = {str(transform(sample())["geometry"]["direction"]) for _ in range(600)}
    assert len(seen) == 48


def test_size_of_other_shapes_than_cubes_is_preserved():
    np.random.seed(0)
    seen = set()
    for _ in range(200):
        results = RandomCubeSymmetry()(sample((4, 6, 6)))
        assert results["img"].shape == results["img_shape"] == (4, 6, 6)
        seen.add(str(results["geometry"]["direction"]))
    assert len(seen) == 16


def test_probability():
    np.random.seed(0)
    transform = RandomCubeSymmetry(prob=0.25)
    changed = [transform(sample())["geometry"] != GEOMETRY.to_dict() for _ in range(400)]
    assert 60 < sum(changed) < 140


def test_no_boxes():
    results = dict(sample(), gt_bboxes=np.empty((0, 6), dtype=np.float32))
    assert RandomCubeSymmetry()(results)["gt_bboxes"].shape == (0, 6)
