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


def sample(series, nodules, detections, excluded=(), geometry=GEOMETRY):
    """Return a sample with detections ``x, y, z, probability`` in world coordinates."""
    detections = np.array(detections, dtype=float).reshape(-1, 4)
    boxes = geometry.boxes_around_spheres(
        np.column_stack((detections[:, :3], np.full(len(detections), 7.0)))
    )
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
        scores=torch.tensor(detections[:, 3], dtype=torch.float32),
        labels=torch.zeros(len(detections), dtype=torch.long),
    )
    return one


def scans():
    """Return two scans: a false positive, a hit, a missed nodule and an ignored detection."""
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


def test_expected_figures():
    metrics = evaluate(scans())
    # Interpolated between 0.5 false positives per scan and the hit.
    rates = ("0.125", "0.25", "0.5", "1", "2", "4", "8")
    found = [metrics[f"froc/sensitivity@{rate}"] for rate in rates]
    assert found == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert metrics["froc/cpm"] == pytest.approx(2.5 / 7)
    assert len(metrics) == 8


def test_repeated_scans_count_once_in_any_order():
    once = evaluate(scans())
    assert evaluate([*reversed(scans()), *scans()[:1]]) == once


def _evaluate_part(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    samples = [*scans(), sample("c", [OTHER], [(20, 40, -140, 0.6), (1, 1, -150, 0.55)])]
    evaluator = Evaluator(METRICS.build(dict(type="Luna16Metric")))
    # The sampler repeats the first scan, so that both processes get the same number.
    for one in ([samples[0], samples[2]], [samples[1], samples[0]])[rank]:
        evaluator.process([one])
    (folder / f"{rank}.json").write_text(json.dumps(evaluator.evaluate(3)))
    torch.distributed.destroy_process_group()


def test_two_processes_count_each_scan_once(tmp_path):
    torch.multiprocessing.spawn(_evaluate_part, args=(tmp_path,), nprocs=2)
    alone = evaluate([*scans(), sample("c", [OTHER], [(20, 40, -140, 0.6), (1, 1, -150, 0.55)])])
    assert 0 < alone["froc/cpm"] < 1
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_boxes_are_mapped_by_the_geometry():
    # The same world position in a rotated array of another shape.
    turned = GEOMETRY.crop((3, -2, 5), (20, 30, 44)).permute(
        CubeSymmetry((2, 0, 1), (True, False, True))
    )
    detections = [(0, 30, -160, 0.9), (19, 41, -139, 0.8)]
    metrics = evaluate([sample("a", [NODULE, OTHER], detections, geometry=turned)])
    assert metrics["froc/cpm"] == 1
    wrong = sample("a", [NODULE, OTHER], detections, geometry=turned)
    wrong.set_metainfo(dict(geometry=GEOMETRY.to_dict()))
    assert evaluate([wrong])["froc/cpm"] < 1


def test_dumped_submission_gives_the_same_figures(tmp_path):
    rng = np.random.default_rng(0)
    samples, nodules, excluded = [], {}, {}
    for i in range(7):
        truth = np.column_stack((rng.uniform(-20, 20, (3, 3)) + (0, 30, -160), [8, 12, 5]))
        detections = np.column_stack(
            (rng.uniform(-20, 20, (150, 3)) + (0, 30, -160), rng.random(150))
        )
        found = np.column_stack((rng.uniform(-20, 20, (2, 3)) + (0, 30, -160), [-1, 4]))
        samples.append(sample(f"s{i}", truth, detections, found))
        nodules[f"s{i}"], excluded[f"s{i}"] = truth, found
    prefix = tmp_path / "new" / "test"
    metrics = evaluate(samples, outfile_prefix=str(prefix))
    series = read_luna16_series(f"{prefix}.seriesuids.csv")
    assert series == list(nodules)
    detections = read_luna16_detections(f"{prefix}.submission.csv", series)
    result = luna16_froc(detections, nodules, excluded)
    assert result.mean_sensitivity == metrics["froc/cpm"]
    assert 0 < metrics["froc/cpm"] < 1
    written = json.loads((tmp_path / "new" / "test.metrics.json").read_text())
    assert written["cpm"] == metrics["froc/cpm"]
    assert written["counts"]["detections"] == 700


def test_no_detections():
    assert set(evaluate([sample("a", [NODULE], [])]).values()) == {0.0}


def test_settings_are_passed_on():
    detections = [(5, 5, -150, 0.75), (0, 30, -160, 0.5)]
    metrics = evaluate([sample("a", [NODULE], detections)], max_detections=1, fp_rates=(1, 3))
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


def test_invalid_input_is_rejected():
    with pytest.raises(InputError, match="no nodule in 1 scans"):
        evaluate([sample("a", [], [])])
    with pytest.raises(InputError, match="'a' has two ground truths, of 1 and 0"):
        evaluate([sample("a", [NODULE], []), sample("a", [], [])])
    with pytest.raises(InputError, match="received no scan"):
        METRICS.build(dict(type="Luna16Metric")).compute_metrics([])
