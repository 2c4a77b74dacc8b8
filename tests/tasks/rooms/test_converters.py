"""SQA3D's names to ours, and the same logits as a plain computation."""

import json

import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.rooms.converters import convert_sqa3d
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.released import numbered, sizes_by_number
from tests.helpers.rooms import released
from tests.helpers.rooms.tiny import CORPUS, batch, build
from tests.helpers.tools import convert_here

#: Beginnings of the names of weights that the release has but never uses.
UNCALLED = ('s_feat_linear', 'q_feat_linear', 'attflat_lstm_q', 'object_cls')


def names_of_statistics(state):
    """Return the released name of each running statistic, and ours."""
    ours = convert_sqa3d(numbered(state), CORPUS)
    by_number = {int(v.flatten()[0]): k for k, v in ours.items() if '.running_' in k}
    numbers = {name: number for number, name in enumerate(state)}
    return {k: by_number[n] for k, n in numbers.items() if n in by_number}


def prepared(objects='some'):
    """A released state in which some proposals are objects, or none; model and inputs.

    Batch norms have the statistics of these inputs: with random ones, proposals would
    hardly differ, and nothing that tells them apart would be felt.
    """
    state, model = released.random_state(), build()
    inputs = model.data_preprocessor(batch())['inputs']
    model.load_state_dict(convert_sqa3d(state, CORPUS), strict=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
    model.encode_objects(inputs)
    learned = model.eval().state_dict()
    for theirs, ours in names_of_statistics(state).items():
        state[theirs] = learned[ours].clone()
    scores = model.encode_objects(inputs).detections.objectness
    shift = (scores[..., 1] - scores[..., 0]).median() + 1e-3
    # Where nothing is an object, the release takes the mean over everything.
    state['proposal_net.proposal.6.bias'][0] += shift if objects == 'some' else 100.0
    model.load_state_dict(convert_sqa3d(state, CORPUS), strict=True)
    return state, model, inputs


@torch.no_grad()
@pytest.mark.parametrize('objects', ['some', 'none'])
def test_logits_equal_a_plain_computation(objects):
    state, model, inputs = prepared(objects)
    logits = model.head(model(inputs))
    samples = model(inputs, None, 'predict')
    found = model.encode_objects(inputs)
    kinds = set()
    for i in range(2):
        words = [
            inputs[k][i, ~inputs[f'{k}_padding'][i]] for k in ('situation', 'question')
        ]
        expected, pose, there = released.scores(state, inputs['points'][i], *words)
        assert_equal_but_for_rounding(logits[i], expected, model)
        assert_equal_but_for_rounding(samples[i].pred_pose, pose, model)
        assert_equal_but_for_rounding(samples[i].pred_scores, expected.sigmoid(), model)
        assert torch.equal(~found.padding[i], there)
        kinds |= set(there.tolist())
    assert kinds == ({True, False} if objects == 'some' else {False})


OTHERS = [
    ({}, None),
    ({}, ['yes', 'no']),
    ({'voting_net.conv4.weight': torch.zeros(1)}, CORPUS),
    ({'voting_net.conv3.weight': None}, CORPUS),
]


@pytest.mark.parametrize(('changes', 'answers'), OTHERS)
def test_other_released_files_are_refused(changes, answers):
    state = released.random_state() | changes
    with pytest.raises((UserError, TypeError)):
        convert_sqa3d({k: v for k, v in state.items() if v is not None}, answers)


@pytest.mark.parametrize('pose_head', ['aux_reg', 'lang_cls'])
def test_tool_brings_every_used_weight(pose_head, tmp_path):
    """Releases call the head of the pose by one of two names."""
    state = numbered(released.random_state(pose_head))
    answers = tmp_path / 'answer_counter.json'
    answers.write_text(json.dumps(CORPUS))

    ours = convert_here('rooms', tmp_path, state, '--answers', answers)

    build().load_state_dict(ours, strict=True)
    used = {k: v for k, v in state.items() if not k.startswith(UNCALLED)}
    assert len(used) > 150  # else nothing would be compared
    assert sizes_by_number(ours) == sizes_by_number(used)
