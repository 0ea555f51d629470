# tools/dist_train.sh configs/retinanet/retinanet_focal_b_fpn_1x_coco.py 8
# Published by the readme: box AP 46.3
# (101M parameters, 514G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/retinanet_focal_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/swin_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint="https://projects4jw.blob.core.windows.net/model/focal-transformer/imagenet1k/"
            "focal-base-is224-ws7.pth"
        ),
    ),
    neck=dict(in_channels=[256, 512, 1024]),
)
