# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_vitdet_b_sfp_100e_coco.py 8 --amp
# Published by detectron2 for this recipe: box AP 54.0, mask AP 46.7.
_base_ = [
    "../_base_/models/cascade_mask_rcnn_vitdet.py",
    "../_base_/datasets/coco_instance_lsj_1024.py",
    "../_base_/runtime_detection_iterations.py",
    "../_base_/schedules/vitdet_coco_100e.py",
]
