# tools/dist_train.sh configs/retinanet/retinanet_pvtv2_b4_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 46.1 (72.29M parameters).
_base_ = [
    "../_base_/models/retinanet_pvt_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/pvt_coco_1x.py",
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
optim_wrapper = dict(optimizer=dict(lr=1e-4 / 1.4))
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
