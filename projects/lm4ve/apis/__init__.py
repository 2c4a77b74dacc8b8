"""Functions to list, build and apply the models of every task.

In the style of mmpretrain's and mmaction2's ``apis``, over the configs that come with
lm4ve::

    lm4ve.apis.list_models('*demo*', task='motion')
    model = lm4ve.apis.get_model('vit-demo_minilm_digits', pretrained=True)
    lm4ve.apis.inference('vit-demo_minilm_digits', 'pretrained', ['a.png', 'b.png'])
    lm4ve.apis.inference('configs/pointcloud/...py', 'epoch_300.pth', ['a.ply', 'b.ply'])
"""

from lm4ve.apis.inference import inference
from lm4ve.apis.models import get_model
from lm4ve.zoo import list_models

__all__ = ['get_model', 'inference', 'list_models']
