import numpy as np
import pytest

from mmdet_lesion.datasets.transforms import LoadVolume3D
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import save_volume
from mmdet_lesion.structures import Volume


def test_voxels_and_boxes(tmp_path):
    array = np.array([-2000, -1000, -300, 400, 3000, 0], dtype=np.int16).reshape(1, 2, 3)
    save_volume(tmp_path / "v.b2nd", Volume(array))
    box = [0.25, 0.0, -1.0, 2.0, 2.0, 1.5]
    results = LoadVolume3D()(
        dict(img_path=str(tmp_path / "v.b2nd"), instances=[dict(bbox_3d=box, bbox_label=0)])
    )
    np.testing.assert_allclose(results["img"].ravel(), [0, 0, 0.5, 1, 1, 1000 / 1400], atol=1e-6)
    assert results["img"].dtype == np.float32 and results["img"].shape == (1, 2, 3)
    assert results["img_shape"] == (1, 2, 3) and results["crop_offset"] == (0, 0, 0)
    assert results["gt_bboxes"].tolist() == [box]
    assert results["gt_bboxes_labels"].tolist() == [0]


def test_no_boxes_and_custom_hu_window(tmp_path):
    save_volume(tmp_path / "v.b2nd", Volume(np.full((2, 2, 2), 50, dtype=np.int16)))
    results = LoadVolume3D(hu_window=(0, 200))(
        dict(img_path=str(tmp_path / "v.b2nd"), instances=[])
    )
    assert (results["img"] == 0.25).all()
    assert results["gt_bboxes"].shape == (0, 6)
    with pytest.raises(InputError, match="LoadVolume3D has hu_window"):
        LoadVolume3D(hu_window=(3, 3))
