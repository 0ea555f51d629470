# tools/dist_train.sh configs/retinanet/retinanet_focal_t_fpn_3x_coco.py 8
# Published by the readme: box AP 45.5
# (39M parameters, 265G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/retinanet_focal_fpn.py",
    "../_base_/datasets/coco_detection_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(drop_path_rate=0.3),
)
