"""Tests of the figures on real lesions."""

import pytest

from mmdet_lesion.model_zoo.measure import real_lesions

TABLE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,10,20,30,8\nchest,0,0,0,10\n"


def scan(path, *rows, uid=None):
    lesions = [dict(center_world=list(row[:3]), score=row[3]) for row in rows]
    return dict(scan=dict(path=path, series_uid=uid), lesions=lesions)


@pytest.fixture
def known(tmp_path):
    path = tmp_path / "annotations.csv"
    path.write_text(TABLE)
    return path


def test_hits_scores_and_false_positives(known):
    scans = [
        # 3 mm from the nodule, then outside of its radius, then below the default threshold.
        scan("dicom", (13, 20, 30, 0.4), (15, 20, 30, 0.9), (90, 0, 0, 0.2), uid="1.2.3"),
        scan("folder/chest.nii.gz", (0, 4.9, 0, 0.1)),
        scan("other.nii.gz", (0, 0, 0, 0.9)),
    ]
    figures = real_lesions(scans, known)
    assert (figures["hit"], figures["false_positives"]) == (1, 1)
    assert figures["scores"] == [0.4, 0.1]
    counts = figures["froc"]["counts"]
    assert (counts["scans"], counts["lesions"], counts["false_positives"]) == (2, 2, 2)


def test_missed_lesion_has_no_score(known):
    assert real_lesions([scan("dicom", uid="1.2.3")], known)["scores"] == [None]


def test_scans_without_a_known_lesion_give_no_figures(known):
    assert real_lesions([scan("other.nii.gz", (0, 0, 0, 0.9))], known) is None
