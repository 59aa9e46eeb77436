import json
import shutil

import pytest

from mmdet_lesion.converters import check_store
from mmdet_lesion.errors import InputError


@pytest.fixture
def store(luna16_store, tmp_path):
    shutil.copytree(luna16_store, tmp_path / "store")
    return tmp_path / "store"


def problems(store):
    return check_store(store, progress=False).problems


def test_intact_stores_have_no_problems(store, phantom_store):
    report = check_store(store, workers=2, progress=False)
    assert (report.volumes, report.problems) == (10, [])
    assert report.annotation_files == len(list((store / "annotations").iterdir()))
    assert problems(phantom_store) == []


def test_changed_voxels_are_found(store):
    path = sorted((store / "volumes").iterdir())[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    found = problems(store)
    assert found and all(str(path) in problem for problem in found)


def test_missing_and_exchanged_volumes_are_found(store):
    first, second, *_ = sorted((store / "volumes").iterdir())
    shutil.copy(second, first)
    second.unlink()
    found = problems(store)
    assert any(f"{first} is not the file that" in problem for problem in found)
    assert any(f"{second} is missing" in problem for problem in found)
    assert any("lists the volume" in problem and second.name in problem for problem in found)


def test_invalid_json_is_found(store):
    record = next((store / "records").iterdir())
    record.write_text("[")
    annotations = next((store / "annotations").iterdir())
    annotations.write_text(json.dumps({"images": []}))
    found = "\n".join(problems(store))
    assert f"{record} is not a record" in found and f"{annotations} is not an annot" in found


def test_other_folders_are_rejected(tmp_path):
    with pytest.raises(InputError, match="expected the output of a converter"):
        check_store(tmp_path)
    (tmp_path / "volumes").mkdir()
    with pytest.raises(InputError, match="contains no volume"):
        check_store(tmp_path)


def test_resuming_replaces_damaged_volumes(phantom_raw, phantom_store, tmp_path):
    from mmdet_lesion.converters import DeepLesionConversion

    out = tmp_path / "data"
    shutil.copytree(phantom_store, out)
    path = sorted((out / "volumes").iterdir())[1]
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    (out / "volumes" / f"{path.stem}.bak").write_text("own file")
    DeepLesionConversion(phantom_raw, out, phantom_raw / "harvester", (6.4, 6.4)).run(
        resume=True, progress=False
    )
    assert path.read_bytes() == good and problems(out) == []
    assert (out / "volumes" / f"{path.stem}.bak").read_text() == "own file"
