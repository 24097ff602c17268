"""Chunks under way: bounded by the workers that are there."""

import threading

from jobs.streaming.room import CHUNKS_AHEAD, Room


def fill(room: Room) -> int:
    taken = 0
    while room.take(timeout=0):
        taken += 1
    return taken


def test_there_is_room_for_a_few_chunks_of_each_worker() -> None:
    room = Room(2)
    assert fill(room) == 2 * CHUNKS_AHEAD
    room.give_back()
    assert fill(room) == 1


def test_room_grows_with_the_workers() -> None:
    room = Room(1)
    fill(room)
    room.resize(3)
    assert fill(room) == 2 * CHUNKS_AHEAD


def test_with_fewer_workers_chunks_are_finished_before_others_begin() -> None:
    room = Room(2)
    fill(room)
    room.resize(1)
    for _ in range(CHUNKS_AHEAD):
        assert not room.take(timeout=0)
        room.give_back()
    assert not room.take(timeout=0)
    room.give_back()
    assert fill(room) == 1


def test_who_waits_is_woken_when_a_worker_comes() -> None:
    room = Room(0)
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(room.take(timeout=60)))
    waiting.start()
    room.resize(1)
    waiting.join(timeout=30)
    assert got == [True]
