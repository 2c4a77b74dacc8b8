"""Labels and splits of folders, tables and configs, and how pictures are read."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import mmcv
import numpy as np
import pandas as pd
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image

from lm4ve.errors import UserError
from lm4ve.study.pictures.data import ProbeData, read_data
from lm4ve.study.pictures.items import DatasetItem
from lm4ve.study.pictures.reading import read_picture
from lm4ve.study.pictures.splits import draw_fit_and_val
from lm4ve.tasks import get_task
from lm4ve.tasks.vqa.inference import pixels_of_file
from tests.helpers.pictures import write_folder

rng = np.random.default_rng(0)


def counts(data):
    parts = (data.labels[data.splits[name]] for name in ('train', 'val', 'test'))
    return [np.bincount(part, minlength=len(data.classes)).tolist() for part in parts]


def damage(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    'given, expected',
    [
        (dict(_=dict(cat=20, dog=10)), [[12, 6], [4, 2], [4, 2]]),
        (
            dict(train=dict(a=5, b=5), val=dict(a=2, b=1), test=dict(b=3)),
            [[5, 5], [2, 1], [0, 3]],
        ),
        (dict(train=dict(a=10, b=20), test=dict(a=4)), [[8, 16], [2, 4], [4, 0]]),
        (dict(train=dict(a=10, b=20), val=dict(a=4)), [[8, 16], [2, 4], [4, 0]]),
        (dict(Train=dict(a=10, b=20), testing=dict(a=4)), [[8, 16], [2, 4], [4, 0]]),
        (dict(train=dict(a=20, b=10)), [[12, 6], [4, 2], [4, 2]]),
    ],
    ids=str,
)
def test_splits_are_kept_or_made_stratified(given, expected, tmp_path):
    data = read_data(str(write_folder(tmp_path, **given)))
    assert counts(data) == expected
    assert sorted(np.concatenate([*data.splits.values()])) == list(range(len(data)))
    assert read_data(str(tmp_path)).fingerprint == data.fingerprint
    half = np.bincount(read_data(str(tmp_path), limit=len(data) // 2).labels)
    assert abs(half - np.bincount(data.labels) / 2).max() <= 1


def test_groups_and_equal_files_stay_together(tmp_path):
    write_folder(tmp_path, _=dict(a=30, b=30))
    rows = []
    for label in 'ab':
        for i in range(30):
            rows.append((f'{label}/{i}.png', label, f'{label}{i // 3}'))
    table = pd.DataFrame(rows, columns=['path', 'label', 'group'])
    table.to_csv(tmp_path / 'd.csv', index=False)
    grouped = read_data(str(tmp_path / 'd.csv'))
    assert_sides_share_nothing(grouped, table['group'])

    for path in table['path'][::6]:
        shutil.copy(tmp_path / path, tmp_path / path.replace('/', '/copy'))
    copied = read_data(str(tmp_path))
    contents = [path.read_bytes() for path in copied.items]
    assert_sides_share_nothing(copied, contents)

    # A group for each file hides that some are equal.
    paths = [str(path.relative_to(tmp_path)) for path in copied.items]
    labels = [path[0] for path in paths]
    table = pd.DataFrame(dict(path=paths, label=labels, group=paths))
    table.to_csv(tmp_path / 'd.csv', index=False)
    assert_sides_share_nothing(read_data(str(tmp_path / 'd.csv')), contents)


def assert_sides_share_nothing(data, keys):
    """Check that items of one key, of which there are some, stand in one split."""
    sides = [{keys[i] for i in indices} for indices in data.splits.values()]
    assert sum(len(side) for side in sides) == len(set(keys)) < len(data)


def test_a_limit_leaves_small_classes_and_names_to_all(tmp_path):
    write_folder(tmp_path, _=dict(large=60, a=5, b=7))
    assert np.bincount(read_data(str(tmp_path), limit=20).labels).tolist() == [5, 5, 17]


@pytest.mark.parametrize('is_wrapped', [False, True])
@pytest.mark.parametrize('name, order', [('CIFAR10', 1), ('Other', -1)])
def test_arrays_of_data_sets_become_rgb(name, order, is_wrapped):
    color = rng.integers(256, size=(4, 5, 3), dtype=np.uint8)
    assert np.array_equal(picture_of(name, color, is_wrapped), color[..., ::order])
    gray = color[..., 0]
    gray_rgb = np.stack([gray] * 3, -1)
    assert np.array_equal(picture_of(name, gray, is_wrapped), gray_rgb)


def picture_of(name, pixels, is_wrapped):
    """Return the picture that a data set of a class's name gives for an array."""
    fields = dict(get_data_info=lambda self, i: dict(img=pixels))
    dataset = type(name, (), fields)()
    if is_wrapped:
        dataset = type('Wrapper', (), dict(fields, dataset=dataset))()
    items = [DatasetItem(dataset, 0)]
    return ProbeData('', np.zeros(1), {}, (), '', items)[0]


