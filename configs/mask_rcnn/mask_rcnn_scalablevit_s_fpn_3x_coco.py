# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_scalablevit_s_fpn_3x_coco.py 8
# Published by the readme: box AP 48.7, mask AP 43.6
# (46.3M parameters, 256G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
# The published S has 0.4M parameters more than the released one; docs/results.md has more.
_base_ = [
    "../_base_/models/mask_rcnn_scalable_vit_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/scalable_vit_coco_3x.py",
    "../_base_/runtime_detection.py",
]
