# tools/dist_train.sh configs/retinanet/retinanet_scalablevit_l_fpn_1x_coco.py 8
# Published by the readme: box AP 46.8
# (112.6M parameters, 457G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/retinanet_scalable_vit_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/scalable_vit_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/scalable_vit_large.pth"),
    ),
    neck=dict(in_channels=[256, 512, 1024]),
)
