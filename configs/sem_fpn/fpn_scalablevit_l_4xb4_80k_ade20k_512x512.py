# tools/dist_train.sh configs/sem_fpn/fpn_scalablevit_l_4xb4_80k_ade20k_512x512.py 4
# Published by the readme: mIoU 49.4
# (105.5M parameters, 402G FLOPs).
# No segmentation code was released: optimizer and schedule are chosen here.
_base_ = [
    "../_base_/models/fpn_scalable_vit.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/scalable_vit_ade20k_80k.py",
    "../_base_/runtime_segmentation.py",
]
train_dataloader = dict(batch_size=4)
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/scalable_vit_large.pth"),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
