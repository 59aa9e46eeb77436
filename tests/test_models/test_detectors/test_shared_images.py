from collections import Counter

import pytest
import torch

from mmdet_lesion.models import (
    SliceDenseNet,
    SliceEfficientNet,
    SliceResNet,
    TopDownPathway,
)
from mmdet_lesion.models.detectors.frame import Frame
from mmdet_lesion.models.detectors.shared_images import SharedImages


@pytest.fixture(params=[9, 15], ids=["three images", "five images"])
def network(request):
    torch.manual_seed(0)
    backbone = SliceDenseNet(
        num_slices=request.param, growth_rate=4, block_config=(1, 2, 1), num_init_features=8
    )
    neck = TopDownPathway(backbone.out_channels, 6, num_groups=backbone.num_groups)
    for module in (backbone, neck):
        module.init_weights()
        # The initialized fusion ignores the neighbors.
        torch.nn.init.normal_(module.fusion.conv.weight, std=0.1)
        module.eval()
    return backbone, neck


def maps_of_stacks(network, volume, slice_inds):
    backbone, neck = network
    half = backbone.num_slices // 2
    last = len(volume) - 1
    stacks = [
        torch.stack([volume[min(max(z + i, 0), last)] for i in range(-half, half + 1)])
        for z in slice_inds
    ]
    return neck(backbone(torch.stack(stacks)))[0]


@pytest.mark.parametrize("depth", [1, 2, 3, 25])
@pytest.mark.parametrize("chunk", [1, 4, 25])
@torch.no_grad()
def test_maps_equal_those_of_the_slice_stacks(network, depth, chunk):
    volume = torch.randn(depth, 32, 48)
    shared = SharedImages(*network, volume)
    for start in range(0, depth, chunk):
        slice_inds = list(range(start, min(start + chunk, depth)))
        expected = maps_of_stacks(network, volume, slice_inds)
        assert expected.std() > 0.1
        torch.testing.assert_close(shared(slice_inds), expected)


@pytest.mark.parametrize(
    "backbone", [lambda: SliceResNet(9, 50, base_channels=4), SliceEfficientNet]
)
@torch.no_grad()
def test_maps_of_other_trunks(backbone):
    backbone = backbone()
    network = (backbone, TopDownPathway(backbone.out_channels, 6, num_groups=3))
    for module in network:
        module.init_weights()
        torch.nn.init.normal_(module.fusion.conv.weight, std=0.1)
        module.eval()
    volume = torch.randn(12, 48, 64)
    expected = maps_of_stacks(network, volume, range(12))
    torch.testing.assert_close(SharedImages(*network, volume)(list(range(12))), expected)
    # The maps of a frame are those of the slices cropped to it.
    frame = Frame(16, 16, 48, 48)
    shared = SharedImages(*network, volume, dict.fromkeys(range(12), frame))
    expected = maps_of_stacks(network, frame.crop(volume), range(12))
    torch.testing.assert_close(shared(list(range(12)), frame), expected)


@torch.no_grad()
def test_slices_in_any_order(network):
    volume = torch.randn(30, 32, 32)
    shared = SharedImages(*network, volume)
    for slice_inds in ([20, 3], [0], [29, 28, 5]):
        expected = maps_of_stacks(network, volume, slice_inds)
        torch.testing.assert_close(shared(slice_inds), expected)


@pytest.mark.parametrize("chunk", [1, 4])
@torch.no_grad()
def test_each_image_is_computed_once(network, monkeypatch, chunk):
    backbone, neck = network
    counts = Counter()
    for name in ("forward_images", "forward_block3"):
        original = getattr(backbone, name)

        def counted(x, name=name, original=original):
            counts[name] += len(x)
            return original(x)

        monkeypatch.setattr(backbone, name, counted)
    depth = 20
    shared = SharedImages(backbone, neck, torch.randn(depth, 32, 32))
    for start in range(0, depth, chunk):
        shared(list(range(start, start + chunk)))
    # One image per slice, and one of repeated slices beyond each end.
    assert counts["forward_images"] == depth + 2
    assert counts["forward_block3"] == 2 * depth + 2


@torch.no_grad()
def test_unneeded_maps_are_dropped(network):
    num_slices = network[0].num_slices
    shared = SharedImages(*network, torch.randn(40, 32, 32))
    for z in range(40):
        shared([z])
        assert len(shared._images.kept) <= num_slices - 2
    assert min(shared._images.kept) == 39 - (num_slices - 3) // 2


@torch.no_grad()
def test_one_frame_equals_cropped_slices(network):
    volume = torch.randn(12, 96, 128)
    frame = Frame(32, 64, 96, 128)
    shared = SharedImages(*network, volume, dict.fromkeys(range(12), frame))
    for slice_inds in ([0, 1], [2, 3, 4], [11]):
        expected = maps_of_stacks(network, volume[:, 32:, 64:], slice_inds)
        torch.testing.assert_close(shared(slice_inds, frame), expected)


@torch.no_grad()
def test_frames_that_change_along_the_volume(network):
    volume = torch.randn(12, 192, 32)
    upper, lower = Frame(0, 0, 160, 32), Frame(32, 0, 192, 32)
    frames = {z: upper if z < 6 else lower for z in range(12)}
    shared = SharedImages(*network, volume, frames)
    for z, frame in frames.items():
        found = shared([z], frame)
        assert found.shape[2:] == (40, 8)
        # Far from the edges, the maps are those of whole slices.
        expected = maps_of_stacks(network, volume, [z])[:, :, 23:25]
        start = 23 - frame.top // 4
        torch.testing.assert_close(found[:, :, start : start + 2], expected)


@torch.no_grad()
def test_border_is_computed_before_the_fusion_only(network):
    backbone, neck = network
    volume = torch.randn(40, 96, 128)
    frame = Frame(32, 64, 64, 96)
    shared = SharedImages(*network, volume, {20: frame}, border=128)
    images = [volume[None, z - 1 : z + 2] for z in (20 + offset for offset in shared.offsets)]
    # With so large a border, the first maps are those of whole slices.
    fine, middle, coarse = (
        [frame.crop(level, Frame.of(volume)) for level in levels]
        for levels in zip(*map(backbone.forward_images, images))
    )
    deep = [backbone.forward_block3(level) for level in coarse]
    deep[len(deep) // 2] = backbone.forward_block3(backbone.fusion.conv(torch.cat(coarse, 1)))
    expected = neck.merge([fine, middle, deep], neck.fused_laterals())
    torch.testing.assert_close(shared([20], frame), expected)
    without = SharedImages(*network, volume, {20: frame})([20], frame)
    assert not torch.allclose(without, expected, rtol=1e-2)


def test_frames():
    volume = torch.zeros(3, 80, 96)
    cells = torch.zeros(5, 6, dtype=torch.bool)
    cells[1, 3] = cells[4, 4] = True
    frame = Frame.around(cells, 16, 32, volume)
    # The last rows are no multiple of 32.
    assert frame == Frame(0, 32, 80, 96)
    assert Frame.around(cells[:3], 16, 16, volume) == Frame(16, 48, 32, 64)
    assert frame.crop(volume).shape == (3, 80, 64)
    assert Frame(32, 48, 64, 64).grow(32, volume) == Frame(0, 16, 80, 96)
    assert frame.crop(torch.zeros(7, 20, 24), Frame.of(volume)).shape == (7, 20, 16)
    assert Frame(16, 48, 32, 64).enclose(Frame(0, 64, 16, 96)) == Frame(0, 48, 32, 96)
