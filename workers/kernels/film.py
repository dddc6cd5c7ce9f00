"""How samples become a pixel: summed in chunks of SAMPLE_CHUNK, chunks added in index order.

Any split of the samples at a chunk's border therefore gives the same bits. Depth and object id are not summed.
"""

from workers.kernels.jit import f32, kernel, stack_array
from workers.kernels.records import FILM_CHANNELS, FILM_DEPTH, FILM_OBJECT_ID

chunk_sums = stack_array("f4", FILM_CHANNELS)

MISS_DEPTH = f32("inf")


@kernel
def clear_pixel(film, sample_begin):
    """An empty pixel. Only the part that holds sample 0 says 'nothing hit' in depth; other parts leave it 0."""
    for channel in range(FILM_CHANNELS):
        film[channel] = f32(0.0)
    if sample_begin == 0:
        film[FILM_DEPTH] = MISS_DEPTH


@kernel
def add_chunk(film, chunk):
    """Adds a chunk's sums to a pixel; depth and object id are taken by `take_first_sample` instead."""
    for channel in range(FILM_CHANNELS):
        if channel != FILM_DEPTH and channel != FILM_OBJECT_ID:
            film[channel] += chunk[channel]


@kernel
def take_first_sample(film, chunk):
    """Depth and object id of sample 0."""
    film[FILM_DEPTH] = chunk[FILM_DEPTH]
    film[FILM_OBJECT_ID] = chunk[FILM_OBJECT_ID]
