custom_imports = dict(imports=["mmdet_lesion"], allow_failed_imports=False)
default_scope = "mmdet"

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="LatestBestCheckpointHook",
        by_epoch=False,
        interval=4000,
        max_keep_ckpts=2,
        save_best="froc/mean_sensitivity",
        rule="greater",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    checkpoint_check=dict(type="CheckpointCheckHook"),
    finite_outputs=dict(type="FiniteOutputsHook"),
    objectives=dict(type="ObjectivesHook"),
    visualization=dict(type="LesionVisualizationHook"),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)

visualizer = dict(
    type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer"
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
