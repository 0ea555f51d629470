"""What makes mmcv, mmdet and mmseg run: the portable ``mmcv._ext``, and repairs with reasons.

Import :mod:`swin_dense.host.repairs` only where the hosts are about to be used; it imports them.
"""
