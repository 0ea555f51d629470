# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_swin_b_p4_w7_fpn_3x_coco.py 8
# Published by the official code for this recipe: box AP 51.9, mask AP 45.0
# (145M parameters, 982G FLOPs).
_base_ = [
    "../_base_/models/cascade_mask_rcnn_swin_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window7_224.pth"
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