def test_bad_data_is_refused_by_name(tmp_path):
    two = dict(a=5, b=5)
    write_folder(tmp_path / 'one', _=dict(a=9))
    write_folder(tmp_path / 'new', train=two, test=dict(c=2))
    damage(write_folder(tmp_path / 'bad', train=two, test=two) / 'test/b/3.png')
    (write_folder(tmp_path / 'dead', train=two, test=two) / 'test/b/9.png').symlink_to(
        'none.png'
    )
    write_folder(tmp_path / 'more', train=two, test=two, extra=two)
    files = ['one/a/0.png', 'one/a/1.png']
    table = pd.DataFrame(dict(path=files, label=['x', 'y'], split=['train', 'test']))
    table.assign(group='g').to_csv(tmp_path / 'd.csv', index=False)
    table.assign(label=['x', '']).to_csv(tmp_path / 'f.csv', index=False)
    table.rename(columns=dict(label='labels')).to_csv(tmp_path / 'e.csv', index=False)
    cases = {
        'one': 'number of classes .*=1 must be',
        'new': 'without a training picture: c',
        'bad': r'1 damaged picture\(s\) in val or test: .*b/3.png',
        'd.csv': 'groups in several splits: g',
        'e.csv': "has no column 'label', only path, labels, .*Fix: call it 'label' in",
        'f.csv': 'line 3 is a row without a label',
        'one/a': 'needs them in folders of classes',
        'dead': '9.png does not exist, or is no file',
        'more': r'no split \(extra\) beside those of splits \(test, train\)[.] Fix: move',
        'none': 'does not exist: neither a folder, nor a CSV',
    }
    for name, match in cases.items():
        with pytest.raises(UserError, match=match):
            read_data(str(tmp_path / name))


TWO = dict(cat=10, dog=10)


@pytest.mark.parametrize(
    'folders, words',
    [
        (dict(Train=TWO, extra=dict(x=9)), 'no split .extra. beside .*splits .Train.'),
        (dict(train=TWO, _=dict(unlabeled=9)), 'no split .unlabeled. beside'),
        (dict(valid=TWO, extra=dict(x=9)), 'no split .extra. beside .*splits .valid.'),
        (dict(val=TWO, test=TWO), "has no split 'train', only test, val[.] Fix: add"),
        (dict(test=TWO), "has no split 'train', only test"),
    ],
)
def test_folders_of_splits_are_never_taken_for_classes(folders, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_data(str(write_folder(tmp_path, **folders)))


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    data = read_data(str(write_folder(tmp_path, _=dict(train=5, bus=5))))
    assert data.classes == ('bus', 'train')


@pytest.mark.parametrize(
    'rows, match',
    [
        (
            'a/0.png,x\n\na/../a/0.png,y\n',
            "line 4 gives a file the label 'y', line 2 'x'",
        ),
        ('a/0.png,x\na/gone.png,y\n', "line 3: 'a/gone.png' does not exist"),
        (',x\n', 'line 2 is a row without a path'),
        ('a/0.png\n', 'line 2 has not as many cells'),
        ('a/0.png,x,more\n', 'line 2 has not as many cells'),
        ('a/0.png,"x\n', 'DATA: .*d.csv. is .*damaged'),
        ('a/0.png,\udcff\n', 'UnicodeDecodeError'),
    ],
)
def test_rows_that_cannot_be_meant_are_refused_with_their_line(rows, match, tmp_path):
    write_folder(tmp_path, _=dict(a=2))
    text = f'path,label\n{rows}'
    (tmp_path / 'd.csv').write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(UserError, match=match):
        read_data(str(tmp_path / 'd.csv'))


@pytest.mark.parametrize('split', ['', 'trian'])
def test_a_row_of_no_split_is_refused(split, tmp_path):
    write_folder(tmp_path, _=dict(a=2))
    (tmp_path / 'd.csv').write_text(
        f'path,label,split\na/0.png,x,train\na/1.png,y,{split}\n'
    )
    with pytest.raises(
        UserError, match=f"line 3: the split '{split}' is none of train"
    ):
        read_data(str(tmp_path / 'd.csv'))


def test_splits_of_a_table_may_be_in_upper_case_as_those_of_folders(tmp_path):
    write_folder(tmp_path, _=dict(a=6, b=6))
    lines = ['path,label,split']
    for label in 'ab':
        for i, split in enumerate(['Train', 'train', 'VAL', 'Test', 'testing', 'Dev']):
            lines.append(f'{label}/{i}.png,{label},{split}')
    (tmp_path / 'd.csv').write_text('\n'.join([*lines, '']))
    assert counts(read_data(str(tmp_path / 'd.csv'))) == [[2, 2], [2, 2], [2, 2]]


@pytest.mark.parametrize(
    'splits, missing, found',
    [(['val', 'test'], 'train', 'test, val'), (['train', 'train'], 'test', 'train')],
)
def test_a_table_without_a_split_is_refused_with_the_fix(
    splits, missing, found, tmp_path
):
    write_folder(tmp_path, _=dict(a=2))
    first, second = splits
    (tmp_path / 'd.csv').write_text(
        f'path,label,split\na/0.png,x,{first}\na/1.png,y,{second}\n'
    )
    words = f"d.csv' has no split '{missing}', only {found}. Fix: add its pictures; or"
    with pytest.raises(UserError, match=words):
        read_data(str(tmp_path / 'd.csv'))


def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path):
    write_folder(tmp_path, _=dict(a=5, b=5))
    lines = ['path,label']
    for label in 'ab':
        lines += [f'{label}/{i}.png,{label}' for i in range(5)]
    lines.append('')
    (tmp_path / 'd.csv').write_text('\n'.join(lines), encoding='utf-8-sig')
    assert read_data(str(tmp_path / 'd.csv')).classes == ('a', 'b')


