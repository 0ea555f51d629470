# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_pvtv2_b3_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 47.0, mask AP 42.5 (64.89M parameters).
_base_ = [
    "../_base_/models/mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/pvt_coco_1x_2e4.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b3",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b3.pth"
        ),
    ),
)
