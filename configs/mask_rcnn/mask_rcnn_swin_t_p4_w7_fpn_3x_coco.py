# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py 8
# Published by the official code for this recipe: box AP 46.0, mask AP 41.6 (48M parameters, 267G
# FLOPs).
_base_ = [
    "../_base_/models/mask_rcnn_swin_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
