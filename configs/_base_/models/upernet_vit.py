# UperNet (https://arxiv.org/abs/1807.10221) on four maps of a plain ViT, all at stride 16,
# auxiliary FCN on the last; ViT-B unless a leaf differs.
_base_ = "upernet_swin.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_dense.VisionTransformer",
        arch="base",
        img_size=512,
        out_indices=[2, 5, 8, 11],
        drop_path_rate=0.1,
        init_cfg=dict(
            type="swin_dense.Pretrained",
            checkpoint="https://github.com/rwightman/pytorch-image-models/releases/download/"
            "v0.1-vitjx/jx_vit_base_p16_224-80ecf9dd.pth",
        ),
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768, in_index=3),
)
