/* yarnstore.core.encodings._kernels: the transforms of chunks for Python.
 *
 * What each function does is in yarnstore/core/encodings/transforms.py; numpy_kernels.py there is the
 * reference, and gives the same bytes.  This file checks every length before transforms.c reads or writes
 * a byte, and raises ValueError for arguments that do not fit together.  Without the interpreter's lock
 * while it works on more than a few kilobytes.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "shuffles.h"
#include "symbols.h"
#include "transforms.h"

#define VERSION 2 /* of the functions below; kernels.py refuses another */
#define MOST_STREAMS 10
#define MOST_BYTES (1 << 30)     /* positions have 32 bits */
#define FEW_BYTES (16 * 1024)    /* done before another thread could take the lock */
#define MOST_BLOCK_BYTES 1024

typedef struct {
    Py_buffer views[MOST_STREAMS];
    const uint8_t *bytes[MOST_STREAMS];
    size_t count;
} Streams;

#define UNLOCKED(length, work)                                                                            \
    do {                                                                                                  \
        if ((length) > FEW_BYTES) {                                                                       \
            Py_BEGIN_ALLOW_THREADS work;                                                                  \
            Py_END_ALLOW_THREADS                                                                          \
        } else {                                                                                          \
            work;                                                                                         \
        }                                                                                                 \
    } while (0)

static PyObject *refuse(const char *why) {
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

static void close_streams(Streams *streams) {
    while (streams->count) PyBuffer_Release(&streams->views[--streams->count]);
}

/* Take the buffers of a sequence, of exactly these lengths; false with an error set otherwise. */
static int open_streams(PyObject *given, const size_t *lengths, size_t count, Streams *streams) {
    PyObject *items = PySequence_Tuple(given);
    streams->count = 0;
    if (!items) return 0;
    if ((size_t)PyTuple_Size(items) != count) {
        refuse("a wrong number of streams");
    } else {
        while (streams->count < count) {
            Py_buffer *view = &streams->views[streams->count];
            if (PyObject_GetBuffer(PyTuple_GetItem(items, (Py_ssize_t)streams->count), view, PyBUF_SIMPLE)) break;
            streams->bytes[streams->count++] = view->buf;
            if ((size_t)view->len != lengths[streams->count - 1]) {
                refuse("a stream of another length");
                break;
            }
        }
    }
    Py_DECREF(items); /* the views keep what they show */
    if (!PyErr_Occurred()) return 1;
    close_streams(streams);
    return 0;
}

/* A tuple of new bytes objects of these lengths, to be filled through `bytes`. */
static PyObject *new_streams(const size_t *lengths, size_t count, uint8_t **bytes) {
    PyObject *made = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; made && i < count; i++) {
        PyObject *item = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)lengths[i]);
        if (!item || PyTuple_SetItem(made, (Py_ssize_t)i, item)) {
            Py_CLEAR(made);
            break;
        }
        bytes[i] = (uint8_t *)PyBytes_AsString(item);
    }
    return made;
}

static PyObject *list_of(const uint64_t counts[256]) {
    PyObject *list = PyList_New(256);
    for (Py_ssize_t i = 0; list && i < 256; i++) {
        PyObject *item = PyLong_FromUnsignedLongLong(counts[i]);
        if (!item || PyList_SetItem(list, i, item)) Py_CLEAR(list);
    }
    return list;
}

/* --- encoding 2 ------------------------------------------------------------------------------------- */

static int is_plane_width(Py_ssize_t width, Py_ssize_t phase) {
    return (width == 2 || width == 4 || width == 8) && phase >= 0 && phase < width;
}

