import numpy as np
import torch

from mmdet_lesion.datasets.transforms import PackVolumeInputs


def test_packed_sample():
    image = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    results = dict(
        img=image.transpose(2, 1, 0),
        img_shape=(6, 5, 4),
        gt_bboxes=np.array([[0, 0, 0, 1, 2, 3]], dtype=np.float32),
        gt_bboxes_labels=np.array([0]),
        volume="v",
        series_uid="1.2",
        labeled=False,
        crop_offset=(1, 2, 3),
        instances=[1],
    )
    packed = PackVolumeInputs()(results)
    assert set(packed) == {"inputs", "data_samples"}
    assert packed["inputs"].shape == (1, 6, 5, 4) and packed["inputs"].dtype == torch.float32
    np.testing.assert_array_equal(packed["inputs"][0].numpy(), image.transpose(2, 1, 0))
    sample = packed["data_samples"]
    assert sample.gt_instances.bboxes.tolist() == [[0, 0, 0, 1, 2, 3]]
    assert sample.gt_instances.labels.tolist() == [0]
    assert sample.metainfo == dict(
        img_shape=(6, 5, 4), volume="v", series_uid="1.2", labeled=False, crop_offset=(1, 2, 3)
    )
    assert PackVolumeInputs(("volume",))(results)["data_samples"].metainfo == dict(volume="v")
