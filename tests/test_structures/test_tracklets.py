import numpy as np
import pytest

from mmdet_lesion.structures import Geometry, Tracklets, published_to_voxels, voxels_to_published


def geometries(depth, spacing_z):
    """Return resampled and published geometry."""
    published = Geometry((depth, 100, 100), (1.0, 1.0, spacing_z))
    return published.resample((0.8, 0.8, 2.0)), published


def to_published(boxes, geometry, published):
    return voxels_to_published(geometry.boxes_to(published, boxes))


def tracklets(*slices_and_scores):
    """Return one tracklet per argument ``{slice: score}``, with distinct boxes."""
    rows = [
        (t, z, score) for t, entries in enumerate(slices_and_scores) for z, score in entries.items()
    ]
    ids, slices, scores = (np.array(column) for column in zip(*rows, strict=True))
    low = 10.0 * ids + slices
    boxes = np.column_stack((low, low + 1, low + 20, low + 30))
    return Tracklets.from_ids(boxes, scores, slices, ids)


def test_from_ids_groups_and_sorts():
    made = Tracklets.from_ids(
        np.arange(16).reshape(4, 4), [0.1, 0.2, 0.3, 0.4], [5, 3, 4, 9], [7, 2, 7, 2]
    )
    np.testing.assert_array_equal(made.offsets, [0, 2, 4])
    np.testing.assert_array_equal(made.slices, [3, 9, 4, 5])
    np.testing.assert_array_equal(made.scores, [0.2, 0.4, 0.3, 0.1])
    np.testing.assert_array_equal(made.confidence(), [0.4, 0.3])
    np.testing.assert_array_equal(made.lengths, [2, 2])
    np.testing.assert_array_equal(made.ids, [0, 0, 1, 1])


def test_enclosing_boxes_and_selection():
    made = tracklets({2: 0.3, 3: 0.9}, {4: 0.8}, {6: 0.5, 8: 0.4})
    boxes = made.enclosing_boxes()
    assert boxes.tolist() == [
        [2, 3, 2, 23, 33, 4], [14, 15, 4, 34, 44, 5], [26, 27, 6, 48, 58, 9],
    ]  # fmt: skip
    some = made.select(np.array([2, 0]))
    assert some.slices.tolist() == [2, 3, 6, 8]
    np.testing.assert_array_equal(some.enclosing_boxes(), boxes[[0, 2]])
    assert len(made.select(np.empty(0, int))) == 0
    assert Tracklets.empty().enclosing_boxes().shape == (0, 6)


def test_harvester_round_trip():
    containers = [[(3, [1.0, 2.0, 3.0, 4.0, 0.5]), (4, [1.0, 2.0, 3.0, 5.0, 0.6])]]
    containers.append([(0, [9.0, 9.0, 10.0, 10.0, 0.1])])
    made = Tracklets.from_harvester(containers)
    assert made.to_harvester() == containers
    assert len(made) == 2
    assert Tracklets.from_harvester([]).to_harvester() == []


