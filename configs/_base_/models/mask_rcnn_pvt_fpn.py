# Mask R-CNN (https://arxiv.org/abs/1703.06870) through FPN on a PVT pyramid;
# PVT-Small unless a leaf differs.
_base_ = "mask_rcnn_swin_fpn.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_dense.PVT",
        arch="small",
        drop_path_rate=0.1,
        init_cfg=dict(
            type="swin_dense.Pretrained",
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_small.pth",
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
