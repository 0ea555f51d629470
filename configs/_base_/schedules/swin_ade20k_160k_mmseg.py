# As the official schedule, but the decay begins after the warm-up: mmseg's own recipes.
_base_ = "swin_ade20k_160k.py"
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1_500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1_500, end=160_000),
]
