import cv2
import pytest

from mmdet_lesion.evaluation.functional import slice_froc
from mmdet_lesion.visualization.froc_plot import plot_froc

from ..nested import p3d_froc

TRUTH = {name: {0: [[10.0, 10, 29, 29]]} for name in "abcd"}
HIT, MISS = [10, 10, 29, 29], [50, 50, 60, 60]


def result(*scores):
    detections = {
        name: [[(0, [*HIT, score])], [(0, [*MISS, 1 - score])]]
        for name, score in zip("abcd", scores, strict=False)
    }
    return p3d_froc(detections, TRUTH)


def test_curves_are_drawn_in_one_plot(tmp_path):
    path = tmp_path / "froc.png"
    plot_froc({"one": result(0.9, 0.3, 0.2, 0.6)}, path, title="phantoms")
    alone = cv2.imread(str(path))
    plot_froc({"one": result(0.9, 0.3, 0.2, 0.6), "two": result(0.1, 0.1)}, path)
    both = cv2.imread(str(path))
    assert alone.shape == both.shape == (720, 960, 3)
    assert (alone != both).any()


def test_empty_curves_and_undefined_metrics(tmp_path):
    plot_froc(
        {
            "nothing found": p3d_froc({}, TRUTH),
            "no lesion": p3d_froc({}, {"a": {}}),
            "vertical end": result(0.4),
            "slices": slice_froc({}, {0: [[1, 1, 5, 5]]}),
        },
        tmp_path / "froc.pdf",
    )
    assert (tmp_path / "froc.pdf").stat().st_size > 0


def test_no_curves_raise(tmp_path):
    with pytest.raises(ValueError, match="at least one curve"):
        plot_froc({}, tmp_path / "froc.png")
