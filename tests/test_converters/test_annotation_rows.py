import pytest

from mmdet_lesion.converters.annotation_rows import Annotation, check_box, select_annotations

from .raw import row

FOLDER = "000001_01_01"


def annotation(line=2, key_slice=3, **changes):
    return Annotation("DL_info.csv", row(FOLDER, key_slice, line=line, **changes))


@pytest.mark.parametrize(
    ('box', 'expected', 'message'),
    [((1, 1, 24, 20), (1, 1, 24, 20), ''),
     ((-3.5, 2, 10, 26.5), (1, 2, 10, 20), 'outside the image of 24 x 20'),
     ((30, 2, 40, 10), None, 'outside'), ((-40, -40, -30, -30), None, 'outside'),
     ((10, 2, 40, 10), None, 'outside'), ((24, 2, 27, 10), None, 'outside'),
     ((10, 2, 10, 10), None, 'empty'), ((10, 12, 12, 10), None, 'empty'),
     ((float('nan'), 2, 10, 10), None, 'not finite')],
)  # fmt: skip
def test_boxes_are_clipped_to_the_image(box, expected, message):
    clipped, problem = check_box(box, 24, 20)
    assert clipped == expected
    assert message in problem
    assert bool(message) == bool(problem)


def test_noisy_and_repeated_rows_are_omitted():
    annotations = [
        annotation(2),
        annotation(3, noisy=True),
        annotation(4),
        annotation(5, key_slice=4),
        annotation(6, box=(2, 3, 4, 9)),
    ]
    used, noisy, (problem,) = select_annotations(annotations)
    assert [m.row.line for m in used] == [2, 5, 6]
    assert [m.row.line for m in noisy] == [3]
    assert (problem.row, problem.kind, problem.action) == (4, "duplicate row", "row skipped")
    assert "line 2 of DL_info.csv" in problem.problem


@pytest.mark.parametrize(
    'spacing',
    [(0.0, 0.7, 5.0), (0.7, 0.7, 0.0), (0.7, 0.7, float('nan')), (0.7, 0.7, float('inf')),
     (-0.7, -0.7, 5.0), (0.7, 0.7, 500.0)],
)  # fmt: skip
def test_invalid_spacings_are_reported(spacing):
    used, _, (problem,) = select_annotations(
        [annotation(2), annotation(3, key_slice=4, spacing=spacing)]
    )
    assert len(used) == 1
    assert (problem.file, problem.row, problem.kind) == ("DL_info.csv", 3, "bad spacing")


def test_nonfinite_box_is_reported():
    _, _, (problem,) = select_annotations([annotation(7, box=(1.0, 2.0, float("nan"), 4.0))])
    assert (problem.row, problem.kind) == (7, "bad box")
