"""Configs of the 3D detector, shortened to a few iterations on phantoms."""

import logging
from pathlib import Path

from mmengine import Config

#: List of scans in a config → corresponding list of the phantoms.
LISTS = {
    "labeled_25": "labeled_2",
    "labeled_50": "labeled_2",
    "labeled_100": "labeled_3",
    "labeled_6": "labeled_3",
    "train_533": "train_6",
    "unlabeled_400": "unlabeled_3",
    "unlabeled_40": "unlabeled_3",
    "selected": "unlabeled_3",
    "test_355": "test_4",
    "test_40": "test_4",
    "fold0_train": "fold0_train",
    "fold0_test": "fold0_test",
}


def parts(loader):
    return loader.dataset.get("datasets", [loader.dataset])


def short(path, store, work_dir):
    """Return the config, shortened to two iterations of small patches."""
    # Formatting takes longer than a training of a few iterations.
    cfg = Config.fromfile(path, format_python_code=False)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
        for dataset in parts(loader):
            dataset.data_root = f"{store}/"
            name = Path(dataset.ann_file).stem
            dataset.ann_file = f"annotations/{LISTS[name]}.json"
            if dataset.pipeline[0].type == "LoadPatch":
                dataset.pipeline[0].update(size=32, positive=1.0)
    semi = len(parts(cfg.train_dataloader)) == 2
    cfg.train_dataloader.batch_size = 4 if semi else 2
    if semi:
        cfg.train_dataloader.sampler.batch_size = 4
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = 2
    cfg.default_hooks.checkpoint.interval = 2
    cfg.val_dataloader.dataset.indices = cfg.test_dataloader.dataset.indices = 1
    width, blocks = (4, 4, 8, 8), (1, 1, 1, 1)
    cfg.model.backbone.update(channels=width, stage_blocks=blocks)
    cfg.model.neck.update(in_channels=width, out_channels=4)
    cfg.model.bbox_head.update(in_channels=4, feat_channels=4)
    cfg.model.test_cfg.update(patch_size=48, patch_overlap=16)
    cfg.work_dir = str(work_dir)
    cfg.log_level = logging.WARNING
    return cfg
