# Cascade Mask R-CNN (https://arxiv.org/abs/1712.00726) on a plain ViT, as in ViTDet
# (https://arxiv.org/abs/2203.16527): three box heads that know no class when they move a box.
_base_ = "mask_rcnn_vitdet.py"
norm_cfg = dict(type="swin_dense.LayerNorm2d")
box_heads = [
    dict(
        type="Shared4Conv1FCBBoxHead",
        in_channels=256,
        conv_out_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=80,
        norm_cfg=norm_cfg,
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=target_stds,
        ),
        reg_class_agnostic=True,
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    )
    for target_stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
]
box_training = [
    dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=iou_thr,
            neg_iou_thr=iou_thr,
            min_pos_iou=iou_thr,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            type="RandomSampler",
            num=512,
            pos_fraction=0.25,
            neg_pos_ub=-1,
            add_gt_as_proposals=True,
        ),
        mask_size=28,
        pos_weight=-1,
        debug=False,
    )
    for iou_thr in (0.5, 0.6, 0.7)
]
model = dict(
    type="CascadeRCNN",
    roi_head=dict(
        type="CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 1, 1],
        bbox_head=box_heads,
    ),
    train_cfg=dict(rcnn=box_training),
)
