# Three quarters of the 100 epochs, as ViT-H has them; everything decays.
_base_ = "vitdet_coco_100e.py"
train_cfg = dict(max_iters=138_281)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.9))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=251),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=138_281,
        milestones=[122_916, 133_159],
        gamma=0.1,
    ),
]
