# Mask R-CNN (https://arxiv.org/abs/1703.06870) through FPN on a
# ScalableViT pyramid; ScalableViT-S unless a leaf differs.
# Its authors released no weights: put a classifier of your own at the path below.
_base_ = "mask_rcnn_swin_fpn.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_dense.ScalableViT",
        arch="small",
        drop_path_rate=0.2,
        init_cfg=dict(
            type="swin_dense.Pretrained",
            checkpoint="checkpoints/scalable_vit_small.pth",
        ),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
