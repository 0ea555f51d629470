# tools/dist_train.sh configs/upernet/upernet_deit_b_p16_8xb2_80k_ade20k_512x512.py 8
# Published by mmseg for this recipe: mIoU 45.24.
_base_ = [
    "../_base_/models/upernet_vit.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/vit_ade20k_80k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint="https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth"
        ),
    ),
)
