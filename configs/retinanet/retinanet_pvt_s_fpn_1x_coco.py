# tools/dist_train.sh configs/retinanet/retinanet_pvt_s_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 40.4 (34.22M parameters).
_base_ = [
    "../_base_/models/retinanet_pvt_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/pvt_coco_1x.py",
    "../_base_/runtime_detection.py",
]
