# python tools/train.py configs/upernet/upernet_swin_mini_sample.py
# The segmenter of `make demo`: a two-million-parameter Swin and a narrow UPerHead, from random weights.
_base_ = ["../_base_/datasets/sample_semantic.py"]

default_scope = "mmseg"
num_classes = 8
norm = dict(type="BN")
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(160, 160),
    ),
    backbone=dict(
        type="mmdet.SwinTransformer",
        embed_dims=32,
        depths=[2, 2, 2, 2],
        num_heads=[2, 4, 8, 16],
        window_size=5,
        mlp_ratio=3,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
    ),
    decode_head=dict(
        type="UPerHead",
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        dropout_ratio=0.0,
        num_classes=num_classes,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

max_iters = 240
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=80)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0)),
    ),
    clip_grad=dict(max_norm=5.0, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type="CosineAnnealingLR", by_epoch=False, begin=30, end=max_iters, eta_min=1e-5,
        T_max=max_iters - 30,
    ),
]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=10),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=max_iters, max_keep_ckpts=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(by_epoch=False, window_size=10)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
log_level = "INFO"
load_from = None
resume = False
