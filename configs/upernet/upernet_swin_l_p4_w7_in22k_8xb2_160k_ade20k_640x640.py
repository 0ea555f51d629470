# tools/dist_train.sh configs/upernet/upernet_swin_l_p4_w7_in22k_8xb2_160k_ade20k_640x640.py 8
# Published by the Swin readme for this recipe: mIoU 52.05, with flips and scales 53.53
# (234M parameters, 3230G FLOPs).
# No config was released for this row: all but crop and width is as for the crop of 512.
# The 3230G is not the cost of this model at 640x2560, which is 2482G; docs/results.md has more.
_base_ = [
    "../_base_/models/upernet_swin.py",
    "../_base_/datasets/ade20k_640x640.py",
    "../_base_/schedules/swin_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch="large",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window7_224_22k.pth"
        ),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
