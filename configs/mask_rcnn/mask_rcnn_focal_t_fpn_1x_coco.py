# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_focal_t_fpn_1x_coco.py 8
# Published by the readme: box AP 44.8, mask AP 41.0
# (49M parameters, 291G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
_base_ = [
    "../_base_/models/mask_rcnn_focal_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/swin_coco_1x.py",
    "../_base_/runtime_detection.py",
]
