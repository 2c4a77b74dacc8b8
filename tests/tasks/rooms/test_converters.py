"""SQA3D's names to ours and back, and the same logits as a plain computation."""

import json

import pytest
import torch

from lm4ve.tasks.rooms.converters import convert_sqa3d, to_sqa3d
from tests.helpers.tools import run_tool_here
from tests.tasks.rooms import released
from tests.tasks.rooms.tiny import CORPUS, batch, build

UNCALLED = ('s_feat_linear', 'q_feat_linear', 'attflat_lstm_q', 'object_cls')

#: The error of whoever notices.
REFUSED = (ValueError, LookupError, TypeError, RuntimeError, OSError)


def prepared(head='answer_cls', objects='some'):
    """A released state in which some proposals are objects, or none; model and inputs.

    Batch norms have the statistics of these inputs: with random ones, proposals would
    hardly differ, and nothing that tells them apart would be felt.
    """
    state, model = released.random_state(head), build()
    inputs = model.data_preprocessor(batch())['inputs']
    model.load_state_dict(convert_sqa3d(state, answers=CORPUS), strict=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
    model.encode_objects(inputs)
    learned = to_sqa3d(model.eval().state_dict())
    state |= {k: v.clone() for k, v in learned.items() if '.running_' in k}
    scores = model.encode_objects(inputs).detections.objectness
    shift = (scores[..., 1] - scores[..., 0]).median() + 1e-3
    # Where nothing is an object, the release takes the mean over everything.
    state['proposal_net.proposal.6.bias'][0] += shift if objects == 'some' else 100.0
    model.load_state_dict(convert_sqa3d(state, answers=CORPUS), strict=True)
    return state, model, inputs


@torch.no_grad()
@pytest.mark.parametrize('head', ['answer_cls', 'lang_cls'])
@pytest.mark.parametrize('objects', ['some', 'none'])
def test_logits_are_those_of_a_plain_computation(head, objects):
    state, model, inputs = prepared(head, objects)
    logits = model.head(model(inputs))
    samples = model(inputs, None, 'predict')
    found = model.encode_objects(inputs)
    kinds = set()
    for i in range(2):
        words = [inputs[k][i, ~inputs[f'{k}_padding'][i]] for k in ('situation', 'question')]
        expected, pose, there = released.scores(state, inputs['points'][i], *words, head)
        torch.testing.assert_close(logits[i], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(samples[i].pred_pose, pose, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(samples[i].pred_scores, expected.sigmoid())
        assert torch.equal(~found.padding[i], there)
        kinds |= set(there.tolist())
    assert kinds == ({True, False} if objects == 'some' else {False})


@torch.no_grad()
def test_the_comparison_feels_every_weight_that_can_matter():
    """Other numbers in one tensor change logits, poses, or what is said of proposals."""
    torch.manual_seed(0)
    _, model, inputs = prepared()

    said = []
    model.object_encoder.head.out.register_forward_hook(lambda m, x, out: said.append(out))

    def outputs():
        samples = model(inputs, None, 'predict')
        found = [torch.cat((s.pred_scores.logit(), s.pred_pose)) for s in samples]
        return torch.cat((said.pop().flatten(), *found))

    before, unfelt = outputs(), []
    for name, tensor in model.named_parameters():
        if name.endswith('key.bias') or '.weigh.3.bias' in name:
            continue  # a softmax does not see it
        if name.endswith('query.bias') or 'pools.objects.weigh' in name:
            continue  # objects are alike after the fusion; of texts, the same code is felt
        kept = tensor.clone()
        tensor.add_(torch.randn_like(tensor) * 0.5)
        if (outputs() - before).abs().max() <= 5e-6:
            unfelt.append(name)
        tensor.copy_(kept)
    assert not unfelt


def test_back_in_the_released_names_every_called_weight_is_as_it_was():
    state = released.random_state()
    again = to_sqa3d(convert_sqa3d(state, answers=CORPUS))
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}
    called = [k for k in state if not k.startswith(UNCALLED)]
    assert all(torch.equal(again[k], state[k]) for k in called) and len(called) > 150


def test_other_files_are_refused_in_one_message():
    state = released.random_state()
    with pytest.raises(REFUSED):
        convert_sqa3d(state)
    with pytest.raises(REFUSED):
        convert_sqa3d(state, answers=['yes', 'no'])
    with pytest.raises(REFUSED):
        convert_sqa3d(state, llm='x', answers=CORPUS)
    with pytest.raises(REFUSED):
        convert_sqa3d({**state, 'voting_net.conv4.weight': torch.zeros(1)}, answers=CORPUS)
    blind = {**state, 'answer_cls.0.weight': torch.zeros(16, 24)}
    with pytest.raises(REFUSED):
        convert_sqa3d(blind, answers=CORPUS)
    del state['voting_net.conv3.weight']
    with pytest.raises(REFUSED):
        convert_sqa3d(state, answers=CORPUS)
    with pytest.raises(REFUSED):
        to_sqa3d(build(neck=True).state_dict())
    with pytest.raises(REFUSED):
        to_sqa3d(build(fusion=dict(type='lm4ve.GuidedFusion', embed_dims=16, num_heads=2,
                                   norm='layer')).state_dict())  # fmt: skip


def test_the_tool_goes_both_ways(tmp_path):
    tool = 'vision_language/convert_checkpoint.py'
    state = released.random_state('lang_cls')
    torch.save(state, tmp_path / 'model.pth')
    (tmp_path / 'answer_counter.json').write_text(json.dumps(CORPUS))
    paths = [str(tmp_path / n) for n in ('model.pth', 'ours.pth', 'back.pth')]
    run_tool_here(tool, *paths[:2], '--answers', tmp_path / 'answer_counter.json')
    build().load_state_dict(torch.load(paths[1], weights_only=True)['state_dict'])
    run_tool_here(tool, *paths[1:], '--reverse')
    again = torch.load(paths[2], weights_only=True)['state_dict']
    assert torch.equal(again['answer_cls.3.weight'], state['lang_cls.3.weight'])
