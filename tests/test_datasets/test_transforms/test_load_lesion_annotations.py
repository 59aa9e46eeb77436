import numpy as np

from mmdet_lesion.datasets.transforms import LoadLesionAnnotations


def _instance(bbox, index):
    return dict(bbox=bbox, bbox_label=0, ignore_flag=0, slice_index=index)


def test_slice_indices_of_boxes():
    instances = [_instance([1, 2, 3, 4], 7), _instance([5, 6, 8, 9], 2)]
    results = LoadLesionAnnotations(with_bbox=True)(dict(instances=instances, height=9, width=9))
    np.testing.assert_array_equal(results["gt_slice_inds"], [7, 2])
    np.testing.assert_array_equal(results["gt_bboxes"].tensor, [[1, 2, 3, 4], [5, 6, 8, 9]])


def test_no_boxes():
    results = LoadLesionAnnotations(with_bbox=True)(dict(instances=[], height=9, width=9))
    assert results["gt_slice_inds"].shape == (0,)
    assert results["gt_slice_inds"].dtype == np.int64
    assert len(results["gt_bboxes"]) == 0
