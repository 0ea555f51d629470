# UperNet (https://arxiv.org/abs/1807.10221) on a
# ScalableViT pyramid; ScalableViT-S unless a leaf differs.
# Its authors released no weights: put a classifier of your own at the path below.
_base_ = "upernet_swin.py"
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
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
