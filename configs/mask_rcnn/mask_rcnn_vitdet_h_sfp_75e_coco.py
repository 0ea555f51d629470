# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_vitdet_h_sfp_75e_coco.py 8 --amp
# Published by detectron2 for this recipe: box AP 56.7, mask AP 50.2.
_base_ = [
    "../_base_/models/mask_rcnn_vitdet.py",
    "../_base_/datasets/coco_instance_lsj_1024.py",
    "../_base_/runtime_detection_iterations.py",
    "../_base_/schedules/vitdet_coco_75e.py",
]
model = dict(
    backbone=dict(
        arch="huge",
        drop_path_rate=0.5,
        init_cfg=dict(
            checkpoint="https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MAE/"
            "mae_pretrain_vit_huge_p14to16.pth"
        ),
    ),
    neck=dict(in_channels=[1280]),
)
