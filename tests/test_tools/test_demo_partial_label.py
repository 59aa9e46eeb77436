import importlib
import math

import pytest
from mmengine import Config


@pytest.fixture
def demo(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    return importlib.import_module("demo_partial_label")


def metrics(mean):
    sensitivity = {"0.5": 0.25, "16": None, "2": 0.5}
    return dict(sensitivity=sensitivity, mean_sensitivity=mean, ap=0.75)


def test_figures_of_both_protocols_are_in_percent(demo):
    figures = demo.figures_of({"slice": metrics(0.5), "p3d": metrics(0.125)})
    assert list(figures)[:3] == ["0.5", "2", "16"]
    assert math.isnan(figures.pop("16"))
    assert figures == {
        "0.5": 25.0,
        "2": 50.0,
        "avg [.5,1,2,4]": 50.0,
        "P3D mean": 12.5,
        "P3D AP": 75.0,
    }


def test_rows_name_existing_configs(demo):
    for config in demo.ROWS.values():
        assert (demo.PHANTOM / f"{config}.py").is_file()


def test_arms_are_trained_and_tested_by_both_protocols(demo, tmp_path, monkeypatch):
    words = []

    def call(*command, log, **variables):
        words.append([str(word) for word in command[1:]])
        assert variables["OMP_NUM_THREADS"] == "1"
        (log.parent / "last_checkpoint").write_text("iter.pth")

    monkeypatch.setattr(demo, "call", call)

    def make_data(out, seed, phantoms):
        # The measured table is of livers.
        assert phantoms[phantoms.index("--types") + 1] == "4"
        return ["--cfg-options", f"seed={seed}"]

    monkeypatch.setattr(demo, "make_data", make_data)
    monkeypatch.setattr(demo, "read_json", lambda path: metrics(0.5))
    results = demo.run_seed(tmp_path, 3)
    assert list(results) == list(demo.ROWS)
    for config in demo.ROWS.values():
        mine = [line for line in words if f"/{config}" in line[1]]
        assert [line[0] for line in mine] == ["tools/train.py", "tools/test.py", "tools/test.py"]
        assert all("seed=3" in line for line in mine)
        assert all("iter.pth" in line for line in mine[1:])
        slices, volumes = (Config.fromfile(line[1]) for line in mine[1:])
        assert (slices.test_evaluator.protocol, volumes.test_evaluator.protocol) == ("slice", "p3d")
        slices, volumes = (cfg.test_dataloader.dataset for cfg in (slices, volumes))
        assert (slices.sample, volumes.sample) == ("slice", "volume")
        assert volumes.ann_file == "annotations/harvester_test.json"
        first, second, *rest = volumes.pipeline
        expected = {k: v for k, v in slices.pipeline[0].items() if k != "num_slices"}
        assert first == {**expected, "type": "LoadVolumeSlices"}
        assert second.type == "LoadLesionAnnotations" and rest == slices.pipeline[2:]
