"""Broken videos are found, skipped and counted, or refused; shards hold the same videos."""

import re

import numpy as np
import pytest

pytest.importorskip('mmaction')
import av
from mmengine.registry import DATASETS, DefaultScope

from lm4ve.data.shard_writing import Entry, write_shards
from lm4ve.errors import UserError
from lm4ve.tasks.video.datasets.video_files import find_defect
from tests.helpers.video.videos import pipeline, write_broken, write_list, write_noise

DEFECTS = dict(
    empty='is empty', truncated_late='is truncated', audio='has no video stream'
)
DEFECTS |= dict(
    text='cannot be read', truncated='cannot be read', one_frame=r'has 1 frame\(s\)'
)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    broken = write_broken(folder)
    whole = [write_noise(folder / f'{i}.mp4', seed=i) for i in range(3)]
    return broken, whole


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


def dataset(ann_file, decoder='Decord', type='lm4ve.CheckedVideoDataset', **kwargs):
    # MMEngine collects garbage when it serializes: slow beside torch.
    fields = dict(
        type=type, ann_file=ann_file, pipeline=pipeline(decoder), serialize_data=False
    )
    return DATASETS.build(fields | kwargs)


@pytest.mark.parametrize('kind', DEFECTS)
def test_each_defect_is_named(kind, videos):
    assert re.match(DEFECTS[kind], find_defect(str(videos[0][kind])))


def raised_by(library: str, path: str) -> Exception:
    """Return an error whose innermost frame is in a module of a library."""
    try:
        exec(compile('1 / 0', path, 'exec'), {'__name__': f'{library}.module'})
    except ZeroDivisionError as error:
        return error


@pytest.mark.parametrize(
    'library, is_defect', [('decord', True), ('av', True), ('mmaction', False)]
)
def test_error_is_of_the_library_that_raised_it_wherever_that_lies(
    library, is_defect, videos, tmp_path
):
    whole = str(videos[1][0])
    data = dataset(write_list(tmp_path / 'list.txt', [whole]))
    error = raised_by(library, '/home/av/decord/transforms.py')
    defect = data.find_defect_behind(error, whole)
    assert (defect is not None) == is_defect


def test_whole_videos_have_none(videos):
    assert {
        find_defect(str(p), decode) for p in videos[1] for decode in (False, True)
    } == {None}
    assert 'does not exist' in find_defect('/nowhere.mp4')


@pytest.mark.parametrize('live', [False, True])
def test_webm_cut_between_packets_is_truncated(tmp_path, live):
    path = tmp_path / 'a.webm'
    # A live stream is written without its length, and may end anywhere.
    with av.open(str(path), 'w', options=dict(live=str(int(live)))) as container:
        stream = container.add_stream('libvpx', rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 32, 'yuv420p'
        for shade in range(0, 240, 30):
            frame = np.full((32, 32, 3), shade, np.uint8)
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24'))
            )
        container.mux(stream.encode())
    assert find_defect(str(path)) is None
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.size]
    whole = path.read_bytes()
    for packet in packets[3:]:
        end = whole.index(bytes(packet)) + packet.size
        path.write_bytes(whole[:end])
        assert (find_defect(str(path)) is None) == live
        path.write_bytes(whole[:-1])
        assert live or 'its last 1 bytes are missing' in find_defect(str(path))


READERS = [
    ('Decord', 'lm4ve.CheckedVideoDataset'),
    ('PyAV', 'lm4ve.CheckedVideoDataset'),
    ('Decord', 'lm4ve.CheckedRepeatAugDataset'),
]


@pytest.mark.parametrize('decoder, type', READERS)
def test_corrupt_videos_are_replaced_or_left_out(type, decoder, videos, tmp_path):
    broken, whole = videos
    ann_file = write_list(tmp_path / 'list.txt', [*broken.values(), *whole])
    data = dataset(ann_file, decoder, type)
    assert len(data) == 9
    for i in range(9):
        sample = data[i]
        for clip in sample if isinstance(sample, list) else [sample]:
            assert clip['inputs'].shape == (1, 3, 4, 40, 44)
            assert clip['data_samples'].gt_label.item() >= len(broken)
    assert set(data.corrupt_files) == {str(p) for p in broken.values()}
    with pytest.raises(UserError, match='6 of 9 videos are corrupt'):
        dataset(ann_file, decoder, test_mode=True)
    tested = dataset(ann_file, decoder, test_mode=True, on_corrupt='skip')
    labels = [tested[i]['data_samples'].gt_label.item() for i in range(len(tested))]
    assert labels == [6, 7, 8] and tested.num_corrupt == 6


