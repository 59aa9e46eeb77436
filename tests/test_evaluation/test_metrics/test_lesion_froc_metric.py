import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from mmdet_lesion.errors import InputError
from mmdet_lesion.evaluation.functional import p3d_froc, slice_froc
from mmdet_lesion.io.harvester import read_detections
from mmdet_lesion.structures import Geometry, published_to_voxels

PUBLISHED = Geometry((21, 128, 128), (0.9, 0.9, 1.0))
GEOMETRY = PUBLISHED.resample((0.8, 0.8, 2.0))
LESION = [31.0, 41.0, 50.0, 70.0]


def data_sample(name, truth, boxes, horizontal=False):
    """Return a volume with published ``[z, x1, y1, x2, y2]`` and ``(slice, box, score)``."""
    inds, xyxy, scores = zip(*boxes, strict=True) if boxes else ((), (), ())
    bboxes = torch.tensor(np.array(xyxy), dtype=torch.float32).reshape(-1, 4)
    instances = InstanceData(
        bboxes=HorizontalBoxes(bboxes) if horizontal else bboxes,
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.zeros(len(inds), dtype=torch.long),
        slice_inds=torch.tensor(inds, dtype=torch.long),
    )
    sample = DetDataSample(
        metainfo=dict(
            volume=name,
            geometry=GEOMETRY.to_dict(),
            published_geometry=PUBLISHED.to_dict(),
            published_gt=np.array(truth, dtype=float).reshape(-1, 5),
            slice_inds=list(range(GEOMETRY.shape[0])),
            img_id=0,
        )
    )
    sample.pred_instances = instances
    return sample


def slice_sample(name, z, truth, boxes):
    """Return a slice with published ``[x1, y1, x2, y2]`` and detected ``(box, score)``."""
    sample = data_sample(name, [[z, *box] for box in truth], [(0, *pair) for pair in boxes])
    sample.set_metainfo(dict(slice_index=z))
    del sample.slice_inds, sample.pred_instances.slice_inds
    return sample


def store_box(published=LESION, shift=0.0):
    return (PUBLISHED.boxes_to(GEOMETRY, published_to_voxels([published]))[0] + shift).tolist()


def evaluate(samples, **settings):
    evaluator = Evaluator(METRICS.build(dict(type="LesionFROCMetric", **settings)))
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def three_volumes():
    """Return volumes with a hit over three slices, with a false positive, and without boxes."""
    return [
        data_sample(
            "b",
            [[10, *LESION]],
            [(k, store_box(shift=0.5), 0.9 - 0.1 * k) for k in (4, 5, 6)]
            + [(2, store_box(shift=40.0), 0.8)],
        ),
        data_sample("a", [[4, *LESION]], [(8, store_box(shift=20.0), 0.3)], horizontal=True),
        data_sample("c", [], []),
    ]


def test_p3d():
    metrics = evaluate(three_volumes(), fp_rates=(0.2, 0.5))
    # Ranks: false positive 0.8, hit 0.5, false positive 0.3, over three scans and two lesions.
    assert metrics["froc/ap"] == pytest.approx(0.25)
    assert metrics["froc/sensitivity@0.5"] == pytest.approx(0.5)
    assert set(metrics) == {
        *("froc/ap", "froc/mean_sensitivity"),
        *("froc/sensitivity@0.2", "froc/sensitivity@0.5"),
    }


def test_default_operating_points_and_published_coordinates():
    metrics = evaluate([data_sample("a", [[10, *LESION]], [(5, store_box(), 0.9)])])
    assert metrics["froc/ap"] == 1
    rates = ("0.125", "0.25", "0.5", "1", "2", "4", "8", "16")
    assert [metrics[f"froc/sensitivity@{rate}"] for rate in rates] == [1] * 8


def test_repeated_volumes_count_once_in_any_order():
    once = evaluate(three_volumes())
    padded = [*reversed(three_volumes()), *three_volumes()[:2]]
    assert evaluate(padded) == once


def test_tracklets_are_suppressed_only_if_the_config_says_so():
    # A hit, and a box within it with a lower score that is linked to no other.
    hit = store_box()
    inner = [hit[0] + 2, hit[1] + 2, hit[0] + 9, hit[1] + 9]
    samples = [data_sample("a", [[10, *LESION]], [(5, hit, 0.9), (5, inner, 0.8)])]
    nms = dict(type="nms3d", iou_threshold=0.3, containment_threshold=0.7)
    detections = {}
    for name, settings in (("published", {}), ("suppressed", dict(nms=nms))):
        metric = METRICS.build(dict(type="LesionFROCMetric", **settings))
        metric.process({}, [sample.to_dict() for sample in samples])
        detections[name] = metric.results[0]["tracklets"].to_harvester()
    assert len(detections["published"]) == 2
    assert detections["suppressed"] == detections["published"][:1]


def test_undefined_extrapolation_uses_the_last_sensitivity():
    samples = [
        data_sample("a", [[10, *LESION]], [(5, store_box(), 0.5), (5, store_box(shift=50), 0.9)])
    ]
    metrics = evaluate(samples)
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["froc/sensitivity@8"] == 1


def test_extrapolation_is_optional():
    metrics = evaluate(three_volumes(), extrapolate=False)
    assert metrics["froc/sensitivity@16"] == 0.5
    assert metrics["froc/sensitivity@0.125"] == 0


def test_no_detections():
    volumes = [data_sample("a", [[10, *LESION]], []), data_sample("b", [], [])]
    slices = [slice_sample("a", 10, [LESION], []), slice_sample("a", 3, [], [])]
    for protocol, samples in (("p3d", volumes), ("slice", slices)):
        assert set(evaluate(samples, protocol=protocol).values()) == {0.0}