static PyObject *py_planes_split(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data;
    Py_ssize_t width, phase;
    if (!PyArg_ParseTuple(args, "y*nn", &data, &width, &phase)) return NULL;
    PyObject *made = NULL;
    if (!is_plane_width(width, phase) || data.len > MOST_BYTES) {
        refuse("no such planes");
    } else {
        size_t count = data.len > phase ? (size_t)(data.len - phase) / (size_t)width : 0;
        size_t lengths[8];
        uint8_t *planes[8];
        for (size_t i = 0; i < 8; i++) lengths[i] = count;
        made = new_streams(lengths, (size_t)width, planes);
        if (made) {
            const uint8_t *start = (const uint8_t *)data.buf + (count ? phase : 0);
            UNLOCKED(data.len, planes_split(start, count, (unsigned)width, planes));
        }
    }
    PyBuffer_Release(&data);
    return made;
}

static PyObject *py_planes_join(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given;
    Py_ssize_t plain, width, phase;
    if (!PyArg_ParseTuple(args, "Onnn", &given, &plain, &width, &phase)) return NULL;
    if (!is_plane_width(width, phase) || plain < 0 || plain > MOST_BYTES) return refuse("no such planes");
    size_t count = plain > phase ? (size_t)(plain - phase) / (size_t)width : 0;
    size_t lengths[9];
    size_t rest = (size_t)plain - count * (size_t)width;
    for (size_t i = 0; i < (size_t)width; i++) lengths[i] = count;
    lengths[width] = rest;
    Streams streams;
    if (!open_streams(given, lengths, (size_t)width + 1, &streams)) return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, plain);
    if (made) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(made);
        const uint8_t *others = streams.bytes[width];
        size_t before = rest < (size_t)phase ? rest : (size_t)phase;
        size_t end = before + count * (size_t)width;
        if (before) memcpy(out, others, before);
        if (rest - before) memcpy(out + end, others + before, rest - before);
        UNLOCKED(plain, planes_join(streams.bytes, count, (unsigned)width, out + before));
    }
    close_streams(&streams);
    return made;
}

/* --- encoding 3, numbers ---------------------------------------------------------------------------- */

/* The fields of delta.Element, and the range of sort keys. */
typedef struct {
    Py_ssize_t code, width, bit, mask, low, high;
    int whole;
} Numbers;

static int check_numbers(const Numbers *numbers) {
    Py_ssize_t width = numbers->width, low = numbers->low, high = numbers->high;
    int known = width == 1 || width == 2 || width == 4 || width == 8;
    int keyed = known && width > 1 && numbers->bit >= 0 && numbers->bit < 8 * width;
    if (!known || numbers->mask < 0 || numbers->mask > 255 || (numbers->mask && !keyed)) {
        refuse("no such element");
        return 0;
    }
    if (low < 0 || high > 255 || low > high || (low < high && !numbers->mask)) {
        refuse("no such sort keys");
        return 0;
    }
    return 1;
}

static Element element_of(const Numbers *numbers) {
    Element element = {(unsigned)numbers->width, numbers->mask ? (unsigned)numbers->bit : 0, (unsigned)numbers->mask};
    return element;
}

/* The lengths of the streams of `count` elements; returns how many streams. */
static size_t delta_lengths(const Numbers *numbers, size_t count, size_t *lengths) {
    size_t found = 0, planes = (size_t)numbers->width;
    if (numbers->low < numbers->high && planes == 2 && !numbers->whole) {
        lengths[found++] = (count + 1) / 2;
        lengths[found++] = (count + 1) / 2;
        planes = 1;
    }
    while (planes--) lengths[found++] = count;
    return found;
}

static size_t copy_bytes(size_t count, size_t width) {
    return (count * width + SLACK_BYTES + 63) / 64 * 64;
}

/* Memory for an order of `count` elements, and for `copies` copies of them; NULL with an error set. */
static uint8_t *new_room(Order *order, size_t count, size_t width, size_t copies) {
    size_t copy = copy_bytes(count, width);
    uint8_t *room = malloc(copies * copy + count + 1);
    if (!room) {
        PyErr_NoMemory();
        return NULL;
    }
    order->keys = room + copies * copy;
    return room;
}

