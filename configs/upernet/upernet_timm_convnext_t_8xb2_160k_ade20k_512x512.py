# tools/dist_train.sh configs/upernet/upernet_timm_convnext_t_8xb2_160k_ade20k_512x512.py 8
# Any model of timm in place of Swin, by Swin's schedule. Nobody has trained it here.
_base_ = [
    "../_base_/models/upernet_swin.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/swin_ade20k_160k.py",
    "../_base_/runtime_segmentation.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_dense.TimmBackbone",
        model_name="convnext_tiny.fb_in1k",
        pretrained=True,
        drop_path_rate=0.4,
    ),
)
