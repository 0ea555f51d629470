# tools/dist_train.sh configs/upernet/upernet_swin_t_p4_w7_moby_8xb2_160k_ade20k_512x512.py 8
# Published by MoBY for this recipe: mIoU 44.06, with flips and scales 45.58
# (60M parameters, 945G FLOPs).
# MoBY's weights are on Google Drive, linked from github.com/SwinTransformer/Transformer-SSL:
# download the 300-epoch model and put it at the path below.
_base_ = [
    "../_base_/models/upernet_swin.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/swin_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint="checkpoints/moby_swin_t_300ep_pretrained.pth"),
    ),
)