def test_linker_is_configurable():
    samples = three_volumes()
    metrics = evaluate(samples, linker=dict(type="SliceLinker", min_length=2), fp_rates=(1,))
    assert metrics["froc/ap"] == pytest.approx(0.5)


def test_slice_protocol_equals_slice_froc_of_published_boxes(tmp_path):
    rng = np.random.default_rng(0)
    detections, truth, samples = {}, {}, []
    for name, z in (("b", 4), ("a", 11), ("a", 10), ("c", 0)):
        low = rng.uniform(5, 60, (3, 2))
        lesions = np.hstack((low, low + rng.uniform(8, 20, (3, 2))))[: rng.integers(0, 4)]
        # Boxes near the lesions and random boxes.
        found = np.vstack((lesions + rng.normal(0, 3, lesions.shape), lesions + 30))
        scores = rng.uniform(0.1, 1, len(found)).astype(np.float32)
        truth[name, z] = lesions
        detections[name, z] = np.column_stack((found, scores))
        store = PUBLISHED.boxes_to(GEOMETRY, published_to_voxels(found)).tolist()
        samples.append(slice_sample(name, z, lesions, zip(store, scores.tolist())))
    prefix = str(tmp_path / "test")
    metrics = evaluate(samples, protocol="slice", outfile_prefix=prefix)
    expected = slice_froc(detections, truth)
    assert expected.counts["scans"] == 4 and 0 < expected.mean_sensitivity < 1
    for rate, value in zip(expected.fp_rates, expected.sensitivity):
        assert metrics[f"froc/sensitivity@{rate:g}"] == pytest.approx(value)
    assert "froc/ap" not in metrics
    # Neighboring key slices of one volume are two images; repeated samples count once.
    assert evaluate([*samples[::-1], samples[1]], protocol="slice") == metrics
    dumped = read_detections(f"{prefix}.detections.pkl")
    assert sorted(dumped) == ["a", "b", "c"]
    rows = np.column_stack((dumped["a"].slices, dumped["a"].boxes, dumped["a"].scores))
    expected = [(z, *row) for z in (10, 11) for row in detections["a", z].tolist()]
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_boxes_of_a_lesion_count_once(caplog, monkeypatch):
    lines = []
    monkeypatch.setattr("mmengine.logging.MMLogger.info", lambda self, text: lines.append(text))
    truth = [[8, *LESION], [10, *LESION], [12, *LESION], [12, 90, 90, 99, 99]]
    volume = data_sample("a", truth, [(5, store_box(), 0.9)])
    evaluate([volume])
    volume.set_metainfo(dict(lesion_ids=["x", "x", "x", None]))
    metrics = evaluate([volume])
    assert metrics["froc/sensitivity@1"] == 0.5
    slices = [slice_sample("a", z, [LESION], [(store_box(), 0.9)] * (z == 10)) for z in (8, 10)]
    slices.append(slice_sample("b", 8, [LESION], []))
    evaluate(slices, protocol="slice")
    for sample in slices:
        # The same id in another volume is another lesion.
        sample.set_metainfo(dict(lesion_ids=[1]))
    assert evaluate(slices, protocol="slice")["froc/sensitivity@1"] == 0.5
    counts = [line.split(", ")[2] for line in lines]
    assert counts == ["4 lesions", "2 lesions", "3 lesions", "2 lesions"]


def test_samples_of_the_other_protocol_are_rejected():
    volume, key_slice = data_sample("a", [[10, *LESION]], []), slice_sample("a", 10, [LESION], [])
    message = "and received a volume of 'a'; expected a dataset with sample='slice'"
    with pytest.raises(InputError, match=message):
        evaluate([volume], protocol="slice")
    message = "and received a slice of 'a'; expected a dataset with sample='volume'"
    with pytest.raises(InputError, match=message):
        evaluate([key_slice])
    del key_slice.published_gt
    with pytest.raises(InputError, match="the sample of 'a' has no 'published_gt'; expected an"):
        evaluate([key_slice], protocol="slice")


def test_detections_are_dumped(tmp_path):
    samples = three_volumes()
    prefix = tmp_path / "new" / "test"
    metrics = evaluate(samples, outfile_prefix=str(prefix))
    detections = read_detections(f"{prefix}.detections.pkl")
    assert sorted(detections) == ["a", "b", "c"]
    again = p3d_froc(detections, {"a": {4: [LESION]}, "b": {10: [LESION]}, "c": {}})
    assert again.ap == pytest.approx(metrics["froc/ap"])
    written = json.loads((tmp_path / "new" / "test.metrics.json").read_text())
    assert written["protocol"] == "p3d"
    assert written["counts"]["true_positives"] == 1
    assert written["mean_sensitivity"] == pytest.approx(metrics["froc/mean_sensitivity"])


def test_table_is_logged(caplog, monkeypatch):
    lines = []
    monkeypatch.setattr("mmengine.logging.MMLogger.info", lambda self, text: lines.append(text))
    evaluate(three_volumes())
    assert "p3d FROC, 3 scans, 2 lesions, 3 detections" in lines[0]
    assert "outside the curve: 0.125, 0.25, 1, 2, 4, 8, 16" in lines[0]


def test_invalid_input_is_rejected():
    with pytest.raises(InputError, match="'p3d' or 'slice'"):
        METRICS.build(dict(type="LesionFROCMetric", protocol="p2d"))
    with pytest.raises(InputError, match="no lesion in the ground truth of 1 volumes"):
        evaluate([data_sample("a", [], [])])
    with pytest.raises(InputError, match="'a' has two ground truths"):
        evaluate([data_sample("a", [[10, *LESION]], []), data_sample("a", [], [])])
    with pytest.raises(InputError, match="no volume"):
        METRICS.build(dict(type="LesionFROCMetric")).compute_metrics([])
