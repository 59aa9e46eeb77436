"""Training with mixed precision."""

import math

import torch
from mmengine.config import Config
from mmengine.runner import Runner


def train_in_mixed_precision(cfg: Config) -> Runner:
    """Train a shortened config with AMP on a GPU, and check losses and weights.

    Without a GPU, mmengine does not support AMP, and the training runs in float32.
    """
    if torch.cuda.is_available():
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert next(runner.model.parameters()).is_cuda == torch.cuda.is_available()
    # The scaler skips steps whose gradients overflow, so the weights stay finite.
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    losses = {k: v for k, v in runner.message_hub.log_scalars.items() if k.startswith("train/loss")}
    assert losses
    assert all(math.isfinite(value.current()) for value in losses.values()), losses
    return runner
