# 12 epochs on COCO: AdamW, warm-up over 500 iterations, steps after epochs 8 and 11; all decays.
# The warm-up takes one step less than `end - begin`, hence its odd end.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
# the learning rate belongs to 8 GPUs with 2 images each
auto_scale_lr = dict(enable=False, base_batch_size=16)
