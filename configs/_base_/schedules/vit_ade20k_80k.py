# mmseg's 80,000 iterations for ViT.
_base_ = "vit_ade20k_160k.py"
train_cfg = dict(max_iters=80_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1_500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1_500, end=80_000),
]
