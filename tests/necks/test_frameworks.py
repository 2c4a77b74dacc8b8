"""The block in models of other libraries, trained by their own trainers.

Each example trains, saves, loads and gives equal outputs; no config and no host.
"""

import copy
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lm4ve
from lm4ve.errors import UserError
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import step
from tests.helpers.necks.foreign import replicate
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command

#: Two images of 16 x 16 pixels, the input of all models here.
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def timm_vit() -> nn.Module:
    timm = pytest.importorskip('timm.models.vision_transformer')
    sizes = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    return timm.VisionTransformer(**sizes, num_classes=3)


def timm_swin() -> nn.Module:
    timm = pytest.importorskip('timm.models.swin_transformer')
    sizes = dict(
        img_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2)
    )
    return timm.SwinTransformer(**sizes, window_size=4)


def torchvision_resnet() -> nn.Module:
    resnet = pytest.importorskip('torchvision.models.resnet')
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    small = dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    return ViTForImageClassification(
        ViTConfig(image_size=16, patch_size=8, num_labels=3, **small)
    )


MODELS = [
    (timm_vit, 'blocks.1', {}),
    (timm_swin, 'layers.1', dict(layout='BHWC')),
    (torchvision_resnet, 'layer3', {}),
]


@pytest.mark.parametrize('make, after, options', MODELS)
@pytest.mark.bitwise
def test_models_of_timm_and_torchvision_train_save_and_load(
    make, after, options, tmp_path
):
    model = lm4ve.wrap(make(), after, BLOCK, **options)
    before = model.llm_neck.mapper_in.weight.detach().clone()
    step(model, PIXELS)
    assert not torch.equal(model.llm_neck.mapper_in.weight, before)
    lm4ve.save_pretrained(model, tmp_path / 'saved')
    save_file(model.state_dict(), tmp_path / 'plain.safetensors')
    loaded = lm4ve.from_pretrained(make(), tmp_path / 'saved')
    same = lm4ve.wrap(make(), after, BLOCK, **options)
    same.load_state_dict(load_file(tmp_path / 'plain.safetensors'))
    for other in (loaded, same):
        assert torch.equal(other.eval()(PIXELS), model.eval()(PIXELS))


ADAPTERS = [
    dict(target_modules='all-linear'),
    dict(target_modules=['mapper_in']),
    dict(target_modules=['q_proj'], exclude_modules='.*llm_neck.*mapper.*'),
    dict(target_modules=['qkv'], modules_to_save=['llm_neck']),
]


@pytest.mark.parametrize('options', ADAPTERS)
def test_peft_trains_what_it_puts_on_a_neck(options):
    peft = pytest.importorskip('peft')
    model = lm4ve.wrap(timm_vit(), 'blocks.1', dict(BLOCK, trainable='all'))
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=2, init_lora_weights=False, **options)
    )
    lm4ve.check(model, PIXELS)
    model(PIXELS).square().sum().backward()
    trained = [
        p for n, p in model.named_parameters() if p.requires_grad and 'neck' in n
    ]
    assert trained and all(p.grad is not None and p.grad.any() for p in trained)


ON_MAPPERS = dict(target_modules=['mapper_in', 'mapper_out'])
METHODS = [
    ('LoraConfig', dict(r=2, **ON_MAPPERS)),
    ('LoraConfig', dict(r=2, target_modules='all-linear')),
    ('LoraConfig', dict(r=2, target_modules='all-linear', modules_to_save=['head'])),
    ('LoraConfig', dict(r=2, use_dora=True, **ON_MAPPERS)),
    ('LoraConfig', dict(r=2, init_lora_weights='pissa', **ON_MAPPERS)),
    ('LoraConfig', dict(r=2, target_modules=['qkv'], modules_to_save=['llm_neck'])),
    ('LoraConfig', dict(r=2, target_modules=['qkv'], modules_to_save=['mapper_in'])),
    ('IA3Config', dict(feedforward_modules=['mapper_out'], **ON_MAPPERS)),
    ('LoHaConfig', dict(r=2, **ON_MAPPERS)),
    ('VeraConfig', dict(r=2, target_modules=['qkv'], modules_to_save=['mapper_in'])),
    ('VeraConfig', dict(r=2, target_modules=['mapper_in'])),
    ('OFTConfig', dict(oft_block_size=4, **ON_MAPPERS)),
    (
        'AdaLoraConfig',
        dict(init_r=2, target_r=1, total_step=10, tinit=1, tfinal=1, **ON_MAPPERS),
    ),
]


