import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

from mmdet_lesion.models.roi_heads import SparseRoIExtractor, sparse_roi_extractor


def arguments(**layer):
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0, **layer}
    return dict(roi_layer=layer, out_channels=6, featmap_strides=[4])


ROIS = torch.tensor([[0, 3.0, 4.0, 50.0, 30.0], [1, 20.0, 8.0, 28.0, 20.0]])
MAPS = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls(monkeypatch):
    """List with one entry per call of ``sparse_roi_align``."""
    seen = []
    product = sparse_roi_extractor.sparse_roi_align
    monkeypatch.setattr(
        sparse_roi_extractor,
        "sparse_roi_align",
        lambda *args: seen.append(1) or product(*args),
    )
    return seen


@pytest.mark.parametrize("last", [False, True])
def test_inference_on_cpu_uses_the_sparse_product(calls, last):
    maps = MAPS.contiguous(memory_format=torch.channels_last) if last else MAPS
    with torch.no_grad():
        found = SparseRoIExtractor(**arguments())([maps], ROIS)
        expected = SingleRoIExtractor(**arguments())([MAPS], ROIS)
    assert calls == [1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_training_uses_mmcvs_operator(calls):
    gradients = []
    for kind in (SparseRoIExtractor, SingleRoIExtractor):
        maps = MAPS.clone().requires_grad_()
        kind(**arguments())([maps], ROIS).square().sum().backward()
        gradients.append(maps.grad)
    assert not calls
    assert torch.equal(*gradients)


@pytest.mark.parametrize("layer", [{"sampling_ratio": 2}, {"aligned": False}, {"pool_mode": "max"}])
def test_unsupported_settings_use_mmcvs_operator(calls, layer):
    maps = MAPS.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = SparseRoIExtractor(**arguments(**layer))([maps], ROIS)
        expected = SingleRoIExtractor(**arguments(**layer))([MAPS], ROIS)
    assert not calls
    assert torch.equal(found, expected)


def test_features_are_the_same_on_every_device(calls, device):
    extractor = SparseRoIExtractor(**arguments())
    with torch.no_grad():
        expected = extractor([MAPS], ROIS)
        calls.clear()
        found = extractor([MAPS.to(device)], ROIS.to(device))
    # mmcv's operator is used on GPUs.
    assert calls == ([1] if device == "cpu" else [])
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_the_same_on_every_device(device):
    gradients = []
    for where in ("cpu", device):
        maps = MAPS.to(where, copy=True).requires_grad_()
        SparseRoIExtractor(**arguments())([maps], ROIS.to(where)).square().sum().backward()
        gradients.append(maps.grad.cpu())
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
