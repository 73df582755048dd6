"""The Inception networks under one name, as in TF-Slim: `inception.inception_v3(images)`."""
# ruff: noqa: F401

from slim.nets.inception_resnet_v2 import (
    inception_resnet_v2,
    inception_resnet_v2_arg_scope,
    inception_resnet_v2_base,
    inception_resnet_v2_se,
    inception_resnet_v2_se_arg_scope,
    inception_resnet_v2_se_base,
)
from slim.nets.inception_v3 import (
    inception_v3,
    inception_v3_arg_scope,
    inception_v3_base,
    inception_v3_se,
    inception_v3_se_arg_scope,
    inception_v3_se_base,
)
from slim.nets.inception_v4 import (
    inception_v4,
    inception_v4_arg_scope,
    inception_v4_base,
    inception_v4_se,
    inception_v4_se_arg_scope,
    inception_v4_se_base,
)
