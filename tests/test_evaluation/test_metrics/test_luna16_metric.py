import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from mmdet_lesion.errors import InputError
from mmdet_lesion.evaluation.functional import luna16_froc
from mmdet_lesion.io.luna16 import read_luna16_detections, read_luna16_series
from mmdet_lesion.structures import CubeSymmetry, Geometry

GEOMETRY = Geometry((40, 50, 60), (1.0, 1.0, 2.0), (-30.0, 10.0, -200.0))
NODULE = (0.0, 30.0, -160.0, 8.0)
OTHER = (20.0, 40.0, -140.0, 6.0)
FINDING = (-20.0, 20.0, -180.0, -1.0)


def sample(series, nodules, marks, excluded=(), geometry=GEOMETRY):
    """``marks``: world ``x, y, z, probability``."""
    marks = np.array(marks, dtype=float).reshape(-1, 4)
    boxes = geometry.boxes_around_spheres(np.column_stack((marks[:, :3], np.full(len(marks), 7.0))))
    one = DetDataSample(
        metainfo=dict(
            series_uid=series,
            geometry=geometry.to_dict(),
            nodules=np.array(nodules, dtype=float).reshape(-1, 4),
            excluded=np.array(excluded, dtype=float).reshape(-1, 4),
        )
    )
    one.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        scores=torch.tensor(marks[:, 3], dtype=torch.float32),
        labels=torch.zeros(len(marks), dtype=torch.long),
    )
    return one


def scans():
    """One of two nodules is hit, after a false positive; a mark on a finding does not count."""
    return [
        sample(
            "b",
            [NODULE, OTHER],
            [(0, 30, -156.5, 0.5), (5, 5, -150, 0.75), (-20, 24, -180, 1.0)],
            [FINDING],
        ),
        sample("a", [], [(1, 2, -190, 0.25)]),
    ]


def evaluate(samples, **settings):
    evaluator = Evaluator(METRICS.build(dict(type="Luna16Metric", **settings)))
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def test_figures_by_hand():
    metrics = evaluate(scans())
    # Half a false positive a scan, then the hit; between them it is interpolated.
    rates = ("0.125", "0.25", "0.5", "1", "2", "4", "8")
    found = [metrics[f"froc/sensitivity@{rate}"] for rate in rates]
    assert found == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert metrics["froc/cpm"] == pytest.approx(2.5 / 7)
    assert len(metrics) == 8


def test_scans_count_once_in_any_order():
    once = evaluate(scans())
    assert evaluate([*reversed(scans()), *scans()[:1]]) == once


def _evaluate_part(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    samples = [*scans(), sample("c", [OTHER], [(20, 40, -140, 0.6), (1, 1, -150, 0.55)])]
    evaluator = Evaluator(METRICS.build(dict(type="Luna16Metric")))
    # As the sampler deals them: the first scan comes twice, so that both have as many.
    for one in ([samples[0], samples[2]], [samples[1], samples[0]])[rank]:
        evaluator.process([one])
    (folder / f"{rank}.json").write_text(json.dumps(evaluator.evaluate(3)))
    torch.distributed.destroy_process_group()


def test_two_processes_count_every_scan_once(tmp_path):
    torch.multiprocessing.spawn(_evaluate_part, args=(tmp_path,), nprocs=2)
    alone = evaluate([*scans(), sample("c", [OTHER], [(20, 40, -140, 0.6), (1, 1, -150, 0.55)])])
    assert 0 < alone["froc/cpm"] < 1
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_the_geometry_decides_where_a_box_lies():
    # The same world position, seen from a turned array of another size.
    turned = GEOMETRY.crop((3, -2, 5), (20, 30, 44)).permute(
        CubeSymmetry((2, 0, 1), (True, False, True))
    )
    marks = [(0, 30, -160, 0.9), (19, 41, -139, 0.8)]
    metrics = evaluate([sample("a", [NODULE, OTHER], marks, geometry=turned)])
    assert metrics["froc/cpm"] == 1
    wrong = sample("a", [NODULE, OTHER], marks, geometry=turned)
    wrong.set_metainfo(dict(geometry=GEOMETRY.to_dict()))
    assert evaluate([wrong])["froc/cpm"] < 1


def test_dump_gives_the_same_figure(tmp_path):
    rng = np.random.default_rng(0)
    samples, nodules, excluded = [], {}, {}
    for i in range(7):
        truth = np.column_stack((rng.uniform(-20, 20, (3, 3)) + (0, 30, -160), [8, 12, 5]))
        marks = np.column_stack((rng.uniform(-20, 20, (150, 3)) + (0, 30, -160), rng.random(150)))
        found = np.column_stack((rng.uniform(-20, 20, (2, 3)) + (0, 30, -160), [-1, 4]))
        samples.append(sample(f"s{i}", truth, marks, found))
        nodules[f"s{i}"], excluded[f"s{i}"] = truth, found
    prefix = tmp_path / "new" / "test"
    metrics = evaluate(samples, outfile_prefix=str(prefix))
    series = read_luna16_series(f"{prefix}.seriesuids.csv")
    assert series == list(nodules)
    marks = read_luna16_detections(f"{prefix}.submission.csv", series)
    result = luna16_froc(marks, nodules, excluded)
    assert result.mean_sensitivity == metrics["froc/cpm"]
    assert 0 < metrics["froc/cpm"] < 1
    written = json.loads((tmp_path / "new" / "test.metrics.json").read_text())
    assert written["cpm"] == metrics["froc/cpm"]
    assert written["counts"]["detections"] == 700


def test_nothing_detected():
    assert set(evaluate([sample("a", [NODULE], [])]).values()) == {0.0}


def test_settings_arrive():
    marks = [(5, 5, -150, 0.75), (0, 30, -160, 0.5)]
    metrics = evaluate([sample("a", [NODULE], marks)], max_detections=1, fp_rates=(1, 3))
    assert metrics == {
        "froc/sensitivity@1": 0.0,
        "froc/sensitivity@3": 0.0,
        "froc/cpm": 0.0,
    }


def test_table_is_logged(monkeypatch):
    lines = []
    monkeypatch.setattr("mmengine.logging.MMLogger.info", lambda self, text: lines.append(text))
    evaluate(scans())
    assert "LUNA16 FROC, 2 scans, 2 nodules" in lines[0]
    assert "CPM 35.71; 1 nodules hit, 2 false positives, 1 detections on irrelevant" in lines[0]


def test_wrong_input():
    with pytest.raises(InputError, match="no nodule in 1 scans"):
        evaluate([sample("a", [], [])])
    with pytest.raises(InputError, match="'a' came with two ground truths of 1 and 0"):
        evaluate([sample("a", [NODULE], []), sample("a", [], [])])
    with pytest.raises(InputError, match="got no scan"):
        METRICS.build(dict(type="Luna16Metric")).compute_metrics([])
