"""Where a ray met a triangle: point, normals, texture coordinates. Knows no material and no light.

Barycentrics (b1, b2) weigh p1 and p2; p0 gets 1 - b1 - b2. Hits in an instance are taken to the world here.
"""

import math

from workers.kernels.jit import f32, i32, inner_kernel, kernel
from workers.kernels.records import COLOR, SMOOTH, TANGENT, instances, vertices
from workers.kernels.vec3 import cross, dot, load_vec3, normalize, vec3

OFFSET = f32(1.5e-5)  # of the largest coordinate: about 250 ulp, more than the error of a hit point


@kernel
def transform_direction(matrix, d):
    """`matrix` f4[12], rows of a 3x4 matrix, on a direction."""
    return vec3(
        matrix[0] * d.x + matrix[1] * d.y + matrix[2] * d.z,
        matrix[4] * d.x + matrix[5] * d.y + matrix[6] * d.z,
        matrix[8] * d.x + matrix[9] * d.y + matrix[10] * d.z,
    )


@kernel
def transform_point(matrix, p):
    """The same on a point."""
    return transform_direction(matrix, p) + vec3(matrix[3], matrix[7], matrix[11])


@kernel
def normal_to_world(to_object, n):
    """Normals go by the inverse transpose, which keeps the front of a mirrored mesh its front."""
    return vec3(
        to_object[0] * n.x + to_object[4] * n.y + to_object[8] * n.z,
        to_object[1] * n.x + to_object[5] * n.y + to_object[9] * n.z,
        to_object[2] * n.x + to_object[6] * n.y + to_object[10] * n.z,
    )


@inner_kernel
def hit_point(scene, triangle, instance, b1, b2):
    """World position and unit geometric normal (of the front) of a hit."""
    p0 = load_vec3(triangle.p0)
    e1 = load_vec3(triangle.p1) - p0
    e2 = load_vec3(triangle.p2) - p0
    p = p0 + e1 * b1 + e2 * b2
    normal = cross(e1, e2)
    if instance >= 0:
        placed = instances(scene.instances)[instance]
        p = transform_point(placed.to_world, p)
        normal = normal_to_world(placed.to_object, normal)
    squared = dot(normal, normal)
    if squared <= f32(0.0):  # products of tiny edges underflow: scale first
        normal = cross(normalize(e1), normalize(e2))
        if instance >= 0:
            normal = normal_to_world(instances(scene.instances)[instance].to_object, normal)
    return p, normalize(normal)


@kernel
def hit_uv(scene, triangle, b1, b2):
    """Both texture coordinate sets at a hit: (u0, v0, u1, v1)."""
    corners = vertices(scene.vertices)
    a = corners[triangle.vertices[0]].uv
    b = corners[triangle.vertices[1]].uv
    c = corners[triangle.vertices[2]].uv
    b0 = f32(1.0) - b1 - b2
    return (
        a[0] * b0 + b[0] * b1 + c[0] * b2,
        a[1] * b0 + b[1] * b1 + c[1] * b2,
        a[2] * b0 + b[2] * b1 + c[2] * b2,
        a[3] * b0 + b[3] * b1 + c[3] * b2,
    )


@kernel
def hit_color(scene, triangle, b1, b2):
    """Vertex colour and alpha at a hit; white where there is none."""
    if triangle.flags & COLOR == 0:
        return vec3(1.0, 1.0, 1.0), f32(1.0)
    corners = vertices(scene.vertices)
    a = corners[triangle.vertices[0]].color
    b = corners[triangle.vertices[1]].color
    c = corners[triangle.vertices[2]].color
    b0 = f32(1.0) - b1 - b2
    color = vec3(
        a[0] * b0 + b[0] * b1 + c[0] * b2, a[1] * b0 + b[1] * b1 + c[1] * b2, a[2] * b0 + b[2] * b1 + c[2] * b2
    )
    return color, a[3] * b0 + b[3] * b1 + c[3] * b2


@inner_kernel
def shading_normal(scene, triangle, instance, b1, b2, geometric):
    """Unit interpolated vertex normal in the world; the geometric normal where the mesh is flat."""
    if triangle.flags & SMOOTH == 0:
        return geometric
    corners = vertices(scene.vertices)
    b0 = f32(1.0) - b1 - b2
    normal = (
        load_vec3(corners[triangle.vertices[0]].normal) * b0
        + load_vec3(corners[triangle.vertices[1]].normal) * b1
        + load_vec3(corners[triangle.vertices[2]].normal) * b2
    )
    if instance >= 0:
        normal = normal_to_world(instances(scene.instances)[instance].to_object, normal)
    squared = dot(normal, normal)
    if not squared > f32(1e-20):
        return geometric
    return normal * (f32(1.0) / math.sqrt(squared))


@kernel
def shading_tangent(scene, triangle, instance, b1, b2):
    """Interpolated vertex tangent in the world, not normalised, and its handedness; zero where there is none."""
    if triangle.flags & TANGENT == 0:
        return vec3(0.0, 0.0, 0.0), f32(1.0)
    corners = vertices(scene.vertices)
    a = corners[triangle.vertices[0]].tangent
    b = corners[triangle.vertices[1]].tangent
    c = corners[triangle.vertices[2]].tangent
    b0 = f32(1.0) - b1 - b2
    tangent = vec3(
        a[0] * b0 + b[0] * b1 + c[0] * b2, a[1] * b0 + b[1] * b1 + c[1] * b2, a[2] * b0 + b[2] * b1 + c[2] * b2
    )
    handedness = a[3]
    if instance >= 0:
        placed = instances(scene.instances)[instance]
        tangent = transform_direction(placed.to_world, tangent)
        if placed.mirrored != 0:
            handedness = -handedness
    return tangent, handedness


@inner_kernel
def offset_point(scene, p, normal):
    """`p` moved off its surface along the unit `normal`, enough that a ray from it does not hit the surface again."""
    largest = max(max(abs(p.x), abs(p.y)), max(abs(p.z), scene.scene_radius * f32(0.03)))
    return p + normal * (largest * OFFSET)


@kernel
def hit_object_id(scene, triangle, instance):
    if instance >= 0:
        return i32(instances(scene.instances)[instance].object_id)
    return i32(triangle.object_id)


@inner_kernel
def hit_material(scene, triangle, instance):
    """Row of SCENE.materials: an instance may wear another material than its mesh."""
    if instance >= 0:
        return i32(instances(scene.instances)[instance].material)
    return i32(triangle.material)
