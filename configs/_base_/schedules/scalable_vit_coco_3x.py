# As Swin's; the position encodings do not decay, as in ScalableViT's classifier.
_base_ = "swin_coco_3x.py"
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"pos_block": dict(decay_mult=0.0)}))
