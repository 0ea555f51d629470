# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_pvtv2_b1_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 41.8, mask AP 38.8 (33.66M parameters).
_base_ = [
    "../_base_/models/mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/pvt_coco_1x_2e4.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b1",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b1.pth"
        ),
    ),
)
