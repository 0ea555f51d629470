# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_pvtv2_b4_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 47.5, mask AP 42.7 (82.21M parameters).
_base_ = [
    "../_base_/models/mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/pvt_coco_1x_2e4.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        type="swin_dense.PVTv2",
        arch="b4",
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b4.pth"
        ),
    ),
)
# 1 image on each of 8 GPUs
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
