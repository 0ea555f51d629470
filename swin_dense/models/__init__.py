"""Model parts beyond backbones; importing it registers them."""

from swin_dense.models import neck_plugins as neck_plugins
from swin_dense.models import plugins as plugins
from swin_dense.models import simple_feature_pyramid as simple_feature_pyramid
from swin_dense.models import tta as tta
from swin_dense.models.distillation import students as students
from swin_dense.models.distillation import tokens as tokens