def test_rows_keep_their_order_and_precision():
    row = np.array([1, 2, 3, 4, 0.1], np.float32)
    made = Tracklets.from_harvester([[(5, row), (np.int64(2), row), (2.0, row)]])
    assert (made.boxes.dtype, made.scores.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(made.slices, [5, 2, 2])
    with pytest.raises(ValueError, match="strictly ascending"):
        made.to_published(*geometries(9, 1.0))


@pytest.mark.parametrize(
    ("tracklet", "message"),
    [
        ([], "tracklet 1 has no box"),
        ([[1, 1, 10, 10, 1.0]], "tracklet 1 is not a list of"),
        (3, "tracklet 1 is not a list of"),
        ([("x", [1, 1, 10, 10, 1.0])], "tracklet 1 has the slice 'x'"),
        ([(True, [1, 1, 10, 10, 1.0])], "tracklet 1 has the slice True"),
        ([(0.5, [1, 1, 10, 10, 1.0])], "tracklet 1 has the slice 0.5"),
        ([(0, [1, 1, 10, 10])], "tracklet 1 has an array of shape"),
        ([(0, [1, 1, 10, 10, 1.0, 2.0])], "expected rows of 5 numbers"),
        ([(0, [1, 1, 10, 10, float("nan")])], "tracklet 1 contains NaN or infinity"),
        ([(0, ["x", 1, 10, 10, 1.0])], "expected rows of 5 numbers"),
        ([(0, [1, 1, 10, 10, 1]), (1, [1, 1])], "tracklet 1 has rows of several lengths"),
    ],
)
def test_invalid_lists_are_named(tracklet, message):
    with pytest.raises(ValueError, match=message):
        Tracklets.from_harvester([[(0, [1, 1, 10, 10, 1.0])], tracklet])


def test_no_tracklets():
    empty = Tracklets.empty()
    assert len(empty) == 0
    assert len(empty.confidence()) == 0
    assert empty.to_harvester() == []
    assert len(empty.to_published(*geometries(5, 1.0))) == 0
    assert len(Tracklets.from_ids(np.empty((0, 4)), [], np.empty(0, int), np.empty(0, int))) == 0


@pytest.mark.parametrize(
    ("boxes", "slices", "offsets", "message"),
    [
        (np.zeros((2, 3)), [0, 1], [0, 2], "expected"),
        (np.zeros((2, 4)), [0, 1], [0, 1], "offsets"),
        (np.zeros((2, 4)), [0, 1], [0, 0, 2], "offsets"),
    ],
)
def test_inconsistent_arrays_are_rejected(boxes, slices, offsets, message):
    with pytest.raises(ValueError, match=message):
        Tracklets(boxes, np.zeros(2), np.array(slices), np.array(offsets))


def test_equal_geometries_change_only_the_convention():
    made = tracklets({3: 0.5, 4: 0.75}, {0: 0.25})
    out = made.to_published(*[Geometry((10, 100, 100), (0.8, 0.8, 2.0))] * 2)
    np.testing.assert_array_equal(out.slices, made.slices)
    np.testing.assert_array_equal(out.scores, made.scores)
    np.testing.assert_array_equal(out.offsets, made.offsets)
    np.testing.assert_array_equal(out.boxes, made.boxes + (1, 1, 0, 0))


def test_boxes_are_interpolated_on_thin_published_slices():
    # Published slices of 1 mm are at 0, 0.5, 1, … in resampled slices of 2 mm.
    fine = geometries(20, 1.0)
    made = tracklets({3: 0.2, 4: 0.6})
    out = made.to_published(*fine)
    np.testing.assert_array_equal(out.slices, [5, 6, 7, 8])  # 2.5, 3, 3.5, 4; 4.5 is outside
    np.testing.assert_allclose(out.scores, [0.2, 0.2, 0.4, 0.6])
    halves = np.array([3, 3, 3.5, 4])[:, None] + (0, 1, 20, 30)
    np.testing.assert_allclose(out.boxes, to_published(halves, *fine))


def test_boxes_are_mapped_to_thick_published_slices():
    # Published slices of 5 mm are at 0, 2.5, 5, 7.5, … in resampled slices.
    coarse = geometries(8, 5.0)
    made = tracklets({2: 0.3, 3: 0.9}, {4: 0.8}, {6: 0.5}, {1: 0.4})
    out = made.to_published(*coarse)
    # 2 to 3 contains 2.5. The others contain none: slice 4 is at 1.6, nearest to 2; 6 -> 2; 1 -> 0.
    np.testing.assert_array_equal(out.slices, [1, 2, 2, 0])
    np.testing.assert_array_equal(out.confidence(), [0.9, 0.8, 0.5, 0.4])
    middle = np.array([[2.5, 3.5, 22.5, 32.5]])
    np.testing.assert_allclose(out.boxes[:1], to_published(middle, *coarse))
    np.testing.assert_allclose(out.boxes[1:2], to_published(made.boxes[2:3], *coarse))


def test_gaps_are_interpolated():
    out = tracklets({2: 0.4, 5: 0.1}).to_published(*geometries(10, 2.0))
    np.testing.assert_array_equal(out.slices, [2, 3, 4, 5])
    np.testing.assert_allclose(out.scores, [0.4, 0.3, 0.2, 0.1])


def test_published_slices_are_inside_the_volume():
    # The resampled volume may extend beyond the last published slice.
    made = tracklets({0: 0.5}, {geometries(4, 1.5)[0].shape[0] - 1: 0.5})
    out = made.to_published(*geometries(4, 1.5))
    assert out.slices.min() >= 0
    assert out.slices.max() <= 3


@pytest.mark.parametrize("spacing_z", [0.7, 1.0, 2.0, 2.5, 5.0])
def test_tracklets_are_mapped_independently(spacing_z):
    rng = np.random.default_rng(0)
    entries = [
        {
            int(z): float(score)
            for z, score in zip(np.sort(rng.choice(30, n, replace=False)), rng.random(n))
        }
        for n in rng.integers(1, 9, 200)
    ]
    geometry, published = geometries(int(60 / spacing_z) + 1, spacing_z)
    made = tracklets(*entries)
    out = made.to_published(geometry, published)
    assert len(out) == len(made)
    np.testing.assert_array_equal(out.confidence(), made.confidence())
    centers = published.slices_to(geometry, np.arange(published.shape[0]))
    for t in range(len(made)):
        own = slice(made.offsets[t], made.offsets[t + 1])
        alone = Tracklets(
            made.boxes[own], made.scores[own], made.slices[own], np.array([0, made.lengths[t]])
        ).to_published(geometry, published)
        got = slice(out.offsets[t], out.offsets[t + 1])
        np.testing.assert_array_equal(out.slices[got], alone.slices)
        np.testing.assert_allclose(out.boxes[got], alone.boxes, rtol=0, atol=1e-9)
        np.testing.assert_allclose(out.scores[got], alone.scores, rtol=0, atol=1e-12)
        for column in range(4):
            expected = np.interp(
                centers[alone.slices], made.slices[own], made.boxes[own][:, column]
            )
            back = published.boxes_to(geometry, published_to_voxels(out.boxes[got]))[:, column]
            np.testing.assert_allclose(back, expected, rtol=0, atol=1e-9)
