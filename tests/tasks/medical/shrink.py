"""What :mod:`tests.helpers.shrink` makes small in a medical config."""

from mmengine.config import ConfigDict

from tests.helpers import shrink
from tests.tasks.image.shrink import Shrinker as ImageShrinker
from tests.tasks.medical.files import write_decathlon, write_lesions, write_medmnist

DIMS = [4, 6, 8, 10, 16]
#: Configs' names begin with their encoder -> a scalar that validation logs.
METRICS = dict(cmunext='lesion/Dice', vit3d='volume/Dice', vivit='medmnist/AUC')


class Shrinker(shrink.Shrinker):
    """Shrinks pictures to 32 x 32, volumes to 16 x 16 x 8, and encoders."""

    task = 'medical'
    metric = 'medmnist/AUC'

    def load(self, name, *args, **options):
        self.metric = METRICS.get(name.partition('_')[0].partition('-')[0], 'medmnist/AUC')
        cfg = super().load(name, *args, **options)
        if name.startswith('vit3d'):
            for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
                for transform in loader.dataset.pipeline:
                    if transform.get('name') == 'Resized':
                        transform.spatial_size = (16, 16, 8)
        return cfg

    def model(self, model: ConfigDict) -> int:
        backbone = model.backbone
        backbone = backbone.get('backbone', backbone)
        if backbone.type == 'lm4ve.CMUNeXt':
            backbone.update(dims=DIMS, depths=[1] * 5)
            model.decode_head.in_channels = DIMS
            model.data_preprocessor.size = (32, 32)
            return DIMS[-1]
        if backbone.type == 'lm4ve.VolumeViT':
            backbone.update(image_size=(16, 16, 8), patch_size=(8, 8, 4), embed_dims=8, depth=2)
            return 8
        if backbone.type == 'lm4ve.ViViT':
            backbone.update(embed_dims=16, depth=1, num_heads=2, head_dims=8, patch_size=14)
            model.head.in_channels = 16
            return 16
        model.head.in_channels = ImageShrinker._backbone(backbone, False)
        return model.head.in_channels

    def data(self, loader: ConfigDict, split: str) -> None:
        dataset = loader.dataset
        loader.batch_size = 64 if dataset.get('flag') else 2
        if dataset.type == 'lm4ve.UltrasoundDemo':
            dataset.count = 4
        elif dataset.type == 'BaseSegDataset':
            name = dataset.ann_file.partition('_')[0]
            dataset.data_root = self.written(name, lambda path: write_lesions(path, name))
            loader.batch_size = 2 if split == 'train' else 1
            for transform in dataset.pipeline:
                transform.update({k: (32, 32) for k in ('scale',) if k in transform})
        elif dataset.type == 'lm4ve.Decathlon':
            dataset.data_root = self.written('msd', write_decathlon)
            dataset.ratios = (0.5, 0.25, 0.25)
        else:
            classes = dict(retinamnist=5, fracturemnist3d=3)[dataset.flag]
            write = lambda path: write_medmnist(path, dataset.flag, classes)  # noqa: E731
            dataset.data_root = self.written(dataset.flag, write)
        shrink.shrink_images(dataset.pipeline)