def test_folders_are_read_once_and_left_out_files_are_named(tmp_path):
    whole = read_data(str(write_folder(tmp_path, _=dict(a=5, b=5))))
    write_folder(tmp_path, _={'.git': 3})
    (tmp_path / 'c').symlink_to(tmp_path)
    for name in ('a/notes', 'a/x.pdfx'):
        (tmp_path / name).touch()
    shutil.copy(tmp_path / 'a/0.png', tmp_path / 'top.png')
    data = read_data(str(tmp_path))
    assert data.fingerprint == whole.fingerprint
    assert {name for name, _ in data.left_out} == {
        'a/notes',
        'a/x.pdfx',
        'c',
        'top.png',
    }


def test_rare_classes_and_damaged_training_pictures_are_left_out(tmp_path):
    whole = read_data(str(write_folder(tmp_path / 'rare', _=dict(a=10, b=10, rare=4))))
    assert whole.classes == ('a', 'b')
    reasons = {reason for _, reason in whole.left_out}
    assert len(whole.left_out) == 4 and reasons == {'of a class with too few pictures'}
    parts = dict(train=dict(a=10, b=10), val=dict(a=2, b=2), test=dict(a=2, b=2))
    whole = read_data(str(write_folder(tmp_path / 'split', **parts)))
    path = whole.items[whole.splits['train'][0]]
    damage(path)
    data = read_data(str(tmp_path / 'split'))
    assert counts(data)[0] == [9, 10]
    assert counts(data)[1:] == counts(whole)[1:]
    ((name, reason),) = data.left_out
    assert name == str(path) and reason.startswith('cannot be decoded')
    assert data.fingerprint != whole.fingerprint


def test_classes_of_few_groups_are_left_out(tmp_path):
    write_folder(tmp_path, _=dict(a=20, b=20, rare=20))
    rows = []
    for label, groups in (('a', 10), ('b', 10), ('rare', 4)):
        for i in range(20):
            rows.append((f'{label}/{i}.png', label, f'{label}{i % groups}'))
    table = pd.DataFrame(rows, columns=['path', 'label', 'group'])
    table.to_csv(tmp_path / 'd.csv', index=False)
    data = read_data(str(tmp_path / 'd.csv'))
    assert data.classes == ('a', 'b') and len(data.left_out) == 20


