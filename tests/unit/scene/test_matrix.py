"""4x4 transforms."""

from __future__ import annotations

import numpy as np
import pytest

from dr.scene import matrix, trig

EXACT = 1e-15  # a handful of roundings of numbers around 1


def test_a_product_of_integers_is_exact():
    a, b = np.random.default_rng(2).integers(-9, 9, (2, 4, 4)).astype(float)
    assert (matrix.multiply(a, b) == a @ b).all()


def test_a_rotation_turns_by_the_right_hand():
    quarter = matrix.rotation((0.0, 2.0, 0.0), trig.radians(90.0))
    assert matrix.transform_vector(quarter, (0.0, 0.0, 1.0)) == pytest.approx((1.0, 0.0, 0.0), abs=EXACT)


def test_a_quaternion_of_any_length_is_the_same_rotation():
    a, b = (matrix.from_quaternion((s * 0.1, s * 0.2, s * 0.3, s * 0.9)) for s in (1.0, 4.0))
    assert np.abs(a - b).max() <= EXACT
    assert np.abs(a[:3, :3] @ a[:3, :3].T - np.eye(3)).max() <= EXACT


def test_a_camera_looks_at_its_target_with_up_upwards():
    camera = matrix.look_at((1.0, 2.0, 3.0), (1.0, 2.0, -5.0), (0.0, 1.0, 0.0))
    assert (camera == matrix.translation((1.0, 2.0, 3.0))).all()


def test_looking_along_up_has_no_answer():
    with pytest.raises(ValueError, match="direction"):
        matrix.look_at((0.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 1.0, 0.0))


def test_a_camera_frame_loses_scale_and_mirror_but_not_its_view():
    mirrored = matrix.multiply(matrix.translation((1, 2, 3)), matrix.scaling((-2.0, 3.0, 4.0)))
    frame = matrix.without_scale(mirrored)
    assert (frame == matrix.translation((1, 2, 3))).all()
    assert matrix.determinant(frame) == 1.0
    assert matrix.determinant(mirrored) == -24.0


def test_an_inverse_takes_every_point_back():
    random = np.random.default_rng(4)
    transform = np.eye(4)
    transform[:3] = random.uniform(-2, 2, (3, 4))
    back = matrix.inverse(transform)
    error = 4 * np.linalg.cond(transform) * np.finfo(float).eps
    assert np.abs(back @ transform - np.eye(4)).max() <= error
    assert np.abs(matrix.cofactors(transform).T - back[:3, :3] * matrix.determinant(transform)).max() <= error
