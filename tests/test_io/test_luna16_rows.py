import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.luna16 import read_finding_rows, read_series_rows

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="annotations.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_rows_and_line_numbers(write):
    path = write(HEADER + "a,-128.6994211,-175.3,-298.3875064,5.651470635\n\nb,1,2,3,4\n")
    rows, problems, count = read_finding_rows(path, {"a", "b"}, True)
    assert not problems and count == 2
    assert [(r.file, r.line, r.series) for r in rows] == [
        ("annotations.csv", 2, "a"),
        ("annotations.csv", 4, "b"),
    ]
    assert rows[0].center == (-128.6994211, -175.3, -298.3875064)
    assert rows[0].diameter == 5.651470635


def test_invalid_rows_are_reported_and_others_are_read(write):
    lines = ["a,1,2,3,4", "a,nan,2,3,4", "a,1,2,3,", "z,1,2,3,4", "a,1,2,3,4", "a,1,2,3"]
    lines += ["a,1,2,3,-1", 'a,"1,2,3,5', "a,1,2,3,5"]
    rows, problems, count = read_finding_rows(write(HEADER + "\n".join(lines)), {"a"}, True)
    assert [(row.line, row.diameter) for row in rows] == [(2, 4.0), (10, 5.0)]
    assert count == 9
    assert [(p.row, p.kind) for p in problems] == [
        (3, "broken row"), (4, "broken row"), (5, "unknown scan"), (6, "duplicate row"),
        (7, "broken row"), (8, "bad diameter"), (9, "broken row"),
    ]  # fmt: skip
    assert problems[0].problem == "coordX is 'nan'; expected a finite number"
    assert problems[3].problem == "repeats line 2; expected unique rows"


def test_irrelevant_findings_may_be_repeated_or_lack_a_diameter(write):
    path = write(HEADER + "a,1,2,3,-1\na,1,2,3,-1\na,4,5,6,7\n")
    rows, problems, _ = read_finding_rows(path, {"a"}, False)
    assert [row.diameter for row in rows] == [-1, 7]
    assert not problems


def test_columns_are_matched_by_name(write):
    path = write("\ufeffdiameter_mm,x,coordZ,coordY,coordX,seriesuid\n9,0,3,2,1,a\n")
    (row,), _, _ = read_finding_rows(path, {"a"}, True)
    assert (row.center, row.diameter) == ((1, 2, 3), 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'seriesuid'"),
        ("seriesuid,coordX\na,1\n", "'coordY' .found seriesuid, coordX"),
    ],
)
def test_invalid_table(write, text, message):
    with pytest.raises(InputError, match=message):
        read_finding_rows(write(text), {"a"}, True)


def test_list_of_scans(write):
    lines, problems = read_series_rows(write("seriesuid\na\n\nb\na\n", "seriesuids.csv"))
    assert lines == {"a": 2, "b": 4}
    assert [(p.row, p.kind) for p in problems] == [(5, "duplicate row")]
    assert read_series_rows(write("a\n", "s.csv"))[0] == {"a": 1}
    with pytest.raises(InputError, match="lists no scan"):
        read_series_rows(write("\n", "s.csv"))


def test_published_tables(lesion_data):
    folder = lesion_data / "luna16"
    lines, problems = read_series_rows(folder / "seriesuids.csv")
    assert len(lines) == 888 and not problems
    rows, problems, count = read_finding_rows(folder / "annotations.csv", lines, True)
    assert len(rows) == count == 1186 and not problems
    rows, problems, count = read_finding_rows(folder / "annotations_excluded.csv", lines, False)
    assert count == 35192 and not problems and 0 < len(rows) < count
