# tools/dist_train.sh configs/distillation/mask_rcnn_swin_t_from_swin_s_fpn_1x_coco.py 8
# --cfg-options model.teacher_checkpoint=PATH, where the teacher's weights lie elsewhere than below.
# Mask R-CNN on Swin-T learns from the labels and from Mask R-CNN on Swin-S, whose own recipe is
# mask_rcnn/mask_rcnn_swin_s_p4_w7_fpn_3x_coco.py. Nobody has trained it here.
# Test what is saved with mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py.
_base_ = "../mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py"
model = dict(
    _delete_=True,
    type="swin_dense.DistilledDetector",
    student=_base_.model,
    teacher=dict(
        _base_.model,
        backbone=dict(
            type="swin_dense.SwinTransformer", arch="small", window_size=7, drop_path_rate=0.2
        ),
    ),
    teacher_checkpoint="work_dirs/mask_rcnn_swin_s_p4_w7_fpn_3x_coco/epoch_36.pth",
    kind="soft",
    alpha=0.5,
    tau=1.0,
)
