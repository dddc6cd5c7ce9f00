from workers.server.engine import Shelf


class Scene:
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


def test_a_scene_is_closed_when_its_frame_is_dropped():
    shelf, scene = Shelf(), Scene()
    assert shelf.put(1, shelf.expect(1), scene)
    assert shelf.get(1) is scene
    assert shelf.drop(1) is None
    assert (scene.closed, shelf.get(1)) == (1, None)


def test_a_scene_that_comes_too_late_is_closed_at_once():
    shelf, scene = Shelf(), Scene()
    ticket = shelf.expect(1)
    assert shelf.drop(1) == ticket, "it was still being prepared"
    assert not shelf.put(1, ticket, scene)
    assert scene.closed == 1
    assert shelf.drop(1) is None


def test_an_epoch_that_comes_back_does_not_get_the_scene_of_its_first_preparation():
    shelf, late, scene = Shelf(), Scene(), Scene()
    first = shelf.expect(1)
    shelf.drop(1)
    second = shelf.expect(1)
    assert not shelf.put(1, first, late)
    assert (late.closed, shelf.get(1)) == (1, None)
    assert shelf.put(1, second, scene)
    assert shelf.get(1) is scene
