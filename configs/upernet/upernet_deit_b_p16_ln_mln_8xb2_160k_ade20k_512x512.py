# tools/dist_train.sh configs/upernet/upernet_deit_b_p16_ln_mln_8xb2_160k_ade20k_512x512.py 8
# Published by mmseg for this recipe: mIoU 45.37.
_base_ = [
    "../_base_/models/upernet_vit_mln.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/vit_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        final_norm=True,
        init_cfg=dict(
            checkpoint="https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth"
        ),
    ),
)
