import numpy as np
import pytest

from mmdet_lesion.datasets.transforms import KeepTeacherView
from mmdet_lesion.errors import InputError


def test_copy_keeps_the_memory_layout():
    image = np.random.rand(9, 6, 5).astype(np.float32).transpose(1, 2, 0)
    results = KeepTeacherView()(dict(img=image))
    np.testing.assert_array_equal(results["teacher_img"], image)
    assert not np.shares_memory(results["teacher_img"], image)
    assert results["teacher_img"].strides == image.strides
    np.testing.assert_array_equal(results["homography_matrix"], np.eye(3))


def test_must_precede_geometric_transforms():
    with pytest.raises(InputError, match="KeepTeacherView follows a geometric transform"):
        KeepTeacherView()(dict(img=np.zeros((2, 2, 9)), homography_matrix=np.eye(3)))


def test_flips_without_a_homography_are_recognized():
    results = dict(img=np.zeros((2, 2, 9)), flip=True)
    with pytest.raises(InputError, match="KeepTeacherView follows a geometric transform"):
        KeepTeacherView()(results)
    KeepTeacherView()(dict(results, flip=False))
