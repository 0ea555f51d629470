# tools/dist_train.sh configs/mask_rcnn/mask_rcnn_timm_resnet50_fpn_1x_coco.py 8
# Any model of timm in place of Swin: mmdet's recipe for ResNet-50. Nobody has trained it here.
_base_ = [
    "../_base_/models/mask_rcnn_swin_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/sgd_coco_1x.py",
    "../_base_/runtime_detection.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_dense.TimmBackbone",
        model_name="resnet50.a1_in1k",
        pretrained=True,
        frozen_stages=1,
        norm_eval=True,
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
optim_wrapper = dict(optimizer=dict(lr=0.02))
