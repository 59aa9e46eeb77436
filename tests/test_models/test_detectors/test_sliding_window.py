import itertools

import numpy as np
import pytest

from mmdet_lesion.models.detectors.sliding_window import Window, sliding_windows


def test_an_axis_by_hand():
    # Windows of 32 that share 16 at least, in 72: starts 0, 16, 32, 40; seams half-way between.
    windows = sliding_windows((8, 8, 72), (8, 8, 32), (0, 0, 16), 8)
    places = [window.place[2] for window in windows]
    assert places == [slice(0, 32), slice(16, 48), slice(32, 64), slice(40, 72)]
    # Overlaps are 16-32, 32-48 and 40-64: seams at 24, 40 and 52, which becomes 48.
    cores = [
        (w.place[2].start + w.core[2].start, w.place[2].start + w.core[2].stop) for w in windows
    ]
    assert cores == [(0, 24), (24, 40), (40, 48), (48, 72)]


def test_a_small_volume_has_one_window():
    whole = (slice(0, 16), slice(0, 32), slice(0, 8))
    assert sliding_windows((16, 32, 8), (32, 32, 32), (8, 8, 8), 8) == [Window(whole, whole)]


@pytest.mark.parametrize(
    ("size", "overlap"), [((64, 40, 48), (16, 8, 8)), ((72, 72, 72), (0, 8, 24))]
)
def test_cores_tile_the_volume(size, overlap):
    seen = np.zeros(size, dtype=int)
    for window in sliding_windows(size, (32, 40, 32), overlap, 8):
        part = tuple(
            slice(p.start + c.start, p.start + c.stop)
            for p, c in zip(window.place, window.core, strict=True)
        )
        seen[part] += 1
        for p, c, edge, shared in zip(window.place, window.core, size, overlap, strict=True):
            # Half the overlap, rounded down to the stride, lies around the core.
            margin = shared // 2 // 8 * 8
            assert p.start == 0 or c.start >= margin
            assert p.stop == edge or p.stop - p.start - c.stop >= margin
            assert 0 <= p.start < p.stop <= edge
    assert (seen == 1).all()
    sizes = [
        tuple(p.stop - p.start for p in window.place)
        for window in sliding_windows(size, (32, 40, 32), overlap, 8)
    ]
    assert all(a == b for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((60, 64, 64), (32,) * 3, (8,) * 3), "size is"),
        (((64,) * 3, (36,) * 3, (8,) * 3), "window is"),
        (((64,) * 3, (32,) * 3, (12,) * 3), "overlap is .* multiples of 8"),
        (((64,) * 3, (32,) * 3, (32,) * 3), "less than the window"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sliding_windows(*arguments, 8)
