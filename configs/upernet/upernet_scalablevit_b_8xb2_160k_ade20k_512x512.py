# tools/dist_train.sh configs/upernet/upernet_scalablevit_b_8xb2_160k_ade20k_512x512.py 8
# Published by the readme: mIoU 49.5, with flips and scales 50.4
# (107.0M parameters, 1029G FLOPs).
# No segmentation code was released: optimizer and schedule are chosen here.
_base_ = [
    "../_base_/models/upernet_scalable_vit.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/scalable_vit_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/scalable_vit_base.pth"),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
