# 40,000 iterations of 32 images on ADE20K: AdamW, polynomial decay to 0 without a warm-up; all
# decays. The scheduler takes one step less than `end - begin`, hence the odd end.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40_000, val_interval=4_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    dict(type="PolyLR", eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=40_001),
]
# the learning rate belongs to 8 GPUs with 4 images each
auto_scale_lr = dict(enable=False, base_batch_size=32)
