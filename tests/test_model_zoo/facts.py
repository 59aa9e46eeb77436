"""Figures as a training writes them, with made-up numbers."""

from copy import deepcopy

_FACTS = dict(
    format=1,
    name="nodule_small",
    task="lung nodules, 3D boxes",
    summary="3D residual network",
    license="Apache-2.0",
    config="model_zoo/nodule_small",
    created="2026-01-02",
    versions=dict(mmdet_lesion="0.1.0", torch="2.13.0"),
    weights=dict(file="nodule_small.pth", parameters=1234567, bytes=2600000, sha256="ab" * 32),
    training=dict(
        iterations=6000, batch=8, processes=2, device="cpu", seed=5, seconds_per_iteration=2.125
    ),
    settings=dict(
        recipe=dict(
            layout="luna16",
            copies=3,
            planting=dict(lesions=[3, 8]),
            phantoms=dict(volumes=32, nodules=[3, 8]),
        ),
        spacing=[1.5, 1.5, 1.5],
    ),
    sources=[
        dict(use="test", source="LIDC | 0314", license="CC BY 3.0", rows=1),
        dict(use="train", source="CPTAC", license="CC BY 3.0", rows=2),
    ],
    data=dict(
        train=dict(
            patients=2, scans=6, lesions=31, known=0, kinds={"solid": 30, "ground-glass": 1}
        ),
        test=dict(patients=1, scans=3, lesions=14, known=3, kinds={"solid": 14}),
        phantoms=dict(scans=32, lesions=170),
    ),
    threads=2,
    held_out=dict(
        protocol="luna16",
        settings=dict(max_detections=100),
        sensitivity={"0.125": 0.25, "8": 0.875},
        mean_sensitivity=0.5625,
        counts=dict(scans=3, lesions=17),
    ),
    real=dict(
        froc=dict(counts=dict(scans=1, lesions=2)),
        score_thr=0.3,
        hit=1,
        false_positives=4,
        scores=[0.82, None],
    ),
    scans=[
        dict(seconds=61.5, peak_mib=1500, shapes=[[275, 512, 500]], spacings=[[0.7, 0.7, 1.25]])
    ],
)


def made_up_facts(**changes):
    return {**deepcopy(_FACTS), **changes}
