# tools/dist_train.sh configs/upernet/upernet_vit_b_p16_mln_8xb2_80k_ade20k_512x512.py 8
# Published by mmseg for this recipe: mIoU 47.71, with flips and scales 49.51.
_base_ = [
    "../_base_/models/upernet_vit_mln.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/vit_ade20k_80k.py",
    "../_base_/runtime_segmentation.py",
]
