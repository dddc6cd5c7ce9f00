"""render_bucket: the only door from Python into the kernels."""

from workers.kernels.camera import camera_ray
from workers.kernels.film import add_chunk, chunk_sums, clear_pixel, take_first_sample
from workers.kernels.integrators.path import trace_path
from workers.kernels.jit import f32, kernel, u32
from workers.kernels.records import SAMPLE_CHUNK, floats
from workers.kernels.sampling.filter import filter_sample
from workers.kernels.sampling.sobol import pixel_hash, sample_2d

DONE = 0
CANCELLED = 1
BOX = 0  # dr.scene.model.PixelFilter


@kernel
def filter_offset(scene, u):
    """Where in the pixel filter's footprint a sample falls, in pixels from the pixel's centre."""
    if scene.pixel_filter == BOX:
        return u - f32(0.5)
    return filter_sample(floats(scene.filter_table), scene.filter_radius, u)


@kernel
def render_sample(scene, x, y, pixel, sample, film):
    u1, u2 = sample_2d(pixel, sample, u32(0))
    px = f32(x) + f32(0.5) + filter_offset(scene, u1)
    py = f32(y) + f32(0.5) + filter_offset(scene, u2)
    lens1 = f32(0.0)
    lens2 = f32(0.0)
    if scene.camera.aperture_radius > f32(0.0):
        lens1, lens2 = sample_2d(pixel, sample, u32(1))
    origin, direction = camera_ray(scene, px, py, lens1, lens2)
    trace_path(scene, origin, direction, pixel, sample, film)


@kernel
def render_chunk(scene, x, y, pixel, begin, end, chunk):
    """Sums samples [begin, end) of one pixel into `chunk`, f4[FILM_CHANNELS]."""
    clear_pixel(chunk, begin)
    for sample in range(begin, end):
        render_sample(scene, x, y, pixel, u32(sample), chunk)


@kernel
def render_bucket(scene, x0, y0, width, height, sample_begin, sample_end, film, cancel):
    """Renders a rectangle of full-frame pixels and a range of samples.

    scene: record of dtype SCENE. film: f4[layer, height, width, FILM_CHANNELS], overwritten: one layer with all chunks
    added in order when `sample_begin` is 0, else one layer per chunk of SAMPLE_CHUNK samples. cancel: u1[1], looked at
    once per pixel row. Returns DONE or CANCELLED.
    """
    chunk = chunk_sums()
    for row in range(height):
        if cancel[0] != 0:
            return CANCELLED
        y = y0 + row
        for column in range(width):
            x = x0 + column
            pixel = pixel_hash(u32(x), u32(y), u32(scene.seed))
            if sample_begin == 0:
                clear_pixel(film[0, row, column], sample_begin)
            for begin in range(sample_begin, sample_end, SAMPLE_CHUNK):
                end = min(begin + SAMPLE_CHUNK, sample_end)
                render_chunk(scene, x, y, pixel, begin, end, chunk)
                if sample_begin == 0:
                    add_chunk(film[0, row, column], chunk)
                    if begin == 0:
                        take_first_sample(film[0, row, column], chunk)
                else:
                    layer = (begin - sample_begin) // SAMPLE_CHUNK
                    clear_pixel(film[layer, row, column], begin)
                    add_chunk(film[layer, row, column], chunk)
    return DONE
