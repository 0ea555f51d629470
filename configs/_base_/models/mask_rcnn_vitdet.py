# Mask R-CNN (https://arxiv.org/abs/1703.06870) on a plain ViT through a simple feature pyramid, as
# in ViTDet (https://arxiv.org/abs/2203.16527): LayerNorm in the heads, two convolutions in the RPN,
# every image padded to 1024x1024; ViT-B unless a leaf differs.
_base_ = "mask_rcnn_swin_fpn.py"
norm_cfg = dict(type="swin_dense.LayerNorm2d")
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        type="swin_dense.VisionTransformer",
        arch="base",
        img_size=1024,
        window_size=14,
        use_rel_pos=True,
        drop_path_rate=0.1,
        init_cfg=dict(
            type="swin_dense.Pretrained",
            checkpoint="https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
        ),
    ),
    neck=dict(
        _delete_=True,
        type="swin_dense.SimpleFeaturePyramid",
        in_channels=[768],
        out_channels=256,
        num_outs=5,
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
