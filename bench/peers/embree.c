/* Calls Embree 4 once per ray in a plain loop, as the kernels are called. Declares only what it uses of rtcore.h. */
#include <stddef.h>
#include <stdint.h>

typedef struct __attribute__((aligned(16))) {
    float origin[3], tnear, direction[3], time, tfar;
    uint32_t mask, id, flags;
} Ray;

typedef struct __attribute__((aligned(16))) {
    Ray ray;
    float normal[3], u, v;
    uint32_t primitive, geometry, instance, instance_primitive, unused[7];
} RayHit;

void *rtcNewDevice(const char *);
void *rtcNewScene(void *);
void *rtcNewGeometry(void *, int);
void rtcSetSceneFlags(void *, int);
void rtcSetSceneBuildQuality(void *, int);
void rtcSetSharedGeometryBuffer(void *, int, unsigned, int, const void *, size_t, size_t, size_t);
void rtcCommitGeometry(void *);
unsigned rtcAttachGeometry(void *, void *);
void rtcCommitScene(void *);
void rtcIntersect1(void *, RayHit *, void *);
void rtcOccluded1(void *, Ray *, void *);

enum { TRIANGLES = 0, INDEX_BUFFER = 0, VERTEX_BUFFER = 1, UINT3 = 0x5003, FLOAT3 = 0x9003, ROBUST = 4, MEDIUM = 1 };

/* One robust scene of n triangles f4[n, 3, 3]; `positions` needs 4 bytes of padding behind it. */
void *new_scene(const float *positions, const uint32_t *indices, size_t n) {
    void *device = rtcNewDevice("threads=1,user_threads=1"), *scene = rtcNewScene(device);
    void *mesh = rtcNewGeometry(device, TRIANGLES);
    rtcSetSceneFlags(scene, ROBUST);
    rtcSetSceneBuildQuality(scene, MEDIUM);
    rtcSetSharedGeometryBuffer(mesh, VERTEX_BUFFER, 0, FLOAT3, positions, 0, 12, 3 * n);
    rtcSetSharedGeometryBuffer(mesh, INDEX_BUFFER, 0, UINT3, indices, 0, 12, n);
    rtcCommitGeometry(mesh);
    rtcAttachGeometry(scene, mesh);
    return scene;
}

static Ray ray_at(const float *origins, const float *directions, const float *tmax, size_t i) {
    const float *o = origins + 3 * i, *d = directions + 3 * i;
    Ray ray = {{o[0], o[1], o[2]}, 0, {d[0], d[1], d[2]}, 0, tmax[i], UINT32_MAX, 0, 0};
    return ray;
}

void closest(void *scene, const float *o, const float *d, const float *tmax, size_t n, int32_t *primitive, float *t) {
    for (size_t i = 0; i < n; i++) {
        RayHit hit = {.ray = ray_at(o, d, tmax, i), .primitive = -1, .geometry = -1, .instance = -1};
        rtcIntersect1(scene, &hit, 0);
        primitive[i] = (int32_t)hit.primitive;
        t[i] = hit.ray.tfar;
    }
}

void occluded(void *scene, const float *o, const float *d, const float *tmax, size_t n, uint8_t *hit) {
    for (size_t i = 0; i < n; i++) {
        Ray ray = ray_at(o, d, tmax, i);
        rtcOccluded1(scene, &ray, 0);
        hit[i] = ray.tfar < 0;
    }
}
