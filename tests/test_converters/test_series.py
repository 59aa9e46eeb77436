import numpy as np
import pytest

from mmdet_lesion.converters.annotation_rows import Annotation
from mmdet_lesion.converters.base import read_record
from mmdet_lesion.converters.series import SeriesTask, convert_series
from mmdet_lesion.io import load_volume
from mmdet_lesion.io.png_slices import contiguous_runs, list_slices
from mmdet_lesion.structures import Geometry, Volume

from .raw import ct, row, write_png

FOLDER = "000001_01_01"


@pytest.fixture
def make(tmp_path):
    def task(numbers=(1, 2, 3, 4, 5), rows=None, **changes):
        folder = tmp_path / "raw/Images_png" / FOLDER
        if not folder.is_dir():
            for number, hu in zip(numbers, ct(0, len(numbers)), strict=True):
                write_png(folder / f"{number:03d}.png", hu)
        slices, others = list_slices(folder)
        rows = [row(FOLDER, 3, line=2)] if rows is None else rows
        values = dict(
            folder=FOLDER, raw=tmp_path / 'raw', out=tmp_path / 'out', spacing=(0.8, 0.8),
            slices=tuple(slices), others=tuple(others),
            annotations=tuple(Annotation('DL_info.csv', r) for r in rows),
        )  # fmt: skip
        return SeriesTask(**{**values, **changes})

    return task


def names(record):
    return [volume["name"] for volume in record["volumes"]]


def kinds(record):
    return [(p["kind"], p["row"], p["file"].rpartition("/")[2]) for p in record["problems"]]


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [([], []), ([7], [[7]]), ([1, 2, 3], [[1, 2, 3]]), ([1, 2, 4, 6, 7], [[1, 2], [4], [6, 7]])],
)
def test_runs_end_at_missing_numbers(numbers, runs):
    assert list(contiguous_runs(numbers)) == runs


def test_series_becomes_a_volume(make):
    task = make()
    record = convert_series(task)
    assert names(record) == [f"{FOLDER}_001-005"]
    assert record["problems"] == []
    (entry,) = record["volumes"]
    stored = load_volume(task.out / "volumes" / entry["file_name"])
    expected = Volume(ct(0, 5), (0.7, 0.7, 5.0)).resample((0.8, 0.8, 5.0))
    np.testing.assert_array_equal(stored.array, expected.array)
    assert stored.spacing == (0.8, 0.8, 5.0)
    assert Geometry.from_dict(entry["geometry"]) == stored.geometry
    published = Geometry.from_dict(entry["published_geometry"])
    assert published == Geometry((5, 24, 24), (0.7, 0.7, 5.0))


def test_voxels_without_resampling_equal_the_pngs(make):
    record = convert_series(make(spacing=(0.7, 0.0)))
    stored = load_volume(make().out / "volumes" / record["volumes"][0]["file_name"])
    np.testing.assert_array_equal(stored.array, ct(0, 5))


def test_gaps_split_a_series_and_are_reported(make):
    record = convert_series(make(numbers=(1, 2, 5, 9)))
    assert names(record) == [f"{FOLDER}_{r}" for r in ("001-002", "005-005", "009-009")]
    (problem,) = record["problems"]
    assert (problem["kind"], problem["row"]) == ("missing slices", 2)
    assert "lacks the slices 3-4 of 1-5" in problem["problem"]


@pytest.mark.parametrize(
    ('content', 'kind'),
    [(b'', 'broken PNG'), (None, 'broken PNG'), (np.zeros((20, 24), np.int16), 'image size'),
     (np.full((24, 24), -31000), 'not HU')],
)  # fmt: skip
def test_broken_slice_splits_a_series_and_is_reported(make, content, kind):
    task = make()
    path = task.raw / task.png(2)
    if isinstance(content, np.ndarray):
        write_png(path, content)
    else:
        path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    record = convert_series(make())
    assert names(record) == [f"{FOLDER}_001-001", f"{FOLDER}_003-005"]
    assert kinds(record) == [(kind, 2, "002.png")]
    assert record["problems"][0]["action"] == "slice skipped"


def test_other_files_are_reported(make):
    task = make()
    for name in ("1.png", "copy of 001.png", "notes.txt"):
        (task.raw / "Images_png" / FOLDER / name).write_bytes(b"")
    assert [k[2] for k in kinds(convert_series(make()))] == ["1.png", "copy of 001.png"]


def test_mixed_spacings_are_reported_and_the_most_common_is_used(make):
    rows = [
        row(FOLDER, 1, line=2, spacing=(0.7, 0.7, 1.0)),
        row(FOLDER, 2, line=3),
        row(FOLDER, 3, line=4),
        row(FOLDER, 4, line=5, spacing=(0.7, 0.7, float("nan"))),
    ]
    record = convert_series(make(rows=rows))
    assert record["volumes"][0]["published_geometry"]["spacing"] == [0.7, 0.7, 5.0]
    assert kinds(record) == [("mixed spacing", 2, "DL_info.csv")]


def test_volumes_have_the_spacing_of_their_rows(make):
    rows = [row(FOLDER, 1, slice_range=(1, 2)), row(FOLDER, 5, spacing=(0.5, 0.5, 1.0))]
    record = convert_series(make(numbers=(1, 2, 5, 6, 9), rows=rows))
    spacings = [volume["published_geometry"]["spacing"] for volume in record["volumes"]]
    # The last volume has no row and gets the spacing of the series' first row.
    assert spacings == [[0.7, 0.7, 5.0], [0.5, 0.5, 1.0], [0.7, 0.7, 5.0]]


def test_series_without_a_valid_spacing_is_not_converted(make):
    record = convert_series(make(rows=[row(FOLDER, 3, line=2, spacing=(0.0, 0.7, 5.0))]))
    assert record["volumes"] == []
    assert kinds(record) == [("no spacing", 2, FOLDER)]


def test_record_is_valid_while_nothing_changes(make):
    assert read_record(make()) is None
    record = convert_series(make())
    assert read_record(make()) == record
    assert read_record(make(rows=[row(FOLDER, 3, line=2, spacing=(0.7, 0.7, 4.0))])) is None
    path = make().out / "volumes" / record["volumes"][0]["file_name"]
    path.write_bytes(path.read_bytes()[:-1])
    assert read_record(make()) is None


def test_repaired_png_invalidates_the_record(make):
    task = make()
    good = (task.raw / task.png(3)).read_bytes()
    (task.raw / task.png(3)).write_bytes(good[:-9])
    convert_series(make())
    (task.raw / task.png(3)).write_bytes(good)
    assert read_record(make()) is None