@pytest.mark.parametrize('method, options', METHODS, ids=str)
def test_adapters_on_mappers_are_saved_and_loaded(method, options, tmp_path):
    peft = pytest.importorskip('peft')
    torch.manual_seed(0)
    host = lm4ve.wrap(timm_vit(), 'blocks.1', BLOCK)
    first, second, third = (copy.deepcopy(host) for _ in range(3))
    model = peft.get_peft_model(first, getattr(peft, method)(**options))
    for p in model.parameters():  # adapters that have learned something
        if p.requires_grad:
            p.data += 0.1 * torch.randn_like(p)
    expected = model.eval()(PIXELS)
    assert not torch.allclose(expected, host.eval()(PIXELS))
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(second, tmp_path)
    torch.testing.assert_close(loaded.eval()(PIXELS), expected)
    if options.get('init_lora_weights') == 'pissa':
        return  # peft's own PiSSA changes the weights for each adapter
    other = peft.PeftModel.from_pretrained(third, tmp_path, adapter_name='other')
    other.load_adapter(tmp_path, 'again')
    other.set_adapter('again')
    torch.testing.assert_close(other.eval()(PIXELS), expected)


def test_a_state_with_a_neck_but_not_its_record_is_refused():
    """The record proves which frozen weights the neck was trained with."""
    model = lm4ve.wrap(timm_vit(), 'blocks.1', BLOCK)
    state = dict(model.state_dict())
    records = [name for name in state if name.endswith('_extra_state')]
    assert records
    for name in records:
        del state[name]
    with pytest.raises(UserError, match='the record of frozen weights'):
        model.load_state_dict(state, strict=False)


def test_an_adapter_on_the_very_place_of_a_block_is_refused(tmp_path):
    peft = pytest.importorskip('peft')
    lora = peft.LoraConfig(r=2, target_modules=['fc2'], init_lora_weights=False)
    torch.manual_seed(0)
    host = timm_vit()
    # Merged, it would come before the block.
    model = lm4ve.wrap(copy.deepcopy(host), 'blocks.1.mlp.fc2', BLOCK)
    model = peft.get_peft_model(model, lora)
    with pytest.raises(UserError, match='blocks.1.mlp.fc2.*adapter.*once merged'):
        model(PIXELS)
    lm4ve.save_pretrained(model, tmp_path)
    with pytest.raises(
        UserError, match='fc2.*lm4ve.wrap before or after get_peft_model'
    ):
        lm4ve.from_pretrained(peft.get_peft_model(copy.deepcopy(host), lora), tmp_path)
    # A block around an adapter is the same before and after.
    adapted = peft.get_peft_model(copy.deepcopy(host), lora)
    lm4ve.wrap(adapted.get_base_model(), 'blocks.1.mlp.fc2', BLOCK)
    expected = adapted.eval()(PIXELS)
    adapted.merge_adapter()
    torch.testing.assert_close(adapted(PIXELS), expected)


@pytest.mark.bitwise
def test_a_replica_of_data_parallel_runs_its_own_neck():
    model = lm4ve.wrap(timm_vit(), 'blocks.1', BLOCK).eval()
    replica, expected = replicate(model), model(PIXELS)
    torch.testing.assert_close(replica(PIXELS), expected)
    replica.llm_neck.mapper_out.weight.data.zero_()
    assert not torch.allclose(replica(PIXELS), expected)
    assert torch.equal(model(PIXELS), expected)


@pytest.mark.bitwise
def test_checkpointing_that_starts_later_keeps_the_block():
    model = lm4ve.wrap(timm_vit(), 'blocks', BLOCK)
    expected = model(PIXELS)
    model.set_grad_checkpointing(True)
    assert torch.equal(model(PIXELS), expected)


