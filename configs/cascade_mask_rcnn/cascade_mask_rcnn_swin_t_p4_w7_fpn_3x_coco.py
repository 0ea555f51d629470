# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py 8
# Published by the official code for this recipe: box AP 50.4, mask AP 43.7
# (86M parameters, 745G FLOPs).
_base_ = [
    "../_base_/models/cascade_mask_rcnn_swin_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_3x.py",
    "../_base_/runtime_detection.py",
]
