# tools/dist_train.sh configs/upernet/upernet_scalablevit_l_8xb2_160k_ade20k_512x512.py 8
# Published by the readme: mIoU 49.7, with flips and scales 50.7
# (135.5M parameters, 1162G FLOPs).
# No segmentation code was released: optimizer and schedule are chosen here.
_base_ = [
    "../_base_/models/upernet_scalable_vit.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/scalable_vit_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/scalable_vit_large.pth"),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
