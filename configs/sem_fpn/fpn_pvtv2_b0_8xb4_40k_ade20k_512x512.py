# tools/dist_train.sh configs/sem_fpn/fpn_pvtv2_b0_8xb4_40k_ade20k_512x512.py 8
# Published in the paper for this recipe: mIoU 37.2 (7.55M parameters).
_base_ = [
    "../_base_/models/fpn_pvt.py",
    "../_base_/datasets/ade20k_512x512_aligned.py",
    "../_base_/schedules/pvt_ade20k_40k.py",
    "../_base_/runtime_segmentation_40k.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b0",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth"
        ),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
