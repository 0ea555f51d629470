# tools/dist_train.sh configs/retinanet/retinanet_scalablevit_b_fpn_1x_coco.py 8
# Published by the readme: box AP 45.8
# (85.6M parameters, 330G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/retinanet_scalable_vit_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/scalable_vit_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/scalable_vit_base.pth"),
    ),
    neck=dict(in_channels=[192, 384, 768]),
)
