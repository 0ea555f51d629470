# 100 epochs on COCO in 184,375 iterations of 64 images: AdamW with rates that decay by layer, steps
# after 88.9% and 96.3%, a warm-up over 250. Norms and the position embedding do not decay.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=184_375, val_interval=5_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="swin_dense.LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(
        layer_decay_rate=0.7,
        norm_decay_mult=0.0,
        custom_keys={"pos_embed": dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=251),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=184_375,
        milestones=[163_889, 177_546],
        gamma=0.1,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
