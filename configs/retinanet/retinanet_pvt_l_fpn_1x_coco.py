# tools/dist_train.sh configs/retinanet/retinanet_pvt_l_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 42.6 (71.10M parameters).
_base_ = [
    "../_base_/models/retinanet_pvt_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/pvt_coco_1x.py",
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
