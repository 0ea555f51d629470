# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_pvt_l_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 42.9, mask AP 39.5 (81.02M parameters).
_base_ = [
    "../_base_/models/mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/pvt_coco_1x_2e4.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.0,
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_large.pth"
        ),
    ),
)
# 1 image on each of 8 GPUs
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
