# tools/dist_train.sh configs/upernet/upernet_focal_t_8xb2_160k_ade20k_512x512.py 8
# Published by the readme: mIoU 45.8, with flips and scales 47.0
# (62M parameters, 998G FLOPs).
# No segmentation code was released: optimizer and schedule are chosen here.
# The published size is not that of this model; docs/results.md has more.
_base_ = [
    "../_base_/models/upernet_focal.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/swin_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(drop_path_rate=0.3),
)
