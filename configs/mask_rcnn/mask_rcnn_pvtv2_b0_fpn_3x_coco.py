# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_pvtv2_b0_fpn_3x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 41.6, mask AP 38.2 (23.45M parameters).
_base_ = [
    "../_base_/models/mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
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
