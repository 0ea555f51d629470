# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_moby_fpn_1x_coco.py 8
# Published by MoBY for this recipe: box AP 48.1, mask AP 41.5
# (86M parameters, 745G FLOPs).
# MoBY's weights are on Google Drive, linked from github.com/SwinTransformer/Transformer-SSL:
# download the 300-epoch model and put it at the path below.
_base_ = [
    "../_base_/models/cascade_mask_rcnn_swin_fpn.py",
    "../_base_/datasets/coco_instance_ms_crop.py",
    "../_base_/schedules/swin_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint="checkpoints/moby_swin_t_300ep_pretrained.pth"),
    )
)
