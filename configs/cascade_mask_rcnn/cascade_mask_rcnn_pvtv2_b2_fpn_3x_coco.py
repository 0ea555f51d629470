# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_pvtv2_b2_fpn_3x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 51.1, mask AP 44.4 (82.85M parameters).
_base_ = [
    "../_base_/models/cascade_mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b2",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth"
        ),
    ),
)
