# tools/dist_train.sh configs/retinanet/retinanet_scalablevit_s_fpn_3x_coco.py 8
# Published by the readme: box AP 47.8
# (36.4M parameters, 238G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
# The published S has 0.4M parameters more than the released one; docs/results.md has more.
_base_ = [
    "../_base_/models/retinanet_scalable_vit_fpn.py",
    "../_base_/datasets/coco_detection_ms_crop.py",
    "../_base_/schedules/scalable_vit_coco_3x.py",
    "../_base_/runtime_detection.py",
]
