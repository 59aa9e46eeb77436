"""End-to-end test of the training of demonstration models on small chests."""

import json

import pytest

from mmdet_lesion.model_zoo import catalog

from ...test_model_zoo.small_sources import write_sources

SMALL = {
    "nodule_small": [
        "volumes=2", "size=48", "pixel=(2.0,2.6)", "interval=(2.0,3.0)", "stature=(0.28,0.35)",
        "nodules=(1,3)", "diameter=(6.0,14.0)", "findings=(1,3)", "vessels=3",
    ],
    "universal_slice_small": [
        "volumes=4", "size=64", "slices=(6,8)", "diameter=(30.0,60.0)",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("model_zoo/train.py")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with two chests, a shape, their table, and a table of a lesion of the second."""
    folder = tmp_path_factory.mktemp("inputs")
    write_sources(folder)
    (folder / "table.csv").write_text(
        "path,use,source,license\ntrain.nii.gz,train,chests,CC0\ntest.nii.gz,test,chests,CC0\n"
        "mask.nii.gz,shapes,boxes,CC0\n"
    )
    (folder / "known.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\ntest,-80,0,30,10\n"
    )
    return folder


def words_of(name, inputs, out):
    phantoms = [f"recipe.phantoms.{word}" for word in SMALL[name]]
    return [
        name, "--data", inputs / "table.csv", "--known", inputs / "known.csv", "--out", out,
        "--publish", out / "zoo", "--iters", "2", "--processes", "1", "--cfg-options",
        "recipe.copies=1", "recipe.planting.lesions=(1,1)", "recipe.planting.diameter=(9.0,30.0)",
        "train_dataloader.batch_size=1", *phantoms,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_from_backgrounds_to_detections(tool, load_tool, inputs, name, tmp_path, monkeypatch):
    words = [str(word) for word in words_of(name, inputs, tmp_path)]
    assert tool.main(words) == 0
    folder = tmp_path / name
    facts = json.loads((folder / f"{name}.json").read_text())
    assert facts["training"]["iterations"] == 2
    assert facts["data"]["test"]["known"] == 1
    assert 0 <= facts["held_out"]["mean_sensitivity"] <= 1
    assert facts["real"]["froc"]["counts"]["lesions"] == 1
    (scan,) = facts["scans"]
    assert scan["seconds"] > 0 and scan["peak_mib"] > 100
    # Nothing is repeated, and no path of the user is published.
    before = (folder / f"{name}.json").read_bytes()
    assert tool.main(words) == 0
    assert (folder / f"{name}.json").read_bytes() == before
    assert str(inputs).encode() not in before
    # The published files are what the detection takes by name.
    monkeypatch.setattr(catalog, "_folder", lambda: tmp_path / "zoo")
    detect = load_tool("detect.py")
    scan = [str(inputs / "test.nii.gz"), "--out", str(tmp_path / "found"), "--device", "cpu"]
    assert detect.main([*scan, "--model", name]) == 0
    found = json.loads((tmp_path / "found" / "lesions.json").read_text())
    assert found["model"]["sha256"] == facts["weights"]["sha256"]
    assert found["model"]["notice"] == catalog.NOTICE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["unknown"], "'unknown' is not a model of the zoo; expected one of nodule_small"),
        (["nodule_small", "--cfg-options", "copies"], "--cfg-options has 'copies'; expected KEY"),
    ],
)
def test_wrong_input_is_one_line(tool, inputs, change, message, tmp_path, capsys):
    words = [*change[:1], "--data", str(inputs / "table.csv"), "--out", str(tmp_path / "out")]
    assert tool.main([*words, *change[1:]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()