@pytest.mark.parametrize(
    'verify, scans, draws', [(None, 0, 3), (True, 3, 0), (False, 0, 0)]
)
def test_a_training_reads_its_videos_at_the_start_or_as_it_draws_them(
    verify, scans, draws, videos, tmp_path, monkeypatch
):
    read = []

    def note(path, decode):
        read.append(path)
        return find_defect(path, decode)

    monkeypatch.setattr('lm4ve.tasks.video.datasets.video_lists.find_defect', note)
    data = dataset(write_list(tmp_path / 'list.txt', videos[1]), verify=verify)
    assert len(read) == scans
    for i in range(3):
        assert data[i] is not None
    assert len(read) == scans + draws


def test_list_is_parsed_from_the_right(videos, tmp_path):
    whole = videos[1][0]
    spaced = tmp_path / 'a video.mp4'
    spaced.write_bytes(whole.read_bytes())
    (tmp_path / 'list.txt').write_text(f'a video.mp4  3\n\n{spaced} 4\n')
    data = dataset(str(tmp_path / 'list.txt'), data_prefix=dict(video=str(tmp_path)))
    infos = [data.get_data_info(i) for i in range(2)]
    assert [i['label'] for i in infos] == [3, 4] and infos[1]['filename'] == str(spaced)


WRONG_LINES = [
    ('../secret.mp4 0', 'line 2 leads outside'),
    ('a/../../secret.mp4 0', 'line 2 leads outside'),
    ('0.mp4', 'line 2 is no path and label'),
    ('1.mp4 -1', 'line 2 has the label -1'),
    ('1.mp4 -100', 'line 2 has the label -100'),
    ('./0.mp4 1', 'line 2 gives .* the label 1, line 1 the label 0'),
    (f'0.mp4 {10**19}', 'line 2 is no path and label'),
]


def test_missing_video_is_damaged_and_a_missing_folder_refused(videos, tmp_path):
    names = [videos[1][0].name, 'gone.mp4']
    (tmp_path / 'list.txt').write_text(''.join(f'{name} 0\n' for name in names))
    prefix = dict(video=str(videos[1][0].parent))
    data = dataset(str(tmp_path / 'list.txt'), data_prefix=prefix)
    assert len(data) == 2 and data[1]
    with pytest.raises(UserError, match='gone.mp4. does not exist'):
        dataset(str(tmp_path / 'list.txt'), data_prefix=prefix, test_mode=True)
    with pytest.raises(UserError, match='all its other videos do not exist'):
        dataset(str(tmp_path / 'list.txt'), data_prefix=dict(video=str(tmp_path)))


@pytest.mark.parametrize('line, match', WRONG_LINES)
def test_wrong_line_of_a_list_is_named(line, match, videos, tmp_path):
    (tmp_path / 'list.txt').write_text(f'{videos[1][0].name} 0\n{line}\n')
    prefix = dict(video=str(videos[1][0].parent))
    with pytest.raises(UserError, match=match):
        dataset(str(tmp_path / 'list.txt'), data_prefix=prefix)


@pytest.mark.parametrize('ending', ['mp4', 'm3u8'])
def test_playlist_is_no_video(videos, tmp_path, ending):
    (tmp_path / 'whole.mp4').write_bytes(videos[1][0].read_bytes())
    text = 'ffconcat version 1.0\nfile whole.mp4\n'
    if ending == 'm3u8':
        text = '#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\nwhole.mp4\n#EXT-X-ENDLIST\n'
    (tmp_path / f'a.{ending}').write_text(text)
    assert 'a list of other files' in find_defect(str(tmp_path / f'a.{ending}'))


@pytest.fixture(scope='module')
def lists(videos, tmp_path_factory):
    """A list of three videos, and shards of them."""
    root = tmp_path_factory.mktemp('shards')
    entries = [Entry(str(p), p.name, i) for i, p in enumerate(videos[1])]
    write_shards(entries, root, 'val', 2, find_defect)
    return write_list(root / 'list.txt', videos[1]), str(root / 'val.index.json')


@pytest.mark.parametrize('decoder', ['Decord', 'PyAV'])
def test_clips_of_shards_are_those_of_the_list(lists, decoder):
    options = dict(test_mode=True, pipeline=pipeline(decoder, test_mode=True))
    single = dataset(lists[0], **options)
    # The prefix of a config that is overridden plays no part.
    data = dataset(
        lists[1], type='lm4ve.VideoShards', data_prefix=dict(video='x'), **options
    )
    assert len(data) == len(single) == 3 and data.is_scanned()
    for one, other in zip(data, single, strict=True):
        assert np.array_equal(one['inputs'], other['inputs'])
        assert one['data_samples'].gt_label == other['data_samples'].gt_label


def test_repeated_sampling_reads_shards(lists):
    kinds, options = (
        ('CheckedRepeatAugDataset', 'RepeatAugVideoShards'),
        dict(num_repeats=2),
    )
    options['pipeline'] = pipeline(test_mode=True)
    other, one = (
        dataset(path, type=f'lm4ve.{kind}', **options)[1]
        for path, kind in zip(lists, kinds, strict=True)
    )
    assert len(one) == 2 and np.array_equal(one[1]['inputs'], other[1]['inputs'])
