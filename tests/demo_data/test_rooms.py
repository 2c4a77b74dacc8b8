"""Rooms as drawn, before any file; the tests of the task read them back."""

import numpy as np

from lm4ve.demo_data import rooms as r


def test_a_room_follows_from_its_seed():
    first, again, other = (r.draw_room(np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.alignment, again.alignment)
    assert [ask.question for ask in first.asked] == [a.question for a in again.asked]
    assert not np.array_equal(first.points[:9], other.points[:9])


def test_points_belong_to_things_on_their_places():
    for seed in range(5):
        room = r.draw_room(np.random.default_rng(seed))
        assert {thing.place for thing in room.things} == {0, 1, 2, 3}
        for number, thing in enumerate(room.things):
            cloud = room.points[room.parts == number]
            assert len(cloud) == r.SHAPE_POINTS
            away = cloud[:, :2].mean(axis=0) @ r.DIRECTIONS[thing.place]
            assert 1 < away < 2
        assert (room.parts == -1).sum() == r.FLOOR_POINTS
        assert (room.parts == -2).sum() == r.WALL_POINTS


def test_what_is_asked_has_one_answer():
    room = r.draw_room(np.random.default_rng(3))
    assert len(room.asked) == r.QUESTIONS
    for ask in room.asked:
        known = {}
        for question in r.questions_of(room.things, ask.looks):
            assert known.setdefault(question.text, question.answer) == question.answer
        assert known[ask.question] == ask.answer
        assert r.PLACES[ask.looks] in ask.situation


def test_a_scan_is_the_room_in_another_frame():
    room = r.draw_room(np.random.default_rng(4))
    aligned = room.points[:, :3].astype(np.float64)
    scan = r.to_scan(aligned, room.alignment)
    back = scan @ room.alignment[:3, :3].T + room.alignment[:3, 3]
    np.testing.assert_allclose(back, aligned, atol=1e-5)
