"""Which packets hold the wanted pictures and those that they depend on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.video.index import FrameIndex, Packet, list_packets, timed_by_order
from xclip_runtime.video.packets import Role

KEY, REFERENCE, DROPPABLE = Role(True, True, False), Role(False, False, False), Role(False, False, True)


def index_of(*packets):
    return FrameIndex.from_packets([Packet(float(time), role, 100) for time, role in packets])


def test_packets_whose_times_are_no_identity_make_no_index():
    assert index_of() is None
    assert index_of((0, KEY), (0, REFERENCE)) is None
    assert index_of((0, KEY), ("nan", REFERENCE)) is None
    assert index_of((0, REFERENCE), (1, KEY)) is None


def test_packets_that_do_not_begin_with_the_first_frame_make_no_index():
    assert index_of((2, KEY), (0, REFERENCE), (1, REFERENCE)) is None
    assert index_of((0, KEY), (-2, REFERENCE), (-1, REFERENCE)) is not None


@pytest.mark.parametrize(
    ("stored", "shown"),
    [("I", [0]), ("IPPI", [0, 1, 2, 3]), ("IPBBPBBIBBP", [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 10]), ("IPB", [0, 2, 1])],
)
def test_the_order_of_packets_stands_in_for_their_times(stored, shown):
    roles = {"I": KEY, "P": REFERENCE, "B": DROPPABLE}
    timed = timed_by_order([Packet(math.nan, roles[kind], 100) for kind in stored], 40.0)
    assert [packet.time for packet in timed] == [40.0 * turn for turn in shown]


@pytest.mark.parametrize(
    ("roles", "given_up"),
    [
        ([KEY, *[REFERENCE] * 9], True),
        ([KEY, *[REFERENCE] * 3, DROPPABLE, *[REFERENCE] * 5], False),
        ([KEY, *[REFERENCE] * 3, KEY, *[REFERENCE] * 5], False),
        ([KEY, *[REFERENCE] * 4], False),
    ],
)
def test_packets_are_listed_until_nothing_may_be_left_out(roles, given_up):
    taken = []
    packets = (taken.append(1) or Packet(0.0, role, 100) for role in roles)
    listed = list_packets(packets, patience=5)
    assert listed is None if given_up else len(listed) == len(roles)
    assert len(taken) == (6 if given_up else len(roles))


def test_packets_that_an_edit_list_hides_are_no_frames():
    index = index_of((-2, KEY), (-1, REFERENCE), (0, REFERENCE), (1, KEY), (2, REFERENCE))
    assert index.times.tolist() == [0.0, 1.0, 2.0]
    excerpt = index.excerpt([0])
    assert (excerpt.packets.tolist(), excerpt.shown) == ([0, 1, 2], (0,))
    assert index_of((-2, KEY), (-1, REFERENCE)) is None


def test_an_excerpt_holds_the_references_from_the_last_keyframe_on_and_the_frame_itself():
    # Stored I P B B, I P B B, I P B B; shown 0 3 1 2, 4 7 5 6, …
    group = [(0, KEY), (3, REFERENCE), (1, DROPPABLE), (2, DROPPABLE)]
    index = index_of(*((4 * number + time, role) for number in range(3) for time, role in group))
    excerpt = index.excerpt([2, 9])
    assert excerpt.packets.tolist() == [0, 1, 3, 8, 9, 10]
    assert excerpt.starts == {0, 8}
    assert excerpt.shown == (0, 2, 3, 8, 9, 11)
    assert excerpt.share == pytest.approx(0.5)
    assert index.excerpt([0, 4]).starts == {0, 4}
    assert index.excerpt(range(12)).starts == {0}


def test_pictures_before_an_open_keyframe_need_the_group_before():
    # Stored I P, I b B P: the last keyframe is shown after the two pictures that follow it.
    opened = Role(True, False, False)
    index = index_of((0, KEY), (1, REFERENCE), (4, opened), (3, REFERENCE), (2, DROPPABLE), (5, REFERENCE))
    assert index.excerpt([2]).packets.tolist() == [0, 1, 2, 3, 4]
    assert index.excerpt([2]).starts == {0}
    alone = index.excerpt([5])
    assert (alone.packets.tolist(), alone.starts) == ([2, 3, 5], {2})
    assert (alone.shown, alone.optional) == ((4, 5), {3})


DROPPABLE_ENTRY = Role(True, False, True)
ROLES = st.lists(st.sampled_from([KEY, REFERENCE, DROPPABLE, DROPPABLE_ENTRY]), min_size=1, max_size=60).map(
    lambda roles: [KEY, *roles]
)


@given(ROLES, st.data(), st.integers(1, 5))
def test_groups_of_pictures_depend_on_different_packets_and_on_all_together(roles, data, most):
    index = index_of(*enumerate(roles))
    frames = data.draw(st.sets(st.integers(0, len(roles) - 1), min_size=1))
    groups = index.split(frames, most)
    assert sorted(frame for group in groups for frame in group) == sorted(frames)
    assert 1 <= len(groups) <= most
    packets = [place for group in groups for place in index.excerpt(group).packets.tolist()]
    assert packets == index.excerpt(frames).packets.tolist()


def test_groups_of_pictures_take_about_the_same_work():
    index = index_of(*((number, KEY if number % 10 == 0 else REFERENCE) for number in range(100)))
    assert index.split(range(5, 100, 10), 2) == [[5, 15, 25, 35, 45], [55, 65, 75, 85, 95]]
    assert [len(group) for group in index.split(range(5, 100, 10), 3)] == [3, 4, 3]
    # One long stretch takes as much as the ten short ones behind it.
    assert index.split([9, *range(10, 100, 10)], 2) == [[9], list(range(10, 100, 10))]


def test_a_last_picture_that_none_depends_on_is_in_the_last_group():
    index = index_of((0, KEY), (1, KEY), (2, DROPPABLE_ENTRY))
    assert index.split([0, 1, 2], 2) == [[0], [1, 2]]


def test_pictures_of_one_stretch_stay_together():
    index = index_of((0, KEY), *((number, REFERENCE) for number in range(1, 100)))
    assert index.split([5, 50, 95], 4) == [[5, 50, 95]]
