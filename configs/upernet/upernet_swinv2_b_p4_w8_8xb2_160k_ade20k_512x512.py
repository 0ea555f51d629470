# tools/dist_train.sh configs/upernet/upernet_swinv2_b_p4_w8_8xb2_160k_ade20k_512x512.py 8
# Ours: Swin V2 in the place of V1, all else as its recipe. Nobody has published a figure for it.
_base_ = "upernet_swinv2_t_p4_w8_8xb2_160k_ade20k_512x512.py"
model = dict(
    backbone=dict(
        arch="base",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v2.0.0/"
            "swinv2_base_patch4_window8_256.pth"
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