static PyObject *list_cuts(const Numbers *numbers, const uint32_t ends[256]) {
    PyObject *cuts = PyList_New(numbers->high - numbers->low);
    for (Py_ssize_t key = numbers->low; cuts && key < numbers->high; key++) {
        PyObject *item = PyLong_FromUnsignedLong(ends[key]);
        if (!item || PyList_SetItem(cuts, key - numbers->low, item)) Py_CLEAR(cuts);
    }
    return cuts;
}

static PyObject *split_numbers(const Py_buffer *data, const Py_buffer *base, const Numbers *numbers) {
    if (data->len > MOST_BYTES || base->len > MOST_BYTES) return refuse("more than a chunk");
    if (!check_numbers(numbers)) return NULL;
    size_t width = (size_t)numbers->width, length = (size_t)(data->len < base->len ? data->len : base->len);
    size_t count = length / width, lengths[9];
    uint8_t *bytes[9];
    size_t found = delta_lengths(numbers, count, lengths);
    PyObject *streams = new_streams(lengths, found, bytes), *cuts = NULL;
    if (!streams) return NULL;
    if (numbers->low == numbers->high) {
        UNLOCKED(length, delta_split(data->buf, base->buf, count, (unsigned)width, bytes));
        cuts = PyList_New(0);
    } else {
        Order order;
        uint32_t ends[256];
        order.whole = numbers->whole;
        uint8_t *room = new_room(&order, count, width, 2);
        if (room) {
            uint8_t *sorted = room + copy_bytes(count, width);
            UNLOCKED(length, {
                order_keys(
                    base->buf, count, element_of(numbers), (unsigned)numbers->low, (unsigned)numbers->high,
                    &order, ends);
                delta_split_sorted(
                    data->buf, base->buf, count, (unsigned)width, &order, room, sorted, bytes);
            });
            free(room);
            cuts = list_cuts(numbers, ends);
        }
    }
    PyObject *both = cuts ? PyTuple_Pack(2, streams, cuts) : NULL;
    Py_XDECREF(cuts);
    Py_DECREF(streams);
    return both;
}

static PyObject *py_delta_split(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data, base;
    Numbers n;
    if (!PyArg_ParseTuple(
            args, "y*y*(nnnn)(nnp)", &data, &base, &n.code, &n.width, &n.bit, &n.mask, &n.low, &n.high,
            &n.whole))
        return NULL;
    PyObject *made = split_numbers(&data, &base, &n);
    PyBuffer_Release(&data);
    PyBuffer_Release(&base);
    return made;
}

static PyObject *join_numbers(PyObject *given, const Py_buffer *base, Py_ssize_t plain, const Numbers *numbers) {
    if (plain < 0 || plain > MOST_BYTES || base->len > MOST_BYTES) return refuse("more than a chunk");
    if (!check_numbers(numbers)) return NULL;
    size_t width = (size_t)numbers->width, length = (size_t)(plain < base->len ? plain : base->len);
    size_t count = length / width, lengths[10], end = count * width;
    size_t found = delta_lengths(numbers, count, lengths);
    lengths[found] = (size_t)plain - end;
    Streams streams;
    if (!open_streams(given, lengths, found + 1, &streams)) return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, plain);
    if (made) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(made);
        if (lengths[found]) memcpy(out + end, streams.bytes[found], lengths[found]);
        if (numbers->low == numbers->high) {
            UNLOCKED(length, delta_join(streams.bytes, base->buf, count, (unsigned)width, out));
        } else {
            Order order;
            uint32_t ends[256];
            order.whole = numbers->whole;
            uint8_t *room = new_room(&order, count, width, 1);
            if (room) {
                UNLOCKED(length, {
                    order_keys(
                        base->buf, count, element_of(numbers), (unsigned)numbers->low,
                        (unsigned)numbers->high, &order, ends);
                    delta_join_sorted(streams.bytes, base->buf, count, (unsigned)width, &order, room, out);
                });
                free(room);
            } else {
                Py_CLEAR(made);
            }
        }
    }
    close_streams(&streams);
    return made;
}

