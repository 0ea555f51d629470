# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_pvt_s_fpn_1x_coco.py 8
# Published by the authors of PVT for this recipe: box AP 40.4, mask AP 37.8 (44.14M parameters).
_base_ = [
    "../_base_/models/mask_rcnn_pvt_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/pvt_coco_1x_2e4.py",
    "../_base_/runtime_detection.py",
]
