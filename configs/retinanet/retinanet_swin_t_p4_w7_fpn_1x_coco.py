# tools/dist_train.sh configs/retinanet/retinanet_swin_t_p4_w7_fpn_1x_coco.py 8
# The recipe of mmdet, which is the only one published; it names no result. No figure of FLOPs
# either.
_base_ = [
    "../_base_/models/retinanet_swin_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/sgd_coco_1x.py",
    "../_base_/runtime_detection.py",
]
