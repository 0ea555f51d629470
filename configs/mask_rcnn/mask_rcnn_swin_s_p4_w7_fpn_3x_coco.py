# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_swin_s_p4_w7_fpn_3x_coco.py 8
# Published by the official code for this recipe: box AP 48.5, mask AP 43.3
# (69M parameters, 359G FLOPs).
_base_ = [
    "../_base_/models/mask_rcnn_swin_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="small",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_small_patch4_window7_224.pth"
        ),
    )
)
