"""The block in models of other libraries, trained by their own trainers.

Each example trains, saves, loads and gives equal outputs; no config and no host.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lm4ve
from lm4ve.errors import CheckpointError
from tests.helpers.models import BLOCK
from tests.necks.encoder import step

PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def timm_vit() -> nn.Module:
    vision_transformer = pytest.importorskip('timm.models.vision_transformer')
    return vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3
    )


def timm_swin() -> nn.Module:
    swin = pytest.importorskip('timm.models.swin_transformer')
    return swin.SwinTransformer(
        img_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
    )


def torchvision_resnet() -> nn.Module:
    resnet = pytest.importorskip('torchvision.models.resnet')
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)


def vit(**options) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    config = ViTConfig(image_size=16, patch_size=8, num_labels=3, **small, **options)
    return ViTForImageClassification(config)


@pytest.mark.parametrize(
    'make, after, options',
    [
        (timm_vit, 'blocks.1', {}),
        (timm_swin, 'layers.1', dict(layout='BHWC')),
        (torchvision_resnet, 'layer3', {}),
    ],
)
def test_models_of_timm_and_torchvision_train_save_and_load(make, after, options, tmp_path):
    torch.manual_seed(0)
    model = lm4ve.wrap(make(), after, BLOCK, **options)
    before = model.llm_neck.mapper_in.weight.detach().clone()
    step(model, PIXELS)
    assert not torch.equal(model.llm_neck.mapper_in.weight, before)
    lm4ve.save_pretrained(model, tmp_path / 'saved')
    save_file(model.state_dict(), tmp_path / 'plain.safetensors')
    expected = model.eval()(PIXELS)

    loaded = lm4ve.from_pretrained(make(), tmp_path / 'saved').eval()
    assert torch.equal(loaded(PIXELS), expected)
    same = lm4ve.wrap(make(), after, BLOCK, **options).eval()
    same.load_state_dict(load_file(tmp_path / 'plain.safetensors'))
    assert torch.equal(same(PIXELS), expected)


def trainer(folder, steps: int, block=BLOCK):
    pytest.importorskip('accelerate', reason='the Trainer of transformers needs accelerate')
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    model = lm4ve.wrap(vit(), 'vit.layers.1', block)
    data = [dict(pixel_values=PIXELS[i % 2] + i, labels=i % 3) for i in range(8)]
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        save_steps=1,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        lr_scheduler_type='constant',
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    return Trainer(model, arguments, train_dataset=data)


def test_the_trainer_of_transformers_trains_and_resumes(tmp_path):
    whole = trainer(tmp_path / 'whole', 2)
    whole.train()
    saved = load_file(tmp_path / 'whole/checkpoint-1/model.safetensors')
    names = ('mapper_in.weight', 'mapper_out.weight', 'block.llm_source')
    assert set(saved) == {*vit().state_dict(), *(f'llm_neck.{n}' for n in names)}

    resumed = trainer(tmp_path / 'resumed', 2)
    resumed.train(resume_from_checkpoint=str(tmp_path / 'whole/checkpoint-1'))
    mine, theirs = whole.model.state_dict(), resumed.model.state_dict()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, msg=name)
    assert not torch.equal(mine['llm_neck.mapper_in.weight'], saved['llm_neck.mapper_in.weight'])

    lm4ve.save_pretrained(whole.model, tmp_path / 'folder')
    loaded = lm4ve.from_pretrained(vit(), tmp_path / 'folder').eval()
    assert torch.equal(loaded(PIXELS).logits, whole.model.eval()(PIXELS).logits)

    other = trainer(tmp_path / 'other', 2, {**BLOCK, 'seed': 1})
    with pytest.raises(CheckpointError, match='other frozen weights'):
        other.train(resume_from_checkpoint=str(tmp_path / 'whole/checkpoint-1'))


def test_lightning_trains_and_loads(tmp_path, monkeypatch):
    lightning = pytest.importorskip('lightning')

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = lm4ve.wrap(vit(), 'vit.layers.1', BLOCK)

        def training_step(self, batch, index):
            return self.net(batch[0], labels=batch[1]).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    monkeypatch.chdir(tmp_path)
    data = torch.utils.data.TensorDataset(PIXELS, torch.tensor([0, 2]))
    model = Classifier()
    before = model.net.llm_neck.mapper_in.weight.detach().clone()
    runner = lightning.Trainer(
        max_steps=1,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    runner.fit(model, torch.utils.data.DataLoader(data, batch_size=2))
    assert not torch.equal(model.net.llm_neck.mapper_in.weight, before)
    runner.save_checkpoint('model.ckpt', weights_only=True)
    saved = torch.load('model.ckpt', weights_only=True)['state_dict']
    assert set(saved) == set(model.state_dict())

    expected = model.eval().net(PIXELS).logits
    loaded = Classifier.load_from_checkpoint('model.ckpt', map_location='cpu').eval()
    assert torch.equal(loaded.net(PIXELS).logits, expected)
    lm4ve.save_pretrained(model.net, 'folder')
    assert torch.equal(lm4ve.from_pretrained(vit(), 'folder').eval()(PIXELS).logits, expected)
