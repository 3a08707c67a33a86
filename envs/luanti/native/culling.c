/*
 * Leaves out triangles that cannot be seen before OpenGL in software spends ten times as long on finding that out.
 *
 * Of the 110,000 triangles that a step in a jungle draws, most face away from the camera or lie beside the picture. Each
 * that is left out here would have been left out by OpenGL, so that pictures are the same bit for bit. What is so near
 * to the edge that rounding could decide is left to OpenGL, and so is every draw of another kind than the map's.
 *
 * The meshes must lie in this process's memory, not in buffers of OpenGL: the setting enable_vbo is off.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    TRIANGLES = 0x0004,
    CULL_MODE = 0x0B45,
    FRONT_FACE = 0x0B46,
    CULL_FACE = 0x0B44,
    VIEWPORT = 0x0BA2,
    MODELVIEW = 0x0BA6,
    PROJECTION = 0x0BA7,
    UNSIGNED_SHORT = 0x1403,
    FLOAT = 0x1406,
    BACK = 0x0405,
    COUNTERCLOCKWISE = 0x0901,
    VERTEX_SIZE = 0x807A,
    VERTEX_TYPE = 0x807B,
    VERTEX_STRIDE = 0x807C,
    VERTEX_POINTER = 0x808E,
    ARRAY_BUFFER = 0x8894,
    ELEMENT_BUFFER = 0x8895,
    PROGRAM = 0x8B8D,
};
enum { FEWEST = 96, LEFT = 1, RIGHT = 2, BELOW = 4, ABOVE = 8, BEHIND = 16 };

#define EDGE_PIXELS 0.02f /* twice the area in pixels below which rounding may turn a triangle over */

/* Where a vertex is in the picture, before the division by `w`, and which sides of it lie beyond. */
struct place {
    float x, y, w;
    uint32_t beyond;
};

static struct {
    void (*draw)(unsigned, int, unsigned, const void *);
    void (*integer)(unsigned, int *);
    void (*number)(unsigned, float *);
    void (*pointer)(unsigned, void **);
    unsigned char (*enabled)(unsigned);
} gl;
static struct place places[65536];
static uint16_t *kept;
static int room;

static int integer(unsigned name) {
    int value = 0;
    gl.integer(name, &value);
    return value;
}

static void find_functions(void) {
    gl.integer = (__typeof__(gl.integer))dlsym(RTLD_NEXT, "glGetIntegerv");
    gl.number = (__typeof__(gl.number))dlsym(RTLD_NEXT, "glGetFloatv");
    gl.pointer = (__typeof__(gl.pointer))dlsym(RTLD_NEXT, "glGetPointerv");
    gl.enabled = (__typeof__(gl.enabled))dlsym(RTLD_NEXT, "glIsEnabled");
    gl.draw = (__typeof__(gl.draw))dlsym(RTLD_NEXT, "glDrawElements");
}

/* Rows x, y and w of projection times modelview. */
static void combine(float rows[3][4]) {
    static const int row[3] = {0, 1, 3};
    float view[16], lens[16];
    gl.number(MODELVIEW, view);
    gl.number(PROJECTION, lens);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
            rows[i][j] = 0;
            for (int k = 0; k < 4; k++) rows[i][j] += lens[4 * k + row[i]] * view[4 * j + k];
        }
}

static void project(const unsigned char *vertices, int stride, int count) {
    float m[3][4];
    combine(m);
    for (int i = 0; i < count; i++) {
        const float *v = (const float *)(vertices + (size_t)i * (size_t)stride);
        float x = m[0][0] * v[0] + m[0][1] * v[1] + m[0][2] * v[2] + m[0][3];
        float y = m[1][0] * v[0] + m[1][1] * v[1] + m[1][2] * v[2] + m[1][3];
        float w = m[2][0] * v[0] + m[2][1] * v[1] + m[2][2] * v[2] + m[2][3];
        float edge = w + 1e-3f * (w < 0 ? -w : w); /* a thousandth further out than where the picture ends */
        places[i] = (struct place){x, y, w,
                                   (uint32_t)(x < -edge) * LEFT | (uint32_t)(x > edge) * RIGHT |
                                       (uint32_t)(y < -edge) * BELOW | (uint32_t)(y > edge) * ABOVE |
                                       (uint32_t)(w < 0) * BEHIND};
    }
}

/* The triangles that may be seen; `front` is 1 or -1 by which way round faces look, or 0 where both sides show. */
static int select_visible(const uint16_t *indices, int count, float front, float least) {
    int left = 0;
    for (int i = 0; i + 2 < count; i += 3) {
        const struct place *a = &places[indices[i]], *b = &places[indices[i + 1]], *c = &places[indices[i + 2]];
        if (a->beyond & b->beyond & c->beyond) continue;
        if (front != 0 && !((a->beyond | b->beyond | c->beyond) & BEHIND)) {
            float area = a->x * (b->y * c->w - c->y * b->w) - a->y * (b->x * c->w - c->x * b->w) +
                         a->w * (b->x * c->y - c->x * b->y);
            if (front * area < -least * a->w * b->w * c->w) continue;
        }
        kept[left] = indices[i];
        kept[left + 1] = indices[i + 1];
        kept[left + 2] = indices[i + 2];
        left += 3;
    }
    return left;
}

void glDrawElements(unsigned mode, int count, unsigned type, const void *indices) {
    if (!gl.draw) find_functions();
    if (mode != TRIANGLES || type != UNSIGNED_SHORT || count < FEWEST || integer(ARRAY_BUFFER) ||
        integer(ELEMENT_BUFFER) || integer(PROGRAM) || integer(VERTEX_SIZE) != 3 || integer(VERTEX_TYPE) != FLOAT) {
        gl.draw(mode, count, type, indices);
        return;
    }
    if (count > room) {
        kept = realloc(kept, (size_t)count * sizeof *kept);
        if (!kept) abort();
        room = count;
    }
    const uint16_t *list = indices;
    int last = 0, viewport[4], stride = integer(VERTEX_STRIDE);
    for (int i = 0; i < count; i++) last = list[i] > last ? list[i] : last;
    void *vertices = NULL;
    gl.pointer(VERTEX_POINTER, &vertices);
    project(vertices, stride ? stride : (int)(3 * sizeof(float)), last + 1);
    float front = 0;
    if (gl.enabled(CULL_FACE) && integer(CULL_MODE) == BACK) front = integer(FRONT_FACE) == COUNTERCLOCKWISE ? 1 : -1;
    gl.integer(VIEWPORT, viewport);
    int left = select_visible(list, count, front, 4 * EDGE_PIXELS / (float)(viewport[2] * viewport[3]));
    if (left) gl.draw(mode, left, type, kept);
}
