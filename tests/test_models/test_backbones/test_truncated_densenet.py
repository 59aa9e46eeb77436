import pytest
import torch

from mmdet_lesion.models.backbones.truncated_densenet import DenseBlock


def block(norm_cfg):
    torch.manual_seed(0)
    block = DenseBlock(3, 8, 4, 2, norm_cfg, with_cp=False)
    for value in (*block.parameters(), *block.buffers()):
        if value.is_floating_point():
            torch.nn.init.uniform_(value, 0.2, 1.0)
    return block


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm_cfg", [dict(type="BN"), dict(type="GN", num_groups=2)])
def test_inference_without_gradients_gives_the_same_map(norm_cfg, memory_format):
    dense = block(norm_cfg).eval()
    x = torch.randn(2, 8, 6, 10).contiguous(memory_format=memory_format)
    expected = dense(x)
    assert expected.requires_grad
    with torch.inference_mode():
        found = dense(x)
    torch.testing.assert_close(found, expected.detach())
    assert found.is_contiguous(memory_format=memory_format)


def test_batch_statistics_are_used_in_training_without_gradients():
    dense = block(dict(type="BN")).train()
    x = torch.randn(2, 8, 6, 10)
    with torch.no_grad():
        found = dense(x)
        assert dense.denselayer1.norm1.num_batches_tracked == 1
    torch.testing.assert_close(found, dense(x).detach())


def test_mixed_precision_keeps_the_precision_of_its_maps():
    dense = block(dict(type="BN")).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 6, 10).bfloat16()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = dense(x)
    assert found.dtype == torch.bfloat16
