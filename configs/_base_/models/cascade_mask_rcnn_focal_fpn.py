# Cascade Mask R-CNN (https://arxiv.org/abs/1712.00726) through FPN on a
# Focal Transformer pyramid; Focal-T unless a leaf differs.
# The published detectors have the parameters of windows that are expanded in every stage.
_base_ = "cascade_mask_rcnn_swin_fpn.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_dense.FocalTransformer",
        arch="tiny",
        expand_sizes=(3, 3, 3, 3),
        drop_path_rate=0.2,
        init_cfg=dict(
            type="swin_dense.Pretrained",
            checkpoint="https://projects4jw.blob.core.windows.net/model/focal-transformer/imagenet1k/"
            "focal-tiny-is224-ws7.pth",
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
