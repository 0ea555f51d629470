# As upernet_vit.py, with a neck that resizes the four maps to strides 4, 8, 16 and 32.
_base_ = "upernet_vit.py"
model = dict(
    neck=dict(
        type="MultiLevelNeck",
        in_channels=[768, 768, 768, 768],
        out_channels=768,
        scales=[4, 2, 1, 0.5],
    ),
)
