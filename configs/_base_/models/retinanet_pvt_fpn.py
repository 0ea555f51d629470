# RetinaNet (https://arxiv.org/abs/1708.02002) through FPN on a PVT pyramid;
# PVT-Small unless a leaf differs.
_base_ = "retinanet_swin_fpn.py"
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
    neck=dict(start_level=1, in_channels=[64, 128, 320, 512]),
)
