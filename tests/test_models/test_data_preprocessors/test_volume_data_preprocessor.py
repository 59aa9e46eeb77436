import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from mmdet_lesion import InputError


def build(**kwargs):
    return MODELS.build(dict(type="VolumeDataPreprocessor", **kwargs))


def data(*shapes):
    samples = [DetDataSample(metainfo=dict(labeled=i % 2 == 0)) for i in range(len(shapes))]
    return dict(inputs=[torch.rand(shape) for shape in shapes], data_samples=samples)


def test_training_patches_are_stacked():
    batch = data((1, 8, 9, 10), (1, 8, 9, 10))
    result = build()(batch, training=True)
    assert torch.equal(result["inputs"], torch.stack(batch["inputs"]))
    assert [sample.labeled for sample in result["data_samples"]] == [True, False]
    assert result["data_samples"][1].batch_input_shape == (8, 9, 10)


def test_half_precision_is_converted_to_float32():
    result = build()(dict(inputs=[torch.rand(1, 4, 4, 4).half()]), training=True)
    assert result["inputs"].dtype == torch.float32
    assert result["data_samples"] is None


def test_training_patches_of_different_sizes_are_rejected():
    with pytest.raises(InputError, match=r"\(8, 8, 8\) and \(8, 8, 16\)"):
        build()(data((1, 8, 8, 8), (1, 8, 8, 16)), training=True)


def test_test_volumes_are_padded_at_the_end():
    batch = data((1, 16, 17, 3), (1, 2, 2, 33))
    result = build(pad_value=0.25)(batch)["inputs"]
    assert result.shape == (2, 1, 16, 32, 48)
    assert torch.equal(result[0, :, :16, :17, :3], batch["inputs"][0])
    assert torch.equal(result[1, :, :2, :2, :33], batch["inputs"][1])
    assert (result[0, :, :, 17:] == 0.25).all()
    assert (result[1, :, 2:] == 0.25).all()


@pytest.mark.parametrize("shape", [(16, 16, 16), (2, 16, 16, 16)])
def test_invalid_input_shape(shape):
    with pytest.raises(InputError, match=r"expected \(1, D, H, W\)"):
        build()(data(shape))
