# As pvt_coco_1x.py, at twice the learning rate, as PVT's Mask R-CNN is trained.
_base_ = "pvt_coco_1x.py"
optim_wrapper = dict(optimizer=dict(lr=2e-4))
