# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_focal_t_fpn_3x_coco.py 8
# Published by the readme: box AP 51.5
# (87M parameters, 770G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/cascade_mask_rcnn_focal_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(drop_path_rate=0.3),
)
