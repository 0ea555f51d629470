# tools/dist_train.sh configs/sem_fpn/fpn_pvtv2_b3_8xb4_40k_ade20k_512x512.py 8
# Published in the paper for this recipe: mIoU 47.3 (48.99M parameters).
_base_ = [
    "../_base_/models/fpn_pvt.py",
    "../_base_/datasets/ade20k_512x512_aligned.py",
    "../_base_/schedules/pvt_ade20k_40k.py",
    "../_base_/runtime_segmentation_40k.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b3",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b3.pth"
        ),
    ),
)
