# tools/dist_train.sh configs/retinanet/retinanet_focal_t_fpn_1x_coco.py 8
# Published by the readme: box AP 43.7
# (39M parameters, 265G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/retinanet_focal_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/swin_coco_1x.py",
    "../_base_/runtime_detection.py",
]