@pytest.mark.parametrize(
    'groups, expected',
    [(np.arange(6), (4, 2)), (np.array([0, 0, 1, 1, 2, 2]), (4, 2))],
)
def test_few_pictures_or_groups_are_divided_as_far_as_they_can_be(groups, expected):
    pictures = np.arange(6)
    labels = np.array([0, 1] * 3)
    fit, val = draw_fit_and_val(pictures, labels, groups, 0)
    assert (len(fit), len(val)) == expected
    assert not set(groups[fit]) & set(groups[val])
    assert sorted([*fit, *val]) == pictures.tolist()
    with pytest.raises(UserError, match='must be at least 2'):
        draw_fit_and_val(pictures, labels, np.zeros(6, np.int64), 0)


def write_idx(path, values):
    """Write uint8 values in the format of MNIST."""
    header = [8 << 8 | values.ndim, *values.shape]
    content = b''.join(number.to_bytes(4, 'big') for number in header)
    path.write_bytes(content + values.astype(np.uint8).tobytes())


def write_mnist(folder, labels):
    """Write pictures of noise with these labels for the training and for the test."""
    for split in ('train', 't10k'):
        pixels = rng.integers(256, size=(len(labels), 28, 28))
        write_idx(folder / f'{split}-images-idx3-ubyte', pixels)
        write_idx(folder / f'{split}-labels-idx1-ubyte', labels)


@pytest.mark.parametrize(
    'name, classes',
    [('MNIST', ('3 - three', '5 - five')), ('FashionMNIST', ('Dress', 'Sandal'))],
)
def test_data_of_mnist_are_read_by_a_config(name, classes, tmp_path):
    pytest.importorskip('mmpretrain')
    write_mnist(tmp_path, np.repeat([3, 5], 10))
    path = tmp_path / 'digits.py'
    dataset = f"type='{name}', data_root='{tmp_path}', download=False, pipeline=[]"
    path.write_text(f"""\
default_scope = 'mmpretrain'
train_dataloader = dict(dataset=dict({dataset}, split='train'))
test_dataloader = dict(dataset=dict({dataset}, split='test'))
""")
    data = read_data(f'config:{path}')
    assert counts(data) == [[8, 8], [2, 2], [10, 10]]
    assert data.classes == classes


@DATASETS.register_module()
class OpenFile(BaseDataset):
    """Reads its samples from one open file, as a data set in one process may do.

    Args:
        path (str): Of the file, which has a byte for each sample.
        labels (list[int]): A label for each sample.
    """

    METAINFO = dict(classes=('a', 'b'))

    def __init__(self, path, labels, **kwargs):
        self.file = open(path, 'rb')
        self.labels = labels
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(label=np.int64(label)) for label in self.labels]

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        self.file.seek(idx)
        time.sleep(0.001)  # another thread may run
        (value,) = self.file.read(1)
        return dict(info, img=np.full((2, 2, 3), value, np.uint8))


def write_config(folder, train_labels, test_labels):
    """Write a config of :class:`OpenFile`; return its path."""
    loaders = []
    for split, labels in (('train', train_labels), ('test', test_labels)):
        file = folder / split
        file.write_bytes(bytes(range(len(labels))))
        dataset = f"type='OpenFile', path='{file}', labels={labels}"
        loaders.append(f'{split}_dataloader = dict(dataset=dict({dataset}))')
    path = folder / 'own.py'
    path.write_text('\n'.join([*loaders, '']))
    return path


def test_threads_do_not_read_a_data_set_at_once(tmp_path):
    labels = [0, 1] * 20
    path = write_config(tmp_path, labels, labels)
    data = read_data(str(path))
    assert read_data(str(path)).fingerprint == data.fingerprint
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(data.__getitem__, range(len(data))))
    values = [picture.getpixel((0, 0))[0] for picture in pictures]
    assert values == [item.index for item in data.items]


def test_data_sets_in_one_are_all_read_and_repeated_ones_once(tmp_path):
    (tmp_path / 'pixels').write_bytes(bytes(range(20)))
    (tmp_path / 'others').write_bytes(bytes(range(100, 120)))
    (tmp_path / 'own.py').write_text(f"""\
first = dict(type='OpenFile', path='{tmp_path / 'pixels'}', labels=[0, 1] * 10)
second = dict(type='OpenFile', path='{tmp_path / 'others'}', labels=[0, 1] * 10)
repeated = dict(type='RepeatDataset', times=3, dataset=second)
both = dict(type='ConcatDataset', datasets=[first, repeated])
train_dataloader = dict(dataset=both)
test_dataloader = dict(dataset=both)
""")
    data = read_data(str(tmp_path / 'own.py'))
    assert counts(data) == [[16, 16], [4, 4], [20, 20]]


