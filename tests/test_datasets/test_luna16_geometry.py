"""World positions of nodules from the raw scan to the submission."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from mmdet_lesion.converters import Luna16Conversion
from mmdet_lesion.datasets import Luna16Dataset
from mmdet_lesion.evaluation import Luna16Metric
from mmdet_lesion.io.luna16 import read_luna16_detections, write_luna16_detections
from mmdet_lesion.io.metaimage import write_metaimage
from mmdet_lesion.structures import Volume

DIRECTIONS = {
    "identity": (1, 1, 1),
    "as published": (-1, -1, 1),
    "feet first": (1, 1, -1),
    "all": (-1, -1, -1),
}
POINTS = np.array([(-103.3, -171.9, -288.2), (-77.7, -160.1, -300.6), (-95.8, -190.0, -262.4)])


@pytest.fixture(scope="module", params=[(1.0, 1.0, 1.0), (1.5, 1.5, 1.0)])
def root(request, tmp_path_factory):
    """Four converted scans of one patient with different axis directions."""
    folder = tmp_path_factory.mktemp("geometry")
    shape, spacing = (36, 90, 100), (0.69, 0.69, 2.1)
    rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for subset, (name, signs) in enumerate(DIRECTIONS.items()):
        name = name.replace(" ", "_")
        corner = np.array((-121.3, -207.1, -317.9))
        extent = (np.array(shape[::-1]) - 1) * spacing
        origin = corner + np.where(np.array(signs) < 0, extent, 0)
        volume = Volume(np.zeros(shape), spacing, origin, np.diag(signs).astype(float).ravel())
        z, y, x = np.indices(shape).reshape(3, -1)
        world = volume.geometry.points_to_world(np.stack((x, y, z), axis=1) + 0.5)
        hu = np.full(len(world), -1000.0)
        for point in POINTS:
            hu += 1200 * np.exp(-((world - point) ** 2).sum(axis=1) / (2 * 2.6**2))
        volume.array = np.rint(hu).astype(np.int16).reshape(shape)
        write_metaimage(folder / "raw" / f"subset{subset}" / f"{name}.mhd", volume)
        rows += [f"{name},{x},{y},{z},14" for x, y, z in POINTS]
    (folder / "raw" / "annotations.csv").write_text("\n".join(rows) + "\n")
    conversion = Luna16Conversion(folder / "raw", folder / "data", request.param, train=2)
    assert conversion.run(progress=False).report.problems == []
    return folder / "data"


def bright_spot(image, box):
    """Center of mass in and around a box, in continuous voxels."""
    low = np.maximum(np.floor(box[:3]).astype(int) - 1, 0)
    high = np.minimum(np.ceil(box[3:]).astype(int) + 1, image.shape[::-1])
    part = np.zeros_like(image)
    where = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1]))
    part[where] = np.maximum(image[where] - 0.05, 0)
    z, y, x = (np.arange(n) + 0.5 for n in image.shape)
    total = part.sum()
    return (
        np.array(
            [
                (part.sum(axis=(0, 1)) * x).sum(),
                (part.sum(axis=(0, 2)) * y).sum(),
                (part.sum(axis=(1, 2)) * z).sum(),
            ]
        )
        / total
    )


def detect(packed):
    """Detect the brightest part of every ground-truth box."""
    sample = packed["data_samples"]
    image = packed["inputs"][0].numpy()
    boxes = sample.gt_instances.bboxes.numpy()
    spots = np.array([bright_spot(image, box) for box in boxes]).reshape(-1, 3)
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(np.hstack((spots - 3, spots + 3)), dtype=torch.float32),
        scores=torch.linspace(0.9, 0.5, len(spots)),
        labels=torch.zeros(len(spots), dtype=torch.long),
    )
    return sample


def submission(samples, tmp_path):
    evaluator = Evaluator(Luna16Metric(outfile_prefix=str(tmp_path / "test")))
    evaluator.process(samples)
    metrics = evaluator.evaluate(len(samples))
    names = [sample.series_uid for sample in samples]
    return read_luna16_detections(tmp_path / "test.submission.csv", names), metrics


@pytest.mark.parametrize("list_name", ["train_2", "test_2"])
def test_detections_in_whole_volumes_have_world_positions(root, tmp_path, list_name):
    dataset = Luna16Dataset(
        f"annotations/{list_name}.json",
        data_root=str(root),
        pipeline=[dict(type="mmdet.LoadVolume3D"), dict(type="mmdet.PackVolumeInputs")],
    )
    marks, metrics = submission([detect(packed) for packed in dataset], tmp_path)
    assert metrics["froc/cpm"] == 1
    assert len(marks) == 2
    for rows in marks.values():
        np.testing.assert_allclose(rows[:, :3], POINTS, atol=0.5)


def test_detections_in_transformed_patches_have_world_positions(root, tmp_path):
    np.random.seed(1)
    size = 40
    pipeline = [
        dict(type="mmdet.LoadPatch", size=size, positive=1.0, border=8),
        dict(type="mmdet.RandomCubeSymmetry"),
        dict(type="mmdet.PackVolumeInputs"),
    ]
    seen, metric = set(), Luna16Metric()
    for name in ("train_2", "test_2"):
        dataset = Luna16Dataset(f"annotations/{name}.json", data_root=str(root), pipeline=pipeline)
        for _ in range(12):
            for packed in dataset:
                sample = detect(packed)
                boxes = sample.gt_instances.bboxes
                # Only nodules that the patch contains as a whole.
                whole = ((boxes > 1.5) & (boxes < size - 1.5)).all(dim=1)
                sample.pred_instances = sample.pred_instances[whole]
                metric.process(None, [sample.to_dict()])
                result = metric.results.pop()
                write_luna16_detections(
                    tmp_path / "crop.csv", {result["series"]: result["detections"]}
                )
                marks = read_luna16_detections(tmp_path / "crop.csv", [result["series"]])
                for row in marks.get(result["series"], ()):
                    distance = np.linalg.norm(POINTS - row[:3], axis=1)
                    assert distance.min() < 0.5
                    seen.add((result["series"], int(np.argmin(distance))))
    assert len(seen) >= 10 and len({series for series, _ in seen}) == 4
