# tools/dist_train.sh configs/distillation/upernet_swin_t_from_swin_b_8xb2_160k_ade20k_512x512.py 8
# --cfg-options model.teacher_checkpoint=PATH, where the teacher's weights lie elsewhere than below.
# UperNet on Swin-T learns from the labels and from UperNet on Swin-B, whose own recipe is
# upernet/upernet_swin_b_p4_w7_in22k_8xb2_160k_ade20k_512x512.py. Nobody has trained it here.
# Test what is saved with upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py.
_base_ = "../upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py"
model = dict(
    _delete_=True,
    type="swin_dense.DistilledSegmentor",
    student=_base_.model,
    teacher=dict(
        _base_.model,
        backbone=dict(
            type="swin_dense.SwinTransformer", arch="base", window_size=7, drop_path_rate=0.3
        ),
        decode_head=dict(_base_.model.decode_head, in_channels=[128, 256, 512, 1024]),
        auxiliary_head=dict(_base_.model.auxiliary_head, in_channels=512),
    ),
    teacher_checkpoint="work_dirs/upernet_swin_b_p4_w7_in22k_8xb2_160k_ade20k_512x512/"
    "iter_160000.pth",
    kind="soft",
    alpha=0.5,
    tau=1.0,
)