@pytest.mark.parametrize('after', ['layers.1', 'layers.1.linear2'])
def test_samples_of_sequence_first_modules_stay_apart(after):
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    lm4ve.wrap(model, after, BLOCK)
    x = torch.randn(5, 3, 16)
    torch.testing.assert_close(model(x)[:, :2], model(x[:, :2]))


@pytest.mark.parametrize('before', [False, True])
def test_hidden_states_of_transformers_are_what_the_next_layer_reads(before):
    model, read = vit().eval(), []
    model(PIXELS, output_hidden_states=before)
    lm4ve.wrap(model, 'vit.layers.0', BLOCK)
    model.vit.layers[1].register_forward_pre_hook(lambda _, args: read.append(args[0]))
    assert torch.equal(
        model(PIXELS, output_hidden_states=True).hidden_states[1], read[0]
    )


def test_a_place_that_was_replaced_is_refused():
    model = lm4ve.wrap(
        torchvision_resnet(), 'layer3', BLOCK
    )  # whose last module is a block
    nn.SyncBatchNorm.convert_sync_batchnorm(model)(PIXELS)
    model = lm4ve.wrap(torchvision_resnet(), 'bn1', BLOCK)
    with pytest.raises(UserError, match="'bn1' was replaced"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)(PIXELS)


def trainer(folder):
    pytest.importorskip(
        'accelerate', reason='the Trainer of transformers needs accelerate'
    )
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    model = lm4ve.wrap(vit(), 'vit.layers.1', BLOCK)
    data = [dict(pixel_values=PIXELS[i % 2] + i, labels=i % 3) for i in range(8)]
    quiet = dict(
        use_cpu=True, report_to=[], disable_tqdm=True, lr_scheduler_type='constant'
    )
    steps = dict(
        max_steps=2, save_steps=1, per_device_train_batch_size=2, learning_rate=0.01
    )
    return Trainer(
        model, TrainingArguments(str(folder), **steps, **quiet), train_dataset=data
    )


@pytest.mark.bitwise
def test_the_trainer_of_transformers_trains_and_resumes(tmp_path):
    whole, resumed = trainer(tmp_path / 'whole'), trainer(tmp_path / 'resumed')
    whole.train()
    first = tmp_path / 'whole/checkpoint-1'
    saved = load_file(first / 'model.safetensors')
    names = (
        'mapper_in.weight',
        'mapper_out.weight',
        '_extra_state',
        'block._extra_state',
    )
    assert set(saved) == {*vit().state_dict(), *(f'llm_neck.{n}' for n in names)}
    resumed.train(resume_from_checkpoint=str(first))
    mine, theirs = whole.model.state_dict(), resumed.model.state_dict()
    torch.testing.assert_close(theirs, mine, rtol=0, atol=0)
    assert not torch.equal(
        mine['llm_neck.mapper_in.weight'], saved['llm_neck.mapper_in.weight']
    )


@pytest.mark.bitwise
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
    runner = lightning.Trainer(max_steps=1, accelerator='cpu', barebones=True)
    runner.fit(model := Classifier(), torch.utils.data.DataLoader(data, batch_size=2))
    runner.save_checkpoint('model.ckpt', weights_only=True)
    loaded = Classifier.load_from_checkpoint('model.ckpt', map_location='cpu').eval()
    expected = model.eval().net(PIXELS).logits
    assert torch.equal(loaded.net(PIXELS).logits, expected)
    assert not torch.equal(Classifier().eval().net(PIXELS).logits, expected)


SCRIPT = """
import sys
import lm4ve
from torch import nn
from tests.helpers.models import BLOCK

lm4ve.wrap(nn.TransformerEncoderLayer(8, 2, 8), 'linear2', BLOCK)
found = {m.partition('.')[0] for m in sys.modules}
print('hosts:', sorted(found & {'mmcv', 'mmpretrain', 'mmaction', 'mmdet', 'mmseg', 'timm'}))
"""


def test_wrapping_imports_no_host_and_prints_one_line():
    done = run_command(sys.executable, '-c', SCRIPT, cwd=ROOT)
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert (
        lines[-1:] == ['hosts: []']
        and len(lines) == 2
        and 'LLMBlock: layers' in lines[0]
    )
