import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import (
    read_luna16_detections,
    read_luna16_findings,
    read_luna16_series,
    write_luna16_detections,
)

HEADER = "seriesuid,coordX,coordY,coordZ,probability\n"
NODULES = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_detections_keep_their_order(table):
    path = table(HEADER + "1.2,1,2,3,0.5\n1.3,-1.5,0,1e1,1\n1.2,4,5,6,0\n")
    detections = read_luna16_detections(path, ["1.2", "1.3", "1.4"])
    np.testing.assert_array_equal(detections["1.2"], [[1, 2, 3, 0.5], [4, 5, 6, 0]])
    np.testing.assert_array_equal(detections["1.3"], [[-1.5, 0, 10, 1]])
    assert set(detections) == {"1.2", "1.3"}


def test_columns_are_matched_by_name(table):
    text = 'id,probability, seriesuid ,coordZ,coordY,coordX\r\n7,.25,"1.2",3,2,1\r\n\r\n'
    (row,) = read_luna16_detections(table("\ufeff" + text), ["1.2"])["1.2"]
    np.testing.assert_array_equal(row, [1, 2, 3, 0.25])


def test_table_without_detections(table):
    assert read_luna16_detections(table(HEADER), ["1.2"]) == {}


def test_series_with_and_without_header(table):
    assert read_luna16_series(table("1.2\n1.3\n")) == ["1.2", "1.3"]
    assert read_luna16_series(table("seriesuid\n1.3\n\n1.2\n")) == ["1.3", "1.2"]


def test_repeated_findings_are_read_once_or_rejected(table):
    path = table(NODULES + "1.2,1,2,3,4\n1.2,1,2,3,4\n")
    assert len(read_luna16_findings(path, unique=False)["1.2"]) == 1
    with pytest.raises(InputError, match=r"table.csv, line 3: repeats line 2; expected"):
        read_luna16_findings(path, unique=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'seriesuid' .found nothing.; expected .* coordY, coordZ, probability"),
        ("seriesuid,coordX,coordY,probability\n", r"has no column 'coordZ' \(found seriesuid, "),
        (HEADER.replace(",", ";"), "found seriesuid;coordX;.*expected the comma-separated columns"),
        (HEADER + "1.2,1,2,3\n", "line 2: 4 cells found; expected 5"),
        (HEADER + "1.2,1,2,3,.5\n1.2,1,nan,3,.5\n", "line 3: coordY is 'nan'; expected a finite"),
        (HEADER + "1.2,1,2,inf,.5\n", "line 2: coordZ is 'inf'"),
        (HEADER + "\n1.2,1,2,3,\n", "line 3: probability is ''"),
        (HEADER + "1.2,1,2,3,high\n", "probability is 'high'"),
        (HEADER + "1.2,1,2,3,1.5\n", "line 2: probability is 1.5; expected 0 to 1"),
        (HEADER + "1.2,1,2,3,-.1\n", "probability is -0.1"),
        (HEADER + "1.9,1,2,3,.5\n", "line 2: seriesuid is '1.9'; expected one of the 1"),
        (HEADER + "1.2,1,2,3,.5\n1.2,4,5,6,.5\n1.2,1,2,3.0,0.5\n", "line 4: repeats line 2"),
    ],
)
def test_invalid_tables_are_named(table, text, message):
    with pytest.raises(InputError, match=message):
        read_luna16_detections(table(text), ["1.2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("\n", "lists no scan"), ("1.2\n1.3\n1.2\n", r"line 3: 1.2 repeats line 1")],
)
def test_invalid_series_lists(table, text, message):
    with pytest.raises(InputError, match=message):
        read_luna16_series(table(text))


def test_binary_and_missing_files(table, tmp_path):
    with pytest.raises(InputError, match="is not a text file"):
        read_luna16_findings(table(NODULES, "utf-16"), unique=True)
    with pytest.raises(FileNotFoundError, match="expected a CSV"):
        read_luna16_series(tmp_path / "absent.csv")


def test_published_tables_are_read_without_loss(lesion_data):
    folder = lesion_data / "luna16"
    assert len(read_luna16_series(folder / "seriesuids.csv")) == 888
    nodules = read_luna16_findings(folder / "annotations.csv", unique=True)
    excluded = read_luna16_findings(folder / "annotations_excluded.csv", unique=False)
    assert sum(map(len, nodules.values())) == 1186
    # 35192 rows without repeated ones.
    assert sum(map(len, excluded.values())) == 24087


def test_detections_are_written_exactly(tmp_path):
    detections = {
        "1.2": np.array([[0.1 + 0.2, -1e-9, 300.123456789012, 1 / 3]]),
        "1.3": np.empty((0, 4)),
    }
    write_luna16_detections(tmp_path / "new" / "detections.csv", detections)
    lines = (tmp_path / "new" / "detections.csv").read_text().splitlines()
    assert lines[0] == "seriesuid,coordX,coordY,coordZ,probability" and len(lines) == 2
    read = read_luna16_detections(tmp_path / "new" / "detections.csv", detections)
    assert list(read) == ["1.2"]
    assert (read["1.2"] == detections["1.2"]).all()
