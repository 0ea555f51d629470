# tools/dist_train.sh configs/upernet/upernet_deit_s_p16_8xb2_160k_ade20k_512x512.py 8
# Published by mmseg for this recipe: mIoU 42.87.
_base_ = [
    "../_base_/models/upernet_vit.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/vit_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        arch="small",
        init_cfg=dict(
            checkpoint="https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth"
        ),
    ),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