def test_folds_of_a_data_set_are_kept_apart(tmp_path):
    pytest.importorskip('mmpretrain')
    write_mnist(tmp_path, np.repeat([3, 5], 10))
    (tmp_path / 'folds.py').write_text(f"""\
default_scope = 'mmpretrain'
whole = dict(type='MNIST', data_root='{tmp_path}', download=False, pipeline=[])
folds = dict(type='KFoldDataset', num_splits=4, seed=0, dataset=whole)
train_dataloader = dict(dataset=dict(folds, test_mode=False))
test_dataloader = dict(dataset=dict(folds, test_mode=True))
""")
    data = read_data(str(tmp_path / 'folds.py'))
    assert [len(data.splits[name]) for name in ('train', 'val', 'test')] == [12, 3, 5]
    assert len({data[i].tobytes() for i in range(len(data))}) == 20


@pytest.mark.parametrize('label', [-1, 2])
def test_a_label_that_is_no_class_is_refused(label, tmp_path):
    path = write_config(tmp_path, [0, 1] * 5, [0, label])
    words = f'sample 1 of OpenFile={label} must be at least 0 and at most 1'
    with pytest.raises(UserError, match=words):
        read_data(str(path))


def test_pictures_are_read_as_configs_read_them(tmp_path):
    noise = rng.integers(256, size=(16, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(noise[..., 0]).save(tmp_path / 'gray.png')
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / 'deep.png')
    picture.save(tmp_path / 'turned.png', exif=exif)
    picture.save(tmp_path / 'plain.webp', lossless=True)
    picture.convert('CMYK').save(tmp_path / 'ink.jpg', quality=100)
    for path in tmp_path.iterdir():
        expected = mmcv.imread(str(path), channel_order='rgb').astype(int)
        slack = 3 if path.suffix == '.jpg' else 0
        assert np.abs(read_picture(path) - expected).max() <= slack, path
    Image.new('F', (2, 2)).save(tmp_path / 'float.tif')
    (tmp_path / 'program.png').write_bytes(
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n'
    )
    for name, match in (
        ('float.tif', 'cannot be decoded'),
        ('program.png', 'is not an image'),
    ):
        with pytest.raises(UserError, match=match):
            read_picture(tmp_path / name)
    with pytest.raises(OSError, match='No such file'):  # which may pass
        read_picture(tmp_path / 'gone.png')


def write_transparent(folder):
    """Write pictures with transparency in each way that formats have."""
    noise = rng.integers(256, size=(16, 24, 4), dtype=np.uint8)
    picture = Image.fromarray(noise)
    palette = picture.convert('RGB').quantize(16)
    picture.save(folder / 'rgba.png')
    picture.save(folder / 'rgba.webp', lossless=True, exact=True)
    picture.save(folder / 'rgba.tif')
    Image.fromarray(noise[..., :2], 'LA').save(folder / 'gray.png')
    palette.save(folder / 'palette.png', transparency=bytes(range(0, 256, 16)))
    palette.save(folder / 'one.png', transparency=3)
    palette.save(folder / 'one.gif', transparency=3)
    color = tuple(noise[0, 0, :3].tolist())
    picture.convert('RGB').save(folder / 'color.png', transparency=color)


def test_transparent_pictures_are_the_same_everywhere(tmp_path):
    write_transparent(tmp_path)
    pipeline = [dict(type='LoadImageFromFile')]
    cfg = Config(dict(default_scope='mmpretrain', model=dict()))
    for path in tmp_path.iterdir():
        # What a training sees.
        expected = LoadImageFromFile()(dict(img_path=str(path)))['img']
        assert np.array_equal(np.asarray(read_picture(path))[..., ::-1], expected), path
        assert np.array_equal(pixels_of_file(path)[..., ::-1], expected), path
        read = get_task('image').protocol.read(path, cfg, pipeline)
        assert np.array_equal(read['img'], expected), path


def test_transparent_pictures_are_named_and_not_those_of_an_earlier_policy(
    tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: said.append(text))
    write_folder(tmp_path, _=dict(a=5, b=5))
    for opacity in (255, 0):
        Image.new('RGBA', (9, 12), (3, 4, 5, opacity)).save(tmp_path / 'a/0.png')
        data = read_data(str(tmp_path))
        assert bool(said) == (opacity == 0)
    assert '1 picture(s) are transparent in part' in said[-1]
    assert 'a/0.png' in said[-1]
    (index,) = [i for i, path in enumerate(data.items) if path.match('a/0.png')]
    assert (np.asarray(data[index]) == [3, 4, 5]).all()
