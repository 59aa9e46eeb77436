import itertools

import numpy as np
import pytest

from mmdet_lesion import InputError
from mmdet_lesion.models.detectors.sliding_patches import (
    PatchPlace,
    merged_patch_size,
    sliding_patches,
)


def test_places_and_cores_along_one_axis():
    # Patches of 32 with an overlap of at least 16 in 72 voxels start at 0, 16, 32 and 40.
    patches = sliding_patches((8, 8, 72), (8, 8, 32), (0, 0, 16), 8)
    places = [patch.place[2] for patch in patches]
    assert places == [slice(0, 32), slice(16, 48), slice(32, 64), slice(40, 72)]
    # Overlaps are 16-32, 32-48 and 40-64: cores meet at 24, 40 and 52, rounded down to 48.
    cores = [
        (p.place[2].start + p.core[2].start, p.place[2].start + p.core[2].stop) for p in patches
    ]
    assert cores == [(0, 24), (24, 40), (40, 48), (48, 72)]


def test_small_volume_has_one_patch():
    whole = (slice(0, 16), slice(0, 32), slice(0, 8))
    assert sliding_patches((16, 32, 8), (32, 32, 32), (8, 8, 8), 8) == [PatchPlace(whole, whole)]


@pytest.mark.parametrize(
    ("size", "overlap"), [((64, 40, 48), (16, 8, 8)), ((72, 72, 72), (0, 8, 24))]
)
def test_cores_tile_the_volume(size, overlap):
    seen = np.zeros(size, dtype=int)
    patches = sliding_patches(size, (32, 40, 32), overlap, 8)
    for patch in patches:
        part = tuple(
            slice(p.start + c.start, p.start + c.stop)
            for p, c in zip(patch.place, patch.core, strict=True)
        )
        seen[part] += 1
        for p, c, edge, shared in zip(patch.place, patch.core, size, overlap, strict=True):
            # The margin of the core is half the overlap, rounded down to the stride.
            margin = shared // 2 // 8 * 8
            assert p.start == 0 or c.start >= margin
            assert p.stop == edge or p.stop - p.start - c.stop >= margin
            assert 0 <= p.start < p.stop <= edge
    assert (seen == 1).all()
    sizes = [tuple(p.stop - p.start for p in patch.place) for patch in patches]
    assert all(a == b for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((60, 64, 64), (32,) * 3, (8,) * 3), "size is"),
        (((64,) * 3, (36,) * 3, (8,) * 3), "patch_size is"),
        (((64,) * 3, (32,) * 3, (12,) * 3), "patch_overlap is .* multiples of 8"),
        (((64,) * 3, (32,) * 3, (32,) * 3), "patch_overlap < patch_size"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        sliding_patches(*arguments, 8)


def computed(size, patch_size, overlap, stride=16):
    """Return the number of patches and of computed voxels."""
    places = sliding_patches(size, patch_size, overlap, stride)
    return len(places), sum(
        np.prod([axis.stop - axis.start for axis in patch.place]) for patch in places
    )


def test_merged_patches_save_computation():
    size, patch, overlap = (288, 400, 400), (160,) * 3, (64,) * 3
    voxels = 2 * 160**3
    merged = merged_patch_size(size, patch, overlap, 16, voxels)
    assert np.prod(merged) <= voxels
    assert min(merged) >= 160
    before, after = computed(size, patch, overlap), computed(size, merged, overlap)
    assert before == (48, 48 * 160**3)
    assert after[1] < before[1] / 2


@pytest.mark.parametrize("size", [(16, 16, 16), (160, 160, 160), (48, 512, 512), (640, 96, 208)])
def test_merged_patches_are_no_smaller_than_the_config(size):
    patch, overlap = (96, 96, 96), (32, 32, 32)
    merged = merged_patch_size(size, patch, overlap, 16, 4 * 96**3)
    assert all(edge >= 96 and edge % 16 == 0 for edge in merged)
    assert computed(size, merged, overlap)[1] <= computed(size, patch, overlap)[1]


def test_patches_are_not_merged_without_memory():
    assert merged_patch_size((300 // 4 * 4,) * 3, (96,) * 3, (32,) * 3, 4, 96**3 - 1) == (96,) * 3