static PyObject *py_delta_join(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given;
    Py_buffer base;
    Py_ssize_t plain;
    Numbers n;
    if (!PyArg_ParseTuple(
            args, "Oy*n(nnnn)(nnp)", &given, &base, &plain, &n.code, &n.width, &n.bit, &n.mask, &n.low,
            &n.high, &n.whole))
        return NULL;
    PyObject *made = join_numbers(given, &base, plain, &n);
    PyBuffer_Release(&base);
    return made;
}

static PyObject *py_key_counts(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer base;
    Numbers n = {0};
    Py_ssize_t count, step;
    if (!PyArg_ParseTuple(args, "y*(nnnn)nn", &base, &n.code, &n.width, &n.bit, &n.mask, &count, &step))
        return NULL;
    PyObject *made = NULL;
    uint64_t counts[256];
    if (check_numbers(&n)) {
        if (!n.mask || count < 0 || step < 1 || step > MOST_BYTES || count > base.len / n.width ||
            base.len > MOST_BYTES) {
            refuse("no such keys");
        } else {
            key_counts(base.buf, (size_t)count, element_of(&n), (size_t)step, counts);
            made = list_of(counts);
        }
    }
    PyBuffer_Release(&base);
    return made;
}

/* --- encoding 3, quantised blocks ------------------------------------------------------------------- */

static int check_block(Py_ssize_t width, Py_ssize_t offset, Py_ssize_t scales) {
    if (width >= 2 && width <= MOST_BLOCK_BYTES && scales >= 1 && offset >= 0 && scales <= width / 2 &&
        offset <= width - 2 * scales)
        return 1;
    refuse("no such block");
    return 0;
}

static PyObject *py_blocks_split(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data, base;
    Py_ssize_t width, offset, scales;
    if (!PyArg_ParseTuple(args, "y*y*(nnn)", &data, &base, &width, &offset, &scales)) return NULL;
    PyObject *made = NULL;
    if (check_block(width, offset, scales)) {
        Block block = {(size_t)width, (size_t)offset, (size_t)scales};
        size_t length = (size_t)(data.len < base.len ? data.len : base.len), count = length / block.width;
        size_t lengths[3] = {
            count * block.scales, count * block.scales, count * (block.width - 2 * block.scales)};
        uint8_t *bytes[3];
        made = new_streams(lengths, 3, bytes);
        if (made) UNLOCKED(length, blocks_split(data.buf, base.buf, count, block, bytes));
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&base);
    return made;
}

static PyObject *join_blocks(PyObject *given, const Py_buffer *base, Py_ssize_t plain, Block block) {
    if (plain < 0 || plain > MOST_BYTES) return refuse("more than a chunk");
    size_t length = (size_t)(plain < base->len ? plain : base->len), count = length / block.width;
    size_t end = count * block.width;
    size_t lengths[4] = {
        count * block.scales, count * block.scales, count * (block.width - 2 * block.scales),
        (size_t)plain - end};
    Streams streams;
    if (!open_streams(given, lengths, 4, &streams)) return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, plain);
    if (made) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(made);
        if (lengths[3]) memcpy(out + end, streams.bytes[3], lengths[3]);
        UNLOCKED(length, blocks_join(streams.bytes, base->buf, count, block, out));
    }
    close_streams(&streams);
    return made;
}

static PyObject *py_blocks_join(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given, *made = NULL;
    Py_buffer base;
    Py_ssize_t plain, width, offset, scales;
    if (!PyArg_ParseTuple(args, "Oy*n(nnn)", &given, &base, &plain, &width, &offset, &scales)) return NULL;
    if (check_block(width, offset, scales)) {
        Block block = {(size_t)width, (size_t)offset, (size_t)scales};
        made = join_blocks(given, &base, plain, block);
    }
    PyBuffer_Release(&base);
    return made;
}

/* --- streams ---------------------------------------------------------------------------------------- */

