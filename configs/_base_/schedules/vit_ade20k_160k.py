# mmseg's 160,000 iterations for ViT. Its rule that norms do not decay names them "norm" where
# mmseg's ViT calls them "ln": they did decay in its runs, and do here.
_base_ = "swin_ade20k_160k_mmseg.py"
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={"pos_embed": dict(decay_mult=0.0), "cls_token": dict(decay_mult=0.0)},
    )
)
