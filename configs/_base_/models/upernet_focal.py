# UperNet (https://arxiv.org/abs/1807.10221) on a
# Focal Transformer pyramid; Focal-T unless a leaf differs.
# The published detectors have the parameters of windows that are expanded in every stage.
_base_ = "upernet_swin.py"
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
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
