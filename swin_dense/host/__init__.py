"""What makes mmcv, mmdet and mmseg run here: the portable ``mmcv._ext``, and repairs.

Import :mod:`swin_dense.host.repairs` only where the hosts are about to be used; it imports them.
"""
