from workers.server.engine import Shelf


class Scene:
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


def test_a_scene_is_closed_when_its_frame_is_dropped():
    shelf, scene = Shelf(), Scene()
    shelf.expect(1)
    assert shelf.put(1, scene)
    assert shelf.get(1) is scene
    assert not shelf.drop(1)
    assert (scene.closed, shelf.get(1)) == (1, None)


def test_a_scene_that_comes_too_late_is_closed_at_once():
    shelf, scene = Shelf(), Scene()
    shelf.expect(1)
    assert shelf.drop(1), "it was still being prepared"
    assert not shelf.put(1, scene)
    assert scene.closed == 1
    assert not shelf.drop(1)
