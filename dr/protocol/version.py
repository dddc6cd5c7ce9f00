"""Which protocol this code speaks, and the hard limits that every peer may count on."""

PROTOCOL_VERSION = 1
HEADER_BYTES = 64 * 1024
PAYLOAD_FRAME_BYTES = 1 << 20
MAX_PAYLOAD_FRAMES = 64
MAX_MESSAGE_BYTES = PAYLOAD_FRAME_BYTES + 1024  # ZMQ_MAXMSGSIZE, per frame
CHUNK_BYTES = 1 << 20  # asset chunk
SAMPLE_CHUNK = 16  # samples are summed in chunks of this many; a sample range may begin at a multiple of it only
