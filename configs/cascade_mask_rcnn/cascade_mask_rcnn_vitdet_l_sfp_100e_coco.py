# tools/dist_train.sh configs/cascade_mask_rcnn/cascade_mask_rcnn_vitdet_l_sfp_100e_coco.py 8 --amp
# Published by detectron2 for this recipe: box AP 57.6, mask AP 50.0.
_base_ = [
    "../_base_/models/cascade_mask_rcnn_vitdet.py",
    "../_base_/datasets/coco_instance_lsj_1024.py",
    "../_base_/runtime_detection_iterations.py",
    "../_base_/schedules/vitdet_coco_100e.py",
]
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.4,
        init_cfg=dict(
            checkpoint="https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth"
        ),
    ),
    neck=dict(in_channels=[1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
