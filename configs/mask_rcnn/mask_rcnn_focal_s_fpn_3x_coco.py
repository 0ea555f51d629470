# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_focal_s_fpn_3x_coco.py 8
# Published by the readme: box AP 48.8, mask AP 43.8
# (71M parameters, 401G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/mask_rcnn_focal_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="small",
        drop_path_rate=0.5,
        init_cfg=dict(
            checkpoint="https://projects4jw.blob.core.windows.net/model/focal-transformer/imagenet1k/"
            "focal-small-is224-ws7.pth"
        ),
    ),
)
