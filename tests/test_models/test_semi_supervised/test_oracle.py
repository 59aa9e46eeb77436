import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_lesion.models.semi_supervised.oracle import ORACLES, correct_mined, match_boxes

# A right box (IoU 0.8 with the first lesion), a false one, and a second box on the first lesion.
MINED = torch.tensor([[0.0, 0, 8, 10], [30, 30, 36, 36], [0, 0, 10, 6]])
#: The last lesion is beyond the student's view.
HIDDEN = torch.tensor([[0.0, 0, 10, 10], [10, 20, 18, 26], [37, 0, 40, 10]])


@pytest.fixture
def sample():
    # The student sees the left 36 pixels, moved to the right by 2 and doubled.
    matrix = torch.tensor([[2.0, 0, 4], [0, 2, 0], [0, 0, 1]]).numpy()
    metainfo = dict(img_shape=(80, 76), homography_matrix=matrix, img_id="a")
    return DetDataSample(metainfo=metainfo)


def double(*boxes):
    return [[2 * x1 + 4, 2 * y1, 2 * x2 + 4, 2 * y2] for x1, y1, x2, y2 in boxes]


def correct(sample, *oracles):
    projected = torch.tensor(double(*MINED.tolist()))
    labels = torch.tensor([0, 0, 0])
    boxes, classes = correct_mined(MINED, projected, labels, HIDDEN, oracles, (40, 40), sample)
    assert classes.tolist() == [0] * len(boxes)
    return boxes.tolist()


def test_each_oracle(sample):
    right, false, again = double(*MINED.tolist())
    true, missed = double(*HIDDEN[:2].tolist())
    assert correct(sample) == [right, false, again]
    assert correct(sample, "boxes") == [true, false, again]
    assert correct(sample, "missed") == [right, false, again, missed]
    assert correct(sample, "false_positives") == [right]
    assert sorted(correct(sample, *ORACLES)) == sorted([true, missed])


def test_random_choice_depends_on_the_image_alone(sample):
    right, false, again = double(*MINED.tolist())
    true = double(*HIDDEN[:2].tolist())
    drawn = []
    for name in range(60):
        sample.set_metainfo(dict(img_id=name))
        boxes = correct(sample, "choice")
        assert boxes == correct(sample, "choice")
        assert boxes[-2:] == [false, again]
        drawn.append(boxes[:-2])
    # The third lesion is not in the student's view.
    assert all(10 <= drawn.count(which) <= 30 for which in ([true[0]], [true[1]], []))


def test_nothing_mined_and_nothing_hidden(sample):
    empty, no_label = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    boxes, _ = correct_mined(empty, empty, no_label, HIDDEN, ORACLES, (40, 40), sample)
    assert boxes.tolist() == double(*HIDDEN[:2].tolist())
    boxes, _ = correct_mined(MINED, MINED, torch.zeros(3).long(), empty, ORACLES, (40, 40), sample)
    assert boxes.shape == (0, 4)


def test_as_many_pairs_as_possible():
    # The first box could take either lesion, the second only the first one.
    lesions = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10]])
    boxes = torch.tensor([[2.0, 0, 12, 10], [-3, 0, 7, 10]])
    rows, columns = match_boxes(boxes, lesions, 0.5)
    assert dict(zip(rows.tolist(), columns.tolist())) == {0: 1, 1: 0}
    assert len(match_boxes(boxes, lesions, 0.7)[0]) == 0
