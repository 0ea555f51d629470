# tools/dist_train.sh configs/upernet/upernet_swin_b_p4_w7_8xb2_160k_ade20k_512x512.py 8
# Published by the official code for this recipe: mIoU 48.13, with flips and scales 49.72
# (121M parameters, 1188G FLOPs).
_base_ = [
    "../_base_/models/upernet_swin.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/swin_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        arch="base",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window7_224.pth"
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
