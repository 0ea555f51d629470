# tools/dist_train.sh configs/upernet/upernet_focal_b_8xb2_160k_ade20k_512x512.py 8
# Published by the readme: mIoU 49.0, with flips and scales 50.5
# (126M parameters, 1354G FLOPs).
# No segmentation code was released: optimizer and schedule are chosen here.
# The published size is not that of this model; docs/results.md has more.
_base_ = [
    "../_base_/models/upernet_focal.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/swin_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
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
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