static PyObject *py_count_nonzero(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data;
    Py_ssize_t enough;
    size_t found;
    if (!PyArg_ParseTuple(args, "y*n", &data, &enough)) return NULL;
    size_t most = enough > 0 ? (size_t)enough : 0;
    UNLOCKED(data.len, found = count_nonzero(data.buf, (size_t)data.len, most));
    PyBuffer_Release(&data);
    return PyLong_FromSize_t(found);
}

static PyObject *py_byte_counts(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data;
    Py_ssize_t start, step;
    uint64_t counts[256];
    if (!PyArg_ParseTuple(args, "y*nn", &data, &start, &step)) return NULL;
    PyObject *made = NULL;
    if (start < 0 || start > data.len || step < 1) {
        refuse("no such bytes");
    } else {
        const uint8_t *from = (const uint8_t *)data.buf + start;
        size_t length = (size_t)(data.len - start);
        UNLOCKED(length / (size_t)step, byte_counts(from, length, (size_t)step, counts));
        made = list_of(counts);
    }
    PyBuffer_Release(&data);
    return made;
}

static PyObject *py_sparse_split(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "y*", &data)) return NULL;
    size_t length = (size_t)data.len, found = 0, room;
    UNLOCKED(length, room = count_nonzero(data.buf, length, length));
    size_t lengths[2] = {length / 8 + (length % 8 != 0), room};
    uint8_t *bytes[2];
    PyObject *made = new_streams(lengths, 2, bytes);
    if (made) UNLOCKED(length, found = sparse_split(data.buf, length, bytes[0], bytes[1], room));
    PyBuffer_Release(&data);
    if (made && found != room) {
        Py_DECREF(made);
        return refuse("the bytes changed meanwhile");
    }
    return made;
}

static PyObject *py_mask_count(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer mask;
    Py_ssize_t length;
    size_t found = 0;
    if (!PyArg_ParseTuple(args, "y*n", &mask, &length)) return NULL;
    int fits = length >= 0 && mask.len == length / 8 + (length % 8 != 0);
    if (fits) UNLOCKED(mask.len, found = mask_count(mask.buf, (size_t)length));
    PyBuffer_Release(&mask);
    return fits ? PyLong_FromSize_t(found) : refuse("a mask of another length");
}

static PyObject *py_sparse_join(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer mask, values;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "y*y*n", &mask, &values, &length)) return NULL;
    PyObject *made = NULL;
    if (length < 0 || length > MOST_BYTES || mask.len != length / 8 + (length % 8 != 0)) {
        refuse("a mask of another length");
    } else {
        made = PyBytes_FromStringAndSize(NULL, length);
        if (made) {
            uint8_t *out = (uint8_t *)PyBytes_AsString(made);
            size_t count = (size_t)values.len, used;
            UNLOCKED(length, used = sparse_join(mask.buf, values.buf, count, out, (size_t)length));
            if (used != count) {
                Py_CLEAR(made);
                refuse("as many values as the mask has bits are needed");
            }
        }
    }
    PyBuffer_Release(&mask);
    PyBuffer_Release(&values);
    return made;
}

/* --- packed symbols --------------------------------------------------------------------------------- */

static PyObject *py_symbols_split(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer plain;
    Py_ssize_t per_byte;
    int is_signed;
    if (!PyArg_ParseTuple(args, "y*np", &plain, &per_byte, &is_signed)) return NULL;
    PyObject *made = NULL;
    if (!symbols_radix(per_byte)) {
        refuse("no such packing");
    } else {
        size_t length = (size_t)plain.len, n = (size_t)per_byte, found = 0, room;
        UNLOCKED(length, room = large_count(plain.buf, length, (unsigned)symbols_radix(per_byte) - 1, is_signed));
        size_t lengths[2] = {length / n + (length % n != 0), room};
        uint8_t *bytes[2];
        made = new_streams(lengths, 2, bytes);
        if (made)
            UNLOCKED(length, found = symbols_split(plain.buf, length, n, is_signed, bytes[0], bytes[1], room));
        if (made && found != room) {
            Py_CLEAR(made);
            refuse("the bytes changed meanwhile");
        }
    }
    PyBuffer_Release(&plain);
    return made;
}

