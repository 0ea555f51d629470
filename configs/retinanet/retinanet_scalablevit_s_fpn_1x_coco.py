# tools/dist_train.sh configs/retinanet/retinanet_scalablevit_s_fpn_1x_coco.py 8
# Published by the readme: box AP 45.2
# (36.4M parameters, 238G FLOPs).
# No detection code was released: optimizer, schedule and augmentation are chosen here.
# The published S has 0.4M parameters more than the released one; docs/results.md has more.
_base_ = [
    "../_base_/models/retinanet_scalable_vit_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/scalable_vit_coco_1x.py",
    "../_base_/runtime_detection.py",
]
