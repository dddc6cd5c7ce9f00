"""Makes camera rays. Knows the frame's size and the lens; knows no scene behind it."""

from workers.kernels.jit import f32, kernel
from workers.kernels.sampling.warp import concentric_disk
from workers.kernels.vec3 import load_vec3, normalize


@kernel
def camera_ray(scene, px, py, lens1, lens2):
    """Origin and unit direction of the ray through the point (px, py) of the frame, in pixels from the top left."""
    camera = scene.camera
    x = (px / f32(scene.width) * 2.0 - 1.0) * camera.half_width
    y = (f32(1.0) - py / f32(scene.height) * 2.0) * camera.half_height
    right = load_vec3(camera.right)
    up = load_vec3(camera.up)
    forward = load_vec3(camera.forward)
    origin = load_vec3(camera.origin)
    if camera.orthographic != 0:
        origin = origin + right * x + up * y
        target = origin + forward * camera.focus_distance
        direction = forward
    else:
        through = forward + right * x + up * y
        target = origin + through * camera.focus_distance
        direction = normalize(through)
    if camera.aperture_radius > f32(0.0):
        dx, dy = concentric_disk(lens1, lens2)
        origin = origin + right * (dx * camera.aperture_radius) + up * (dy * camera.aperture_radius)
        direction = normalize(target - origin)
    return origin, direction


@kernel
def planar_depth(scene, distance, direction):
    """Distance along the viewing axis, which is what a Z channel holds."""
    forward = load_vec3(scene.camera.forward)
    return distance * (direction.x * forward.x + direction.y * forward.y + direction.z * forward.z)