static int are_packed(const Py_buffer *packed, Py_ssize_t length, Py_ssize_t per_byte) {
    if (symbols_radix(per_byte) && length >= 0 && length <= MOST_BYTES &&
        packed->len == length / per_byte + (length % per_byte != 0))
        return 1;
    refuse("symbols of another length");
    return 0;
}

static PyObject *py_escapes_count(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer packed;
    Py_ssize_t length, per_byte;
    size_t found = 0;
    if (!PyArg_ParseTuple(args, "y*nn", &packed, &length, &per_byte)) return NULL;
    int fits = are_packed(&packed, length, per_byte);
    if (fits) UNLOCKED(packed.len, found = escapes_count(packed.buf, (size_t)length, (size_t)per_byte));
    PyBuffer_Release(&packed);
    return fits ? PyLong_FromSize_t(found) : NULL;
}

static PyObject *py_symbols_join(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer packed, escaped;
    Py_ssize_t length, per_byte;
    int is_signed;
    if (!PyArg_ParseTuple(args, "y*y*nnp", &packed, &escaped, &length, &per_byte, &is_signed)) return NULL;
    PyObject *made = NULL;
    if (are_packed(&packed, length, per_byte)) {
        made = PyBytes_FromStringAndSize(NULL, length);
        if (made) {
            uint8_t *out = (uint8_t *)PyBytes_AsString(made);
            size_t count = (size_t)escaped.len, used;
            UNLOCKED(length, {
                used = symbols_join(packed.buf, escaped.buf, count, out, (size_t)length, (size_t)per_byte);
                if (is_signed) signs_join(out, (size_t)length);
            });
            if (used != count) {
                Py_CLEAR(made);
                refuse("as many escaped symbols as there are escapes are needed");
            }
        }
    }
    PyBuffer_Release(&packed);
    PyBuffer_Release(&escaped);
    return made;
}

/* --- for tests and benchmarks ------------------------------------------------------------------------ */

static PyObject *py_limit_shuffles(PyObject *self, PyObject *args) {
    (void)self;
    unsigned bits;
    if (!PyArg_ParseTuple(args, "I", &bits)) return NULL;
    return PyLong_FromUnsignedLong(shuffles_limit(bits));
}

/* --- the module ------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"planes_split", py_planes_split, METH_VARARGS, NULL},
    {"planes_join", py_planes_join, METH_VARARGS, NULL},
    {"delta_split", py_delta_split, METH_VARARGS, NULL},
    {"delta_join", py_delta_join, METH_VARARGS, NULL},
    {"key_counts", py_key_counts, METH_VARARGS, NULL},
    {"blocks_split", py_blocks_split, METH_VARARGS, NULL},
    {"blocks_join", py_blocks_join, METH_VARARGS, NULL},
    {"count_nonzero", py_count_nonzero, METH_VARARGS, NULL},
    {"byte_counts", py_byte_counts, METH_VARARGS, NULL},
    {"sparse_split", py_sparse_split, METH_VARARGS, NULL},
    {"mask_count", py_mask_count, METH_VARARGS, NULL},
    {"sparse_join", py_sparse_join, METH_VARARGS, NULL},
    {"symbols_split", py_symbols_split, METH_VARARGS, NULL},
    {"escapes_count", py_escapes_count, METH_VARARGS, NULL},
    {"symbols_join", py_symbols_join, METH_VARARGS, NULL},
    {"limit_shuffles", py_limit_shuffles, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int begin(PyObject *module) {
    shuffles_init();
    symbols_init();
    if (PyModule_AddStringConstant(module, "NAME", "c")) return -1;
    return PyModule_AddIntConstant(module, "VERSION", VERSION);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)begin},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernels", "The transforms of chunks, in C.", 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void) {
    return PyModuleDef_Init(&definition);
}
