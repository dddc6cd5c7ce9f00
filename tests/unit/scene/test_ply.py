"""PLY files."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dr.errors import BadInput

HEADER = """ply
format {format} 1.0
comment made by hand
element vertex 4
property float x
property float y
property float z
{vertex}element face {faces}
property list uchar int vertex_indices
end_header
"""
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def ascii_ply(faces, vertex="", extra=("",) * 4):
    header = HEADER.format(format="ascii", vertex=vertex, faces=len(faces))
    rows = ["{:g} {:g} {:g} {}".format(*position, more) for position, more in zip(SQUARE, extra, strict=True)]
    rows += [" ".join(map(str, (len(face), *face))) for face in faces]
    return (header + "\n".join(rows) + "\n").encode()


def binary_ply(faces, order):
    name = "binary_little_endian" if order == "<" else "binary_big_endian"
    data = HEADER.format(format=name, vertex="", faces=len(faces)).encode()
    data += b"".join(struct.pack(f"{order}3f", *position) for position in SQUARE)
    return data + b"".join(struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in faces)


@pytest.mark.parametrize("make", [ascii_ply, lambda f: binary_ply(f, "<"), lambda f: binary_ply(f, ">")])
@pytest.mark.parametrize(
    ("faces", "triangles"),
    [
        ([(0, 1, 2)], [[0, 1, 2]]),
        ([(0, 1, 2, 3)], [[0, 1, 2], [0, 2, 3]]),
        ([(3, 2, 1), (0, 1, 2, 3), (0, 1), (1, 2, 3)], [[3, 2, 1], [0, 1, 2], [0, 2, 3], [1, 2, 3]]),
        ([], []),
    ],
)
def test_polygons_become_fans_in_every_encoding(load, make, faces, triangles):
    (mesh,) = load(make(faces)).meshes
    assert mesh.positions.tolist() == [list(position) for position in SQUARE]
    assert mesh.triangles.tolist() == triangles
    assert mesh.normals is None


def test_normals_and_texture_coordinates_are_read(load):
    vertex = "".join(f"property float {name}\n" for name in ("nx", "ny", "nz", "s", "t"))
    (mesh,) = load(ascii_ply([(0, 1, 2)], vertex, ["0 0 2 0.25 0.25"] * 4)).meshes
    assert mesh.normals.tolist() == [[0, 0, 1]] * 4
    assert mesh.uv0.tolist() == [[0.25, 0.75]] * 4


def test_integer_colours_are_srgb_and_float_colours_linear(load):
    rgb = ("red", "green", "blue")
    integers = "".join(f"property uchar {name}\n" for name in rgb)
    floats = "".join(f"property float {name}\n" for name in rgb)
    (bytes_mesh,) = load(ascii_ply([(0, 1, 2)], integers, ["255 128 10"] * 4)).meshes
    (float_mesh,) = load(ascii_ply([(0, 1, 2)], floats, ["1 0.5 0.25"] * 4)).meshes
    expected = [1.0, ((128 / 255 + 0.055) / 1.055) ** 2.4, 10 / 255 / 12.92, 1.0]
    assert bytes_mesh.colors[0] == pytest.approx(expected, abs=2**-23)
    assert float_mesh.colors[0].tolist() == [1, 0.5, 0.25, 1]


def test_other_elements_are_skipped_wherever_they_stand(load):
    header = "ply\nformat binary_little_endian 1.0\nelement edge 2\nproperty list ushort short a\nproperty double w\n"
    header += "element vertex 4\n" + "".join(f"property double {axis}\n" for axis in "xyz")
    header += "element face 1\nproperty uchar flags\nproperty list int uint vertex_index\nend_header\n"
    data = header.encode() + struct.pack("<H2hdHd", 2, 7, 7, 1.5, 0, 2.5)
    data += b"".join(struct.pack("<3d", *position) for position in SQUARE) + struct.pack("<Bi3I", 9, 3, 2, 1, 0)
    (mesh,) = load(data).meshes
    assert mesh.triangles.tolist() == [[2, 1, 0]]
    assert mesh.positions.tolist() == [list(position) for position in SQUARE]


def test_ragged_polygons_of_many_sizes_match_a_plain_loop(load):
    random = np.random.default_rng(3)
    faces = [tuple(random.integers(0, 4, random.integers(0, 9)).tolist()) for _ in range(300)]
    expected = [[face[0], face[i], face[i + 1]] for face in faces for i in range(1, len(face) - 1)]
    (mesh,) = load(binary_ply(faces, "<")).meshes
    assert mesh.triangles.tolist() == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ply\n", b"ply?", "expected a PLY file"),
        (b"end_header", b"end_footer", "expected a line `end_header`"),
        (b"ascii", b"ebcdic", "expected a line `format"),
        (b"float x", b"float q", "expected properties x, y, z in element vertex"),
        (b"float y", b"float x", "line 6: expected each property once"),
        (b"element face", b"element fans", "expected elements `vertex` and `face`"),
        (b"element face", b"element vertex", "line 8: expected each element once"),
        (b"float z", b"half z", "line 7: expected `property"),
        (b"vertex 4", b"vertex many", "line 4: expected `element NAME COUNT`"),
        (b"vertex 4", b"vertex \xb2", "line 4: expected `element NAME COUNT`"),
        (b"vertex 4", b"vertex 99999999999", "element vertex: expected 99999999999 records, found fewer"),
        (b"uchar int vertex_indices", b"uchar int indices", "expected a property `list vertex_indices`"),
        (b"\n3 0 1 2", b"\n3 0 1 4", "expected vertex indices below 4, found 4"),
        (b"\n3 0 1 2", b"\n3 0 1 0.5", "expected whole numbers"),
        (b"\n3 0 1 2", b"\n3 0 1 nan", "expected whole numbers"),
        (b"\n3 0 1 2", b"\n-3 0 1 2", "element face: expected 1 records, found fewer"),
        (b"\n3 0 1 2", b"\n1e99 0 1 2", "element face: expected 1 records, found fewer"),
        (b"\n3 0 1 2", b"\n3 0 one 2", "expected numbers after end_header"),
        (b"\n3 0 1 2", b"\n", "element face: expected 1 records, found fewer"),
        (b"\n0 0 0", b"\ninf 0 0", "expected finite numbers in positions"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(load, old, new, message):
    data = ascii_ply([(0, 1, 2)])
    assert data.count(old) >= 1
    with pytest.raises(BadInput) as caught:
        load(data.replace(old, new, 1) if old != b"ply\n" else new + data[4:], None)
    assert str(caught.value).startswith("main.")
    assert message in str(caught.value)
