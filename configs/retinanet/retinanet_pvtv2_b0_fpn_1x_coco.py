# tools/dist_train.sh configs/retinanet/retinanet_pvtv2_b0_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 37.2 (12.95M parameters).
_base_ = [
    "../_base_/models/retinanet_pvt_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/pvt_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b0",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth"
        ),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
