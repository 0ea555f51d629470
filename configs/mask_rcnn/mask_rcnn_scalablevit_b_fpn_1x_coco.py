# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_scalablevit_b_fpn_1x_coco.py 8
# Published by the readme: box AP 46.6, mask AP 42.1
# (94.9M parameters, 349G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/mask_rcnn_scalable_vit_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/scalable_vit_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/scalable_vit_base.pth"),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
