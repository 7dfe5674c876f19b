// SPDX-License-Identifier: Apache-2.0
/*
 * The standard library's module _sha2, from which hashlib takes SHA-2, over the functions of libmd: Debian's archive of the
 * interpreter lacks those that its own _sha2 calls. Four functions that make an object, and what hashlib says it can do.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sha2.h>

struct kind {
	const char *name;
	int digest_size, block_size;
	void (*init)(SHA2_CTX *);
	void (*update)(SHA2_CTX *, const uint8_t *, size_t);
	void (*final)(uint8_t *, SHA2_CTX *);
};

static const struct kind sha224 = { "sha224", 28, 64, SHA224Init, SHA224Update, SHA224Final };
static const struct kind sha256 = { "sha256", 32, 64, SHA256Init, SHA256Update, SHA256Final };
static const struct kind sha384 = { "sha384", 48, 128, SHA384Init, SHA384Update, SHA384Final };
static const struct kind sha512 = { "sha512", 64, 128, SHA512Init, SHA512Update, SHA512Final };

struct hash {
	PyObject_HEAD
	const struct kind *kind;
	SHA2_CTX state;
};

static PyTypeObject hash_type;

static PyObject *update(PyObject *self, PyObject *data)
{
	struct hash *hash = (struct hash *)self;
	Py_buffer view;

	if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	hash->kind->update(&hash->state, view.buf, view.len);
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

static PyObject *copy(PyObject *self, PyObject *Py_UNUSED(none))
{
	struct hash *made = PyObject_New(struct hash, &hash_type);

	if (made) {
		made->kind = ((struct hash *)self)->kind;
		made->state = ((struct hash *)self)->state;
	}
	return (PyObject *)made;
}

static PyObject *digest(PyObject *self, PyObject *Py_UNUSED(none))
{
	struct hash *hash = (struct hash *)self;
	SHA2_CTX state = hash->state; /* more may be added afterwards */
	uint8_t bytes[64];

	hash->kind->final(bytes, &state);
	return PyBytes_FromStringAndSize((char *)bytes, hash->kind->digest_size);
}

static PyObject *hexdigest(PyObject *self, PyObject *none)
{
	PyObject *bytes = digest(self, none);
	PyObject *text = bytes ? PyObject_CallMethod(bytes, "hex", NULL) : NULL;

	Py_XDECREF(bytes);
	return text;
}

static PyObject *get_name(PyObject *self, void *Py_UNUSED(none))
{
	return PyUnicode_FromString(((struct hash *)self)->kind->name);
}

static PyObject *get_digest_size(PyObject *self, void *Py_UNUSED(none))
{
	return PyLong_FromLong(((struct hash *)self)->kind->digest_size);
}

static PyObject *get_block_size(PyObject *self, void *Py_UNUSED(none))
{
	return PyLong_FromLong(((struct hash *)self)->kind->block_size);
}

static PyMethodDef methods[] = {
	{ "update", update, METH_O, NULL },
	{ "copy", copy, METH_NOARGS, NULL },
	{ "digest", digest, METH_NOARGS, NULL },
	{ "hexdigest", hexdigest, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef properties[] = {
	{ "name", get_name, NULL, NULL, NULL },
	{ "digest_size", get_digest_size, NULL, NULL, NULL },
	{ "block_size", get_block_size, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyTypeObject hash_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "_sha2.hash",
	.tp_basicsize = sizeof(struct hash),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_methods = methods,
	.tp_getset = properties,
};

static PyObject *make(const struct kind *kind, PyObject *args, PyObject *options)
{
	static char *names[] = { "string", "usedforsecurity", NULL };
	PyObject *data = NULL, *done;
	int ignored;
	struct hash *made;

	if (!PyArg_ParseTupleAndKeywords(args, options, "|O$p", names, &data, &ignored))
		return NULL;
	made = PyObject_New(struct hash, &hash_type);
	if (!made)
		return NULL;
	made->kind = kind;
	kind->init(&made->state);
	done = data ? update((PyObject *)made, data) : Py_None;
	if (!done)
		Py_CLEAR(made);
	return (PyObject *)made;
}

static PyObject *make_224(PyObject *Py_UNUSED(module), PyObject *args, PyObject *options)
{
	return make(&sha224, args, options);
}

static PyObject *make_256(PyObject *Py_UNUSED(module), PyObject *args, PyObject *options)
{
	return make(&sha256, args, options);
}

static PyObject *make_384(PyObject *Py_UNUSED(module), PyObject *args, PyObject *options)
{
	return make(&sha384, args, options);
}

static PyObject *make_512(PyObject *Py_UNUSED(module), PyObject *args, PyObject *options)
{
	return make(&sha512, args, options);
}

#define FUNCTION(name, make) { name, (PyCFunction)(void (*)(void))make, METH_VARARGS | METH_KEYWORDS, NULL }

static PyMethodDef functions[] = {
	FUNCTION("sha224", make_224), FUNCTION("sha256", make_256), FUNCTION("sha384", make_384), FUNCTION("sha512", make_512),
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, .m_name = "_sha2", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__sha2(void)
{
	return PyType_Ready(&hash_type) < 0 ? NULL : PyModule_Create(&definition);
}
