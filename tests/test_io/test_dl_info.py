import dataclasses
import math
import re

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import COLUMNS, DLInfoRow, read_dl_info, write_dl_info

ROW = DLInfoRow(
    file_name='000002_01_01_162.png', patient=2, study=1, series=1, key_slice=162,
    measurement=(238.314, 261.228, 235.858, 268.594, 240.36, 265.729, 234.222, 262.865),
    box=(229.222, 256.228, 245.36, 273.594), diameters=(7.76388, 6.77335),
    location=(0.437715, 0.573812, 0.609054), lesion_type=2, noisy=False, slice_range=(156, 168),
    spacing=(0.859375, 0.859375, 5.0), image_size=(512, 512), window=(-175.0, 275.0), gender='F',
    age=51.0, split=2,
)  # fmt: skip
LINE = (
    '000002_01_01_162.png,2,1,1,162,"238.314, 261.228, 235.858, 268.594, 240.36, 265.729, 234.222, '
    '262.865","229.222, 256.228, 245.36, 273.594","7.76388, 6.77335","0.437715, 0.573812, '
    '0.609054",2,0,"156, 168","0.859375, 0.859375, 5","512, 512","-175, 275",F,51,2'
)


def write(path, *lines):
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_row_is_written_and_read_as_published(tmp_path):
    path = tmp_path / "DL_info.csv"
    write_dl_info(path, [ROW])
    assert path.read_text().splitlines()[1] == LINE
    rows, problems = read_dl_info(path)
    assert rows == [dataclasses.replace(ROW, line=2)]
    assert not problems
    assert rows[0].folder == "000002_01_01"


def test_column_order_line_ends_and_byte_order_mark_do_not_matter(tmp_path):
    path = tmp_path / "DL_info.csv"
    values = LINE.split(",2,1,1,162,", 1)[1]
    header = [*COLUMNS[5:], *COLUMNS[:5], "Remark"]
    path.write_bytes(
        b'\xef\xbb\xbf' + ','.join(header).encode()
        + f'\r\n{values},000002_01_01_162.png,2,1,1,162,fine\r\n\r\n'.encode()
    )  # fmt: skip
    rows, problems = read_dl_info(path)
    assert rows == [dataclasses.replace(ROW, line=2)]
    assert not problems


def test_nan_is_read_unchanged(tmp_path):
    lines = [LINE.replace("F,51", "F,NaN"), LINE.replace('0.859375, 5"', '0.859375, NaN"')]
    rows, problems = read_dl_info(write(tmp_path / "a.csv", *lines))
    assert not problems
    assert math.isnan(rows[0].age)
    assert math.isnan(rows[1].spacing[2])
    write_dl_info(tmp_path / "b.csv", rows)
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [('"229.222, ', '"', 'Bounding_boxes.*expected 4 numbers'),
     ('229.222', 'abc', 'Bounding_boxes.*abc'), ('"156, 168"', '"156.5, 168"', 'Slice_range'),
     ('"512, 512"', '"NaN, 512"', 'Image_size'), (',162,', ',163,', 'expected the row.s patient'),
     ('000002_01_01_162.png', '../../x.png', 'File_name'), (',F,51,2', ',F,51,4', 'Train_Val_Test'),
     (',2,0,"156', ',9,0,"156', 'Coarse_lesion_type'), (',2,0,"156', ',2,7,"156', 'Possibly_noisy'),
     (',F,51,2', '', '15 cells found; expected 18'),
     ('"512, 512","-175, 275",F,51,2', '"512', '')],
)  # fmt: skip
def test_invalid_row_is_reported_and_others_are_read(tmp_path, old, new, message):
    assert old in LINE
    path = write(tmp_path / "DL_info.csv", LINE, LINE.replace(old, new), LINE)
    rows, (problem,) = read_dl_info(path)
    assert [row.line for row in rows] == [2, 4]
    assert (problem.file, problem.row, problem.kind) == ("DL_info.csv", 3, "broken row")
    assert re.search(message, problem.problem)
    assert "line 3" in str(problem)


def test_invalid_tables_are_rejected(tmp_path):
    path = tmp_path / "DL_info.csv"
    with pytest.raises(FileNotFoundError, match=r"DL_info\.csv does not exist"):
        read_dl_info(path)
    path.write_text("")
    with pytest.raises(InputError, match="no column 'File_name' .found nothing"):
        read_dl_info(path)
    path.write_text(",".join(name for name in COLUMNS if name != "Spacing_mm_px_"))
    with pytest.raises(InputError, match="no column 'Spacing_mm_px_'"):
        read_dl_info(path)
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        read_dl_info(path)


@pytest.mark.parametrize(
    ("name", "number", "split"),
    [("DL_info_val", 4889, 2), ("DL_info_test", 4927, 3), ("DL_info_train_subset", 1041, 1)],
)
def test_published_tables_are_read_without_loss(lesion_data, tmp_path, name, number, split):
    path = lesion_data / "deeplesion" / f"{name}.csv"
    rows, problems = read_dl_info(path)
    assert (len(rows), problems) == (number, [])
    assert {row.split for row in rows} == {split}
    write_dl_info(tmp_path / "back.csv", rows)
    again, _ = read_dl_info(tmp_path / "back.csv")
    assert repr(again) == repr(rows)
    if split != 1:  # the training subset contains ages such as 19.0
        assert (tmp_path / "back.csv").read_bytes() == path.read_bytes()
